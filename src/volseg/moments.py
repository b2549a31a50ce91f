"""Count, extent and moments of objects from runs of equal voxels along x. Pure functions.

Everything is counted in integers, so sums over blocks equal sums over the whole, exactly and in
any order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.merging import group, merge
from volseg.types import Roi

VALUES_AT_ONCE = 1 << 18
"""Voxels whose intensities are gathered at a time: they stay in the cache."""

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


@dataclass(frozen=True)
class LabelRuns:
    """Stretches of one label along x, in raster order; background is left out.

    Attributes
    ----------
    labels : unsigned, shape (runs,)
    first : int64, shape (3, runs)
        The first voxels' (z, y, x) within the block.
    lengths : int64, shape (runs,)
    """

    labels: NDArray[np.unsignedinteger[Any]]
    first: NDArray[np.int64]
    lengths: NDArray[np.int64]


def find_runs(labels: NDArray[Any]) -> LabelRuns:
    """Find the runs of one block.

    Parameters
    ----------
    labels : any integer type, shape (z, y, x)
        What is not above 0 is background.

    Examples
    --------
    >>> found = find_runs(np.array([[[0, 4, 4, 7]]]))
    >>> found.labels, found.lengths, found.first[2]
    (array([4, 7], dtype=uint64), array([2, 1]), array([1, 3]))
    """
    width = labels.shape[2]
    values, starts, lengths = [], [], []
    for z, plane in enumerate(labels):  # a plane at a time stays in the cache
        flat = np.ascontiguousarray(plane).reshape(-1)
        changes = np.empty(flat.shape, bool)
        np.not_equal(flat[1:], flat[:-1], out=changes[1:])
        changes[::width] = True
        heads = np.flatnonzero(changes)
        found = flat[heads]
        ends = np.append(heads[1:], flat.size)
        occupied = np.flatnonzero(found > 0)
        values.append(found[occupied])
        lengths.append((ends - heads)[occupied])
        starts.append(heads[occupied] + z * flat.size)
    joined = np.concatenate(values)
    row, x = np.divmod(np.concatenate(starts), width)
    z_y = np.divmod(row, labels.shape[1])
    unsigned = joined.astype(np.dtype(f"u{joined.dtype.itemsize}"), copy=False)
    return LabelRuns(unsigned, np.stack([*z_y, x]), np.concatenate(lengths))


def sum_runs(runs: LabelRuns, core: Roi, *, second: bool = False) -> Moments:
    """Sum over the objects of one block.

    Parameters
    ----------
    runs : of the block
    core : where the block lies in the volume
    second : whether to sum products of coordinates too
    """
    (z, y, x), n = runs.first, runs.lengths
    first = runs.first.T
    stops = first + 1
    stops[:, 2] += n - 1
    # the sums of x, x + 1, ... and of their squares over a run are whole numbers
    along = x * n + n * (n - 1) // 2
    sums = np.stack([z * n, y * n, along], axis=1)
    products = np.empty((len(n), 0), np.int64)
    if second:
        squares = x * x * n + x * n * (n - 1) + n * (n - 1) * (2 * n - 1) // 6
        products = np.stack([z * z * n, y * y * n, squares, z * y * n, z * along, y * along], 1)
    found = group(Moments(runs.labels, n, sums, first, stops, products))
    return _shifted(found, np.array([s.start for s in core]))


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


def sum_values(runs: LabelRuns, values: NDArray[Any]) -> Values:
    """Sum over the intensities in each object of one block.

    Parameters
    ----------
    runs : of the block
    values : uint8, uint16 or int16, shape (z, y, x)
        What stands at the same voxels, from the block's first one on.
    """
    stops = np.cumsum(runs.lengths)
    starts = np.ravel_multi_index(tuple(runs.first), values.shape)
    flat, parts = values.reshape(-1), [_no_values(runs)]
    for part in _at_most(stops, VALUES_AT_ONCE):
        lengths = runs.lengths[part]
        heads = np.cumsum(lengths) - lengths
        voxels = np.repeat(starts[part] - heads, lengths) + np.arange(lengths.sum())
        found = flat[voxels].astype(np.int64)
        lowest, highest = (f.reduceat(found, heads) for f in (np.minimum, np.maximum))
        total = np.add.reduceat(found, heads)
        squares = np.add.reduceat(np.multiply(found, found, out=found).view(np.uint64), heads)
        parts.append(group(Values(runs.labels[part], total, squares, lowest, highest)))
    return merge(parts)


def _no_values(runs: LabelRuns) -> Values:
    empty = np.empty(0, np.int64)
    return Values(runs.labels[:0], empty, empty.astype(np.uint64), empty, empty)


def _at_most(stops: NDArray[np.int64], voxels: int) -> Iterator[slice]:
    """Cut runs that end at ``stops`` into stretches of about so many voxels."""
    if not len(stops):
        return
    cuts = np.searchsorted(stops, np.arange(0, stops[-1], voxels)).tolist()
    bounds = sorted({*cuts, len(stops)})
    yield from (slice(a, b) for a, b in itertools.pairwise(bounds))


def slice_areas(runs: LabelRuns, depth: int) -> NDArray[np.int64]:
    """Count the voxels of objects in each slice of a block, shape (depth,)."""
    ends = np.searchsorted(runs.first[0], np.arange(depth + 1))
    total = np.concatenate([[0], np.cumsum(runs.lengths)])
    return np.diff(total[ends])
