"""Loops over the voxels of one piece, compiled: number its objects, and sum over them.

A piece is a few thousand voxels, small enough for the processor's cache. It is held as a cube of
slots with a halo of one voxel on all sides: 0 is background, and slot s the object whose sums are
row s - 1. Everything is counted in integers that may wrap around, see `volseg.moments.Moments`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volseg.compilation import compiled

Cube = NDArray[np.int32]
Runs = NDArray[np.int32]
Sums = NDArray[np.int64]
Cell: TypeAlias = tuple[
    np.int32, np.int32, np.int32, np.int32, np.int32, np.int32, np.int32, np.int32
]
"""The slots of 2 x 2 x 2 voxels."""

SLOT, Z, Y, START, STOP, RUN = 0, 1, 2, 3, 4, 5
"""The columns of runs, and how many there are."""

VOXELS, SUMS, STARTS, STOPS, PRODUCTS, MOMENTS = 0, 1, 4, 7, 10, 16
"""Where the columns of moments begin, and how many there are."""
TOTAL, SQUARES, LOWEST, HIGHEST, VALUES = 0, 1, 2, 3, 4
"""The columns of values, and how many there are."""
SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio: its multiples lie far apart (Knuth, volume 3, 6.4)."""


@compiled
def find_slot(label: np.uint64, keys: NDArray[np.uint64], slots: Cube, used: int) -> int:
    """Find the slot of a label, or give it the next one.

    Parameters
    ----------
    label : not 0
    keys, slots : shape (a power of two,)
        A hash table; slot 0 is a free place.
    used : how many slots are given

    Returns
    -------
    int
        ``used + 1`` if the label is new; the caller counts.
    """
    last = len(keys) - 1
    place = np.int64((label * SPREAD) >> np.uint64(32)) & last
    while slots[place] != 0 and keys[place] != label:
        place = (place + 1) & last
    if slots[place] == 0:
        keys[place] = label
        slots[place] = used + 1
    return int(slots[place])


@compiled
def number_voxels(
    labels: NDArray[Any], cube: Cube, runs: Runs, keys: NDArray[np.uint64], slots: Cube, used: int
) -> tuple[int, int]:
    """Write the slots of a piece's voxels into a cube, behind its halo, and list their runs.

    Parameters
    ----------
    labels : uint32 or uint64, shape (z, y, x)
    cube : shape at least (z + 1, y + 1, x + 1)
    runs : shape (at least as many as there are voxels, 5)
        For each run of voxels of one object along x its slot, z, y, start and stop in the piece.
    keys, slots : see `find_slot`
    used : how many slots are given

    Returns
    -------
    used : how many are given now; -1 if the table is too small, so a larger one is to be tried
    count : of runs
    """
    depth, height, width = labels.shape
    count = 0
    for z in range(depth):
        for y in range(height):
            if used + width > len(keys) // 2:
                return -1, 0
            # a row of one label is most often background
            mixed = _is_mixed(labels, z, y)
            last, slot = labels[z, y, 0] ^ labels[z, y, 0], 0
            for x in range(width if mixed else 1):
                label = labels[z, y, x]
                if label != last:
                    if slot:
                        runs[count, STOP] = x
                        count += 1
                    last, slot = label, 0
                    if label != 0:
                        slot = find_slot(np.uint64(label), keys, slots, used)
                        used = max(used, slot)
                        runs[count, SLOT] = slot
                        runs[count, Z], runs[count, Y], runs[count, START] = z, y, x
                cube[z + 1, y + 1, x + 1] = slot
            if not mixed:
                cube[z + 1, y + 1, 1 : width + 1] = slot
            if slot:
                runs[count, STOP] = width
                count += 1
    return used, count


@compiled
def _is_mixed(labels: NDArray[Any], z: int, y: int) -> bool:
    """Tell whether a row holds more than one label, many voxels at a time."""
    first = labels[z, y, 0]
    differs = first ^ first
    for x in range(labels.shape[2]):
        differs |= labels[z, y, x] ^ first
    return bool(differs != 0)


@compiled
def sum_moments(
    runs: Runs, count: int, origin: tuple[int, int, int], sums: Sums, areas: Sums
) -> None:
    """Sum over the objects of one piece.

    Parameters
    ----------
    runs, count : see `number_voxels`
    origin : (z, y, x) of the piece in the volume
    sums : shape (slots, 16)
        Voxels, sums of coordinates, starts, stops and products of two coordinates.
    areas : shape (z,)
        Voxels of objects in each slice of the piece.
    """
    for k in range(count):
        z, y, start = runs[k, Z], runs[k, Y], runs[k, START]
        n = runs[k, STOP] - start
        areas[z] += n
        first = z + origin[0], y + origin[1], start + origin[2]
        _add_run(sums[runs[k, SLOT] - 1], first, n)


@compiled
def _add_run(row: Sums, first: tuple[int, int, int], n: int) -> None:
    z, y, x = first
    # the sums of x, x + 1, ... and of their squares over a run are whole numbers
    along = x * n + n * (n - 1) // 2
    row[VOXELS] += n
    row[SUMS] += z * n
    row[SUMS + 1] += y * n
    row[SUMS + 2] += along
    row[STARTS] = min(row[STARTS], z)
    row[STARTS + 1] = min(row[STARTS + 1], y)
    row[STARTS + 2] = min(row[STARTS + 2], x)
    row[STOPS] = max(row[STOPS], z + 1)
    row[STOPS + 1] = max(row[STOPS + 1], y + 1)
    row[STOPS + 2] = max(row[STOPS + 2], x + n)
    row[PRODUCTS] += z * z * n
    row[PRODUCTS + 1] += y * y * n
    row[PRODUCTS + 2] += x * x * n + x * n * (n - 1) + n * (n - 1) * (2 * n - 1) // 6
    row[PRODUCTS + 3] += z * y * n
    row[PRODUCTS + 4] += z * along
    row[PRODUCTS + 5] += y * along


@compiled
def sum_values(runs: Runs, count: int, values: NDArray[Any], sums: Sums) -> None:
    """Sum over the intensities in each object of one piece.

    Parameters
    ----------
    runs, count : see `number_voxels`
    values : uint8, uint16, int16 or int32, shape (z, y, x)
        What stands at the piece's voxels.
    sums : shape (slots, 4)
        Totals, sums of squares, lowest and highest.
    """
    for k in range(count):
        line = values[runs[k, Z], runs[k, Y], runs[k, START] : runs[k, STOP]]
        total, squares = np.int64(0), np.int64(0)
        low = high = line[0]
        for x in range(len(line)):
            value = np.int64(line[x])
            total += value
            squares += value * value
            low, high = min(low, line[x]), max(high, line[x])
        row = sums[runs[k, SLOT] - 1]
        row[TOTAL] += total
        row[SQUARES] += squares
        row[LOWEST] = min(row[LOWEST], np.int64(low))
        row[HIGHEST] = max(row[HIGHEST], np.int64(high))


@compiled
def sum_cells(
    cube: Cube, shape: tuple[int, int, int], counts: Sums, sums: Sums, found: Cube
) -> None:
    """Count the cells of 2 x 2 x 2 voxels of one piece, each for every object that it holds.

    Parameters
    ----------
    cube : see `number_voxels`
    shape : of the part of the cube whose cells are counted
    counts : shape (256, columns)
        What a cell adds, by its configuration: bit 4 z + 2 y + x for each voxel of the object.
    sums : shape (slots, columns)
    found : shape (at least 8 times the cells of a layer, 2)
        Workspace: rows of ``sums`` and ``counts`` that belong together.
    """
    for z in range(shape[0] - 1):
        # in loops of their own, which is faster by far
        for k in range(_configure(cube, z, shape, found)):
            row, code = found[k, 0], found[k, 1]
            for j in range(counts.shape[1]):
                sums[row, j] += counts[code, j]


@compiled
def _configure(cube: Cube, z: int, shape: tuple[int, int, int], found: Cube) -> int:
    """Note the configurations of the cells of a layer that lie at surfaces; return how many."""
    width = shape[2] - 1
    uneven, places = np.empty(width, np.int32), np.empty(width, np.int32)
    n = 0
    for y in range(shape[1] - 1):
        a, b, c, d = cube[z, y], cube[z, y + 1], cube[z + 1, y], cube[z + 1, y + 1]
        whole = np.int32(0)
        for x in range(width):
            p = a[x]
            differs = (p ^ a[x + 1]) | (p ^ b[x]) | (p ^ b[x + 1]) | (p ^ c[x])
            differs |= (p ^ c[x + 1]) | (p ^ d[x]) | (p ^ d[x + 1])
            uneven[x] = differs
            whole |= differs
        if whole == 0:
            continue
        count = 0
        for x in range(width):
            # without a branch, which nobody could predict
            places[count] = x
            count += uneven[x] != 0
        for k in range(count):
            x = places[k]
            cell = a[x], a[x + 1], b[x], b[x + 1], c[x], c[x + 1], d[x], d[x + 1]
            top = _highest(cell)
            code = _code(cell, top)
            found[n, 0], found[n, 1] = top - 1, code
            n += 1
            left = 255 & ~(code | _code(cell, np.int32(0)))
            if left:
                n = _configure_others(cell, left, found, n)
    return n


@compiled
def _configure_others(cell: Cell, left: int, found: Cube, n: int) -> int:
    """Note what a cell is to other objects than the first; return how many are noted."""
    while left:
        top = np.int32(0)
        for k in range(8):
            if left >> k & 1:
                top = max(top, cell[k])
        code = _code(cell, top)
        found[n, 0], found[n, 1] = top - 1, code
        n += 1
        left &= ~code
    return n


@compiled
def _highest(cell: Cell) -> np.int32:
    """Find the highest slot among a cell's voxels."""
    a, b, c, d, e, f, g, h = cell
    low, high = max(max(a, b), max(c, d)), max(max(e, f), max(g, h))  # noqa: PLW3301 - fast
    return max(low, high)


@compiled
def _code(cell: Cell, slot: np.int32) -> int:
    """Find which voxels of a cell belong to an object."""
    a, b, c, d, e, f, g, h = cell
    code = (a == slot) * 1 | (b == slot) * 2 | (c == slot) * 4 | (d == slot) * 8
    code |= (e == slot) * 16 | (f == slot) * 32 | (g == slot) * 64 | (h == slot) * 128
    return int(code)


@compiled
def enlarge(
    old_keys: NDArray[np.uint64], old_slots: Cube, keys: NDArray[np.uint64], slots: Cube
) -> None:
    """Move labels with their slots into a larger table, which is empty."""
    for place in range(len(old_keys)):
        if old_slots[place]:
            find_slot(old_keys[place], keys, slots, old_slots[place] - 1)
