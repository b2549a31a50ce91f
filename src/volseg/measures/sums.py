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
    joined: Sums = type(parts[0])(**joined_columns(parts, [f.name for f in fields(parts[0])]))
    return group(joined)


def joined_columns(parts: Sequence[Any], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Put the rows of several parts one after the other."""
    return {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}


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
    summed = [f.name for f in fields(rows) if f.name != "labels"]
    grouped: Sums = type(rows)(labels=labels[heads], **reduced(rows, summed, order, heads))
    return grouped


def reduced(
    rows: Any, names: Sequence[str], order: NDArray[np.intp], heads: NDArray[np.intp]
) -> dict[str, NDArray[Any]]:
    """Reduce columns over groups of ordered rows, of which each begins at one of the heads."""
    reductions = {name: REDUCTIONS.get(name, np.add).reduceat for name in names}
    return {name: reduce(getattr(rows, name)[order], heads) for name, reduce in reductions.items()}


def choose(rows: Sums, labels: Sequence[int]) -> Sums:
    """Keep the rows of some labels."""
    return take(rows, np.isin(rows.labels, np.asarray(labels, rows.labels.dtype)))


def take(rows: Sums, which: NDArray[Any]) -> Sums:
    """Choose rows by position, or by a mask."""
    chosen: Sums = type(rows)(**{f.name: getattr(rows, f.name)[which] for f in fields(rows)})
    return chosen


PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""The axes of the six second moments."""


@dataclass(frozen=True)
class Extents:
    """Sizes and places of objects.

    Attributes
    ----------
    labels : the objects' labels, ascending, each once
    voxels : int64, shape (objects,)
    sums : int64, shape (objects, 3); sums of the voxels' coordinates (z, y, x) in the volume.
    starts, stops : int64, shape (objects, 3); bounding boxes.
    """

    labels: NDArray[np.unsignedinteger[Any]]
    voxels: NDArray[np.int64]
    sums: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


@dataclass(frozen=True)
class Moments(Extents):
    """Additive sums over the objects of a block, a part, or a whole volume.

    Sums wrap around at 2**64. Those of an object about its own box do not, unless it is larger
    than any organelle (`LARGEST`), and shifting them there wraps back: the result is exact.

    Attributes
    ----------
    products : int64, shape (objects, 6), or (objects, 0)
        Sums of products of two coordinates, in the order of `PAIRS`, if they were asked for.
    """

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
