"""Sets of voxels as intervals of their index in the volume's raster order. Pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.objects.runs import find_runs
from volseg.types import Mask, Roi, Zyx

Intervals = NDArray[np.int64]
"""Shape (n, 2): first voxel, and the one after the last; none goes on into the next row."""


def find_intervals(mask: Mask, roi: Roi, shape: Zyx) -> Intervals:
    """Find the intervals of what is set in a box of a volume, in raster order.

    Parameters
    ----------
    mask : bool, shape of ``roi``
    shape : the volume's

    Examples
    --------
    >>> box = slice(1, 2), slice(0, 2), slice(2, 5)
    >>> find_intervals(np.array([[[1, 1, 0], [0, 0, 1]]], bool), box, (2, 3, 10)).tolist()
    [[32, 34], [44, 45]]
    """
    runs, height = find_runs(mask), mask.shape[1]
    row = np.repeat(np.arange(len(runs.rows) - 1), runs.rows[1:] - runs.rows[:-1])
    z, y = row // height + roi[0].start, row % height + roi[1].start
    first = (z * shape[1] + y) * shape[2] + roi[2].start
    return np.stack([first + runs.starts, first + runs.stops], axis=1)


def overlapping(one: Intervals, other: Intervals) -> bool:
    """Tell whether two sets share a voxel.

    Examples
    --------
    >>> a = np.array([[0, 5], [10, 12]])
    >>> overlapping(a, np.array([[5, 10]])), overlapping(a, np.array([[11, 20], [30, 31]]))
    (False, True)
    """
    if not len(one):
        return False
    ordered = one[np.argsort(one[:, 0])]
    at = np.searchsorted(ordered[:, 1], other[:, 0], side="right")
    inside = at < len(ordered)
    return bool((ordered[at[inside], 0] < other[inside, 1]).any())


def paint_intervals(
    into: NDArray[Any], roi: Roi, intervals: Intervals, shape: Zyx, value: int
) -> None:
    """Write a value into the voxels of a set that lie in a box of the volume.

    Parameters
    ----------
    into : shape of ``roi``
    value : what is written
    """
    row, start = np.divmod(intervals[:, 0], shape[2])
    z, y = np.divmod(row, shape[1])
    stop = intervals[:, 1] - row * shape[2]
    near = (z >= roi[0].start) & (z < roi[0].stop) & (y >= roi[1].start) & (y < roi[1].stop)
    near &= (start < roi[2].stop) & (stop > roi[2].start)
    first, last = (np.clip(x - roi[2].start, 0, into.shape[2]) for x in (start, stop))
    for k in np.flatnonzero(near).tolist():
        into[z[k] - roi[0].start, y[k] - roi[1].start, first[k] : last[k]] = value
