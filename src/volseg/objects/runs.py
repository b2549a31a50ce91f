"""Runs: stretches of foreground along x, and compiled loops over them.

A block of real mitochondria holds a few hundred times fewer runs than voxels, so components, their
sizes and their faces cost next to nothing once the runs are known. See decision 0035.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import roi_shape
from volseg.objects.union_find import find_root, number_sets
from volseg.types import Roi
from volseg.voxels.compilation import compiled

Indices = NDArray[np.uint32]
SLAB_VOXELS = 1 << 19
"""Voxels whose runs are found at a time."""
FIRST_PAIRS = 1 << 12
"""Pairs of neighbours that there is room for at first."""


class Runs(NamedTuple):
    """The foreground of an array (z, y, x), row by row; compiled loops take it as it is.

    Attributes
    ----------
    rows : uint32, shape (rows + 1,)
        Run ``rows[r]`` is the first of row r = z * height + y, ``rows[r + 1] - 1`` the last.
    starts, stops : uint32, shape (runs,); where each run begins and ends in its row.
    """

    rows: Indices
    starts: Indices
    stops: Indices


def find_runs(volume: NDArray[Any], level: int = 1) -> Runs:
    """Find the runs of an array.

    Parameters
    ----------
    volume : bool or integer, shape (z, y, x)
    level : from which a voxel is foreground

    Examples
    --------
    >>> runs = find_runs(np.array([[[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]]], bool))
    >>> runs.rows.tolist(), runs.starts.tolist(), runs.stops.tolist()
    ([0, 2, 2, 3], [0, 3, 1], [2, 4, 4])
    """
    height, width = volume.shape[1:]
    # slab by slab, so that everything stays in the processor's cache
    depth = max(SLAB_VOXELS // (height * width), 1)
    slabs = [_slab_runs(volume[z : z + depth], level) for z in range(0, len(volume), depth)]
    firsts = range(0, len(volume) * height, depth * height)
    row = np.concatenate([r + first for (r, _, _), first in zip(slabs, firsts, strict=True)])
    rows = np.searchsorted(row, np.arange(len(volume) * height + 1))
    starts, stops = (np.concatenate([slab[k] for slab in slabs]) for k in (1, 2))
    return Runs(rows.astype(np.uint32), starts.astype(np.uint32), stops.astype(np.uint32))


def _slab_runs(slab: NDArray[Any], level: int) -> tuple[NDArray[np.int64], ...]:
    """Find the row, start and stop of each run."""
    count, width = slab.shape[0] * slab.shape[1], slab.shape[2]
    # a column of background after each row ends the runs there, and one before all begins them
    padded = np.zeros(1 + count * (width + 1), bool)
    inside = padded[1:].reshape(count, width + 1)[:, :-1]
    np.greater_equal(slab.reshape(count, width), level, out=inside)
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    row, start = np.divmod(changes[::2], width + 1)
    return row, start, changes[1::2] - row * (width + 1)


def join_runs(runs: Runs, height: int, connectivity: int) -> tuple[Indices, int]:
    """Find the connected components of runs, numbered in the order of their first runs.

    Parameters
    ----------
    runs : of an array
    height : rows of a plane
    connectivity : 6, 18 or 26; or 4 or 8, within slices

    Returns
    -------
    values : uint32, shape (runs,); the component of each run, from 1.
    count : of the components
    """
    parent = np.arange(len(runs.starts), dtype=np.uint32)
    values = np.empty_like(parent)
    return values, _join_runs(runs, height, connectivity, parent, values)


@compiled
def _join_runs(runs: Runs, height: int, connectivity: int, parent: Indices, values: Indices) -> int:
    rows, starts, stops = runs
    for row in range(len(rows) - 1):
        z, y = row // height, row % height
        for dz, dy in ((0, -1), (-1, -1), (-1, 0), (-1, 1)):
            apart = abs(dz) + abs(dy)
            inside = z + dz >= 0 and 0 <= y + dy < height
            apart_slices = dz != 0 and connectivity in (4, 8)
            if inside and not apart_slices and not (apart == 2 and connectivity == 6):
                # whether runs that are neighbours along x only by a corner touch
                wide = connectivity == 26 or connectivity == 8
                reach = int(wide or (connectivity == 18 and apart == 1))
                _join_rows(rows, starts, stops, (row, row + dz * height + dy, reach), parent)
    return number_sets(parent, values)


@compiled
def _join_rows(
    rows: Indices, starts: Indices, stops: Indices, pair: tuple[int, int, int], parent: Indices
) -> None:
    here, there, reach = pair
    i, j = rows[here], rows[there]
    while i < rows[here + 1] and j < rows[there + 1]:
        if starts[i] < stops[j] + reach and starts[j] < stops[i] + reach:
            a, b = find_root(parent, i), find_root(parent, j)
            parent[max(a, b)] = min(a, b)
        if stops[i] < stops[j]:
            i += 1
        else:
            j += 1


@compiled
def sum_runs(runs: Runs, values: Indices, volume: NDArray[Any], totals: NDArray[np.int64]) -> None:
    """Add the values of the voxels of runs to the totals of their components.

    Parameters
    ----------
    values : uint32, shape (runs,); the component of each run, from 1.
    volume : integer, shape (z, y, x)
    totals : shape (components,)
    """
    rows, starts, stops = runs
    height = volume.shape[1]
    for row in range(len(rows) - 1):
        line = volume[row // height, row % height]
        for k in range(rows[row], rows[row + 1]):
            total = np.int64(0)
            for x in range(starts[k], stops[k]):
                total += np.int64(line[x])
            totals[values[k] - 1] += total


def paint(runs: Runs, values: NDArray[Any], height: int, box: Roi) -> NDArray[Any]:
    """Paint runs as voxels.

    Parameters
    ----------
    runs : of a whole array
    values : shape (runs,); what the voxels of each run become; all others become 0.
    height : rows of a plane of that array
    box : the part that is wanted

    Returns
    -------
    type of ``values``, shape of ``box``
    """
    painted = np.zeros(roi_shape(box), values.dtype)
    corner = box[0].start, box[1].start, box[2].start
    _paint(runs, values, height, corner, painted)
    return painted


@compiled
def _paint(
    runs: Runs,
    values: NDArray[Any],
    height: int,
    corner: tuple[int, int, int],
    painted: NDArray[Any],
) -> None:
    rows, starts, stops = runs
    depth, wide, width = painted.shape
    for z in range(depth):
        for y in range(wide):
            row = (z + corner[0]) * height + y + corner[1]
            for run in range(rows[row], rows[row + 1]):
                start, stop = np.int64(starts[run]) - corner[2], np.int64(stops[run]) - corner[2]
                for x in range(max(start, np.int64(0)), min(stop, np.int64(width))):
                    painted[z, y, x] = values[run]


def neighbour_pairs(
    here: NDArray[Any], there: NDArray[Any], reach: int, *, rows_apart: bool = False
) -> NDArray[np.uint64]:
    """Find which values of two facing planes touch.

    Parameters
    ----------
    here, there : unsigned, shape (m, n)
        0 is background.
    reach : 0 for faces, 1 also for edges, 2 also for corners
        How many of the plane's two axes may differ by one.
    rows_apart : whether rows are slices of their own, whose voxels are no neighbours

    Returns
    -------
    uint64, shape (pairs,); ``here << 32 | there``; many of them repeat.
    """
    pairs = np.empty(FIRST_PAIRS, np.uint64)
    rows = 0 if rows_apart else min(reach, 1)
    while (count := _list_pairs(here, there, (reach, rows), pairs)) > len(pairs):
        pairs = np.empty(count, np.uint64)
    return pairs[:count]


@compiled
def _list_pairs(
    here: NDArray[Any], there: NDArray[Any], reaches: tuple[int, int], pairs: NDArray[np.uint64]
) -> int:
    """Count the pairs of values that touch, and list as many as fit."""
    count, (reach, rows) = 0, reaches
    height, width = here.shape
    for y in range(height):
        for dy in range(-rows, rows + 1):
            if not 0 <= y + dy < height:
                continue
            wide, before, last = abs(dy) < reach, 0, np.uint64(0)
            for x in range(width):
                value = here[y, x]
                # of a row of equal voxels, each but the first meets one that the last did not
                first = (x + 1 if value == before else x - 1) if wide else x
                before = value
                if value == 0:
                    continue
                for k in range(max(first, 0), min(x + 2 if wide else x + 1, width)):
                    other = there[y + dy, k]
                    pair = np.uint64(value) << np.uint64(32) | np.uint64(other)
                    if other == 0 or pair == last:
                        continue
                    if count < len(pairs):
                        pairs[count] = pair
                    last = pair
                    count += 1
    return count
