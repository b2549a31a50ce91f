"""Additive sums over objects: count, extent, moments, intensities. Pure functions.

Everything is counted in integers, so sums over blocks equal sums over the whole, exactly and in
any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Sums = TypeVar("Sums", bound=Any)
MERGE_EVERY = 64
"""Blocks whose sums are kept apart before they are added up."""

REDUCTIONS: dict[str, np.ufunc] = {
    "starts": np.minimum,
    "stops": np.maximum,
    "lowest": np.minimum,
    "highest": np.maximum,
}
"""Reduction of the rows of one object, by the column's name; all others are added."""


def merge(parts: Sequence[Sums]) -> Sums:
    """Add up the sums of several blocks; at least one.

    Parameters
    ----------
    parts : frozen dataclasses of one kind
        Arrays with one row per object, among them ``labels``; a label may occur in several parts.

    Returns
    -------
    of the same kind, one row per label, ascending
    """
    if len(parts) == 1:
        return parts[0]
    kind = type(parts[0])
    columns = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(parts[0])
    }
    joined: Sums = kind(**columns)
    return group(joined)


def keep_part(kept: list[Sums], part: Sums, merge: Callable[[list[Sums]], Sums]) -> None:
    """Add the sums of one more block to those kept, and merge these when they are many."""
    kept.append(part)
    if len(kept) > MERGE_EVERY:
        kept[:] = [merge(kept)]


def group(rows: Sums) -> Sums:
    """Reduce rows of equal labels to one, and sort them.

    Integers wrap around where they do not fit, which addition undoes again: see `Moments`.
    """
    labels = rows.labels
    if not len(labels):
        return rows
    order = np.argsort(labels, kind="stable")
    labels = labels[order]
    heads = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    columns = {"labels": labels[heads]}
    for field in fields(rows):
        if field.name != "labels":
            reduce = REDUCTIONS.get(field.name, np.add).reduceat
            columns[field.name] = reduce(getattr(rows, field.name)[order], heads)
    grouped: Sums = type(rows)(**columns)
    return grouped


def choose(rows: Sums, labels: Sequence[int]) -> Sums:
    """Keep the rows of some labels."""
    kept = np.isin(rows.labels, np.asarray(labels, rows.labels.dtype))
    chosen: Sums = type(rows)(**{f.name: getattr(rows, f.name)[kept] for f in fields(rows)})
    return chosen


PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""The axes of the six second moments."""


@dataclass(frozen=True)
class Moments:
    """Additive sums over the objects of a block, a part, or a whole volume.

    Sums wrap around at 2**64. Those of an object about its own box do not, unless it is larger
    than any organelle (`LARGEST`), and shifting them there wraps back: the result is exact.

    Attributes
    ----------
    labels : the objects' labels, ascending, each once
    voxels : int64, shape (objects,)
    sums : int64, shape (objects, 3)
        Sums of the voxels' coordinates (z, y, x) in the volume.
    starts, stops : int64, shape (objects, 3)
        Bounding boxes.
    products : int64, shape (objects, 6), or (objects, 0)
        Sums of products of two coordinates, in the order of `PAIRS`, if they were asked for.
    """

    labels: NDArray[np.unsignedinteger[Any]]
    voxels: NDArray[np.int64]
    sums: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    products: NDArray[np.int64]


@dataclass(frozen=True)
class Values:
    """Additive sums over the intensities in each object.

    Attributes
    ----------
    labels : the objects' labels, ascending, each once
    total : int64, shape (objects,)
    squares : uint64, shape (objects,)
        Sums of squares; these too may wrap around, and wrap back in the variance.
    lowest, highest : int64, shape (objects,)
    """

    labels: NDArray[np.unsignedinteger[Any]]
    total: NDArray[np.int64]
    squares: NDArray[np.uint64]
    lowest: NDArray[np.int64]
    highest: NDArray[np.int64]


def _shifted(found: Moments, by: NDArray[np.int64]) -> Moments:
    """Move objects; ``by`` is one offset (z, y, x), or one for each object."""
    steps = np.broadcast_to(by, found.sums.shape)
    voxels = found.voxels
    products = found.products.copy()
    for k, (a, b) in enumerate(PAIRS[: products.shape[1]]):
        s, t = steps[:, a], steps[:, b]
        products[:, k] += s * found.sums[:, b] + t * found.sums[:, a] + s * t * voxels
    sums = found.sums + voxels[:, None] * steps
    starts, stops = found.starts + steps, found.stops + steps
    return Moments(found.labels, voxels, sums, starts, stops, products)


def about_own_box(found: Moments) -> Moments:
    """Move each object to the origin, where its sums are small; the boxes' starts become 0."""
    return _shifted(found, -found.starts)
