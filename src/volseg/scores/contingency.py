"""Compare two labellings of one volume: a sparse table of the pairs of labels that meet in a voxel.

Pairs are counted over runs along x and in integers, so tables of blocks add up to the table of the
whole, exactly and in any order. All scores of agreement follow from this
table. Pure functions over arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ShapeError
from volseg.measures.sums import Extents, group, joined_columns, reduced
from volseg.types import Mask, Roi

Labels64 = NDArray[np.uint64]
Counts = NDArray[np.int64]
SUMMED = ("voxels", "sums", "starts", "stops")
"""Columns of a table beside the labels."""
PACKED = 1 << 32
"""Labels below it fit into one half of a 64-bit sorting key."""


@dataclass(frozen=True)
class Contingency:
    """Numbers of voxels that pairs of a true and a predicted label share; 0 is background.

    Attributes
    ----------
    truth, predicted : uint64, shape (pairs,)
        Ascending by truth, then prediction; each pair once, and never 0 with 0.
    voxels : int64, shape (pairs,)
    sums : int64, shape (pairs, 3); sums of the voxels' coordinates (z, y, x) in the volume.
    starts, stops : int64, shape (pairs, 3); bounding boxes.
    background : voxels that are background in both.
    """

    truth: Labels64
    predicted: Labels64
    voxels: Counts
    sums: Counts
    starts: Counts
    stops: Counts
    background: int

    @property
    def total(self) -> int:
        """All voxels that were compared."""
        return self.background + int(self.voxels.sum())


def count_pairs(
    truth: NDArray[Any], predicted: NDArray[Any], core: Roi, counted: NDArray[Any] | None = None
) -> Contingency:
    """Count the pairs of labels in one block.

    Parameters
    ----------
    truth, predicted : any integer type, shape of ``core``; what is not above 0 is background.
    core : where the block lies in the volume
    counted : any number type, same shape, optional; only voxels above 0 count.

    Examples
    --------
    >>> row = (slice(0, 1), slice(0, 1), slice(0, 4))
    >>> table = count_pairs(np.array([[[1, 1, 0, 0]]]), np.array([[[0, 7, 7, 0]]]), row)
    >>> [(int(t), int(p), int(n)) for t, p, n in zip(table.truth, table.predicted, table.voxels)]
    [(0, 7, 1), (1, 0, 1), (1, 7, 1)]
    >>> table.background
    1
    """
    arrays = [truth, predicted] if counted is None else [truth, predicted, counted > 0]
    if any(a.shape != truth.shape for a in arrays):
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ShapeError(f"labels that are compared must have one shape, found {shapes}")
    starts = _run_starts(arrays)
    lengths = np.diff(starts, append=truth.size)
    ours, theirs = (_positive(a.reshape(-1)[starts]) for a in arrays[:2])
    valid = arrays[2].reshape(-1)[starts] if counted is not None else np.ones(len(starts), bool)
    occupied = valid & ((ours > 0) | (theirs > 0))
    background = int(lengths[valid & ~occupied].sum())
    starts, lengths = starts[occupied], lengths[occupied].astype(np.int64)
    origin = np.array([s.start for s in core], np.int64)
    row, x = np.divmod(starts, truth.shape[2])
    z, y = np.divmod(row, truth.shape[1])
    first: Counts = np.stack([z, y, x], axis=1) + origin
    # the sum of x, x + 1, ... over a run is a whole number
    sums = first * lengths[:, None]
    sums[:, 2] += lengths * (lengths - 1) // 2
    stops = first + 1
    stops[:, 2] += lengths - 1
    return _grouped(
        Contingency(ours[occupied], theirs[occupied], lengths, sums, first, stops, background)
    )


def _run_starts(arrays: Sequence[NDArray[Any]]) -> NDArray[np.intp]:
    """Find where, in raster order, a row begins or any of the arrays changes."""
    depth, height, width = arrays[0].shape
    changes = np.empty(height * width, bool)
    found = []
    for z in range(depth):  # a plane at a time stays in the cache
        for k, array in enumerate(arrays):
            flat = array[z].reshape(-1)
            if k == 0:
                np.not_equal(flat[1:], flat[:-1], out=changes[1:])
            else:
                changes[1:] |= flat[1:] != flat[:-1]
        changes[:: max(width, 1)] = True  # of a narrow image, a block may hold nothing
        found.append(np.flatnonzero(changes) + z * changes.size)
    return np.concatenate(found)


def _positive(values: NDArray[Any]) -> Labels64:
    if values.dtype.kind == "i":
        values = np.maximum(values, 0)
    return values.astype(np.uint64)


MERGED_ROWS = 1 << 18
"""Rows of tables that may be kept apart, whatever their sum; 25 MB."""
MERGED_PARTS = 1 << 12
"""Tables that are kept apart at most, were they empty."""


def add_table(kept: list[Contingency], part: Contingency) -> None:
    """Add the table of one more block to those kept, and merge them where it pays.

    They are added up once what has come since has as many rows as the first table, which is the
    sum so far. So each row is sorted a few times at most, however many blocks there are, and
    memory stays in proportion to the sum.
    """
    kept.append(part)
    recent = sum(len(p.truth) for p in kept[1:])
    if recent > max(len(kept[0].truth), MERGED_ROWS) or len(kept) > MERGED_PARTS:
        kept[:] = [merge_tables(kept)]


def merge_tables(parts: Sequence[Contingency]) -> Contingency:
    """Add up the tables of several blocks; at least one."""
    columns = joined_columns(parts, ("truth", "predicted", *SUMMED))
    return _grouped(Contingency(**columns, background=sum(p.background for p in parts)))


def _grouped(table: Contingency) -> Contingency:
    """Reduce rows of equal pairs to one."""
    if not len(table.truth):
        return table
    order = _order(table.truth, table.predicted)
    truth, predicted = table.truth[order], table.predicted[order]
    differs = (truth[1:] != truth[:-1]) | (predicted[1:] != predicted[:-1])
    heads = np.flatnonzero(np.concatenate([[True], differs]))
    summed = reduced(table, SUMMED, order, heads)
    return Contingency(truth[heads], predicted[heads], **summed, background=table.background)


def _order(truth: Labels64, predicted: Labels64) -> NDArray[np.intp]:
    # one key sorts several times as fast as two
    if max(int(truth.max()), int(predicted.max())) < PACKED:
        return np.argsort(truth << np.uint64(32) | predicted)
    return np.lexsort((predicted, truth))


def truth_objects(table: Contingency) -> Extents:
    """Sum over the objects of the truth, ascending by label."""
    return _objects(table, table.truth)


def predicted_objects(table: Contingency) -> Extents:
    """Sum over the predicted objects, ascending by label."""
    return _objects(table, table.predicted)


def _objects(table: Contingency, labels: Labels64) -> Extents:
    some = labels > 0
    return group(Extents(labels[some], **_taken(table, some)))


def _taken(table: Contingency, rows: Mask) -> dict[str, NDArray[Any]]:
    return {name: getattr(table, name)[rows] for name in SUMMED}


def without_small(table: Contingency, min_size: int) -> Contingency:
    """Turn objects of fewer than ``min_size`` voxels into background, in truth and prediction.

    Examples
    --------
    >>> row = (slice(0, 1), slice(0, 1), slice(0, 4))
    >>> table = count_pairs(np.array([[[1, 1, 2, 0]]]), np.array([[[5, 5, 5, 0]]]), row)
    >>> without_small(table, 2).truth
    array([0, 1], dtype=uint64)
    """
    if min_size <= 1:
        return table
    truth = np.where(_is_small(table.truth, truth_objects(table), min_size), 0, table.truth)
    predicted = np.where(
        _is_small(table.predicted, predicted_objects(table), min_size), 0, table.predicted
    )
    left = (truth > 0) | (predicted > 0)
    background = table.background + int(table.voxels[~left].sum())
    return _grouped(
        Contingency(truth[left], predicted[left], **_taken(table, left), background=background)
    )


def _is_small(labels: Labels64, objects: Extents, min_size: int) -> NDArray[np.bool_]:
    return np.isin(labels, objects.labels[objects.voxels < min_size])
