"""Loops over the voxels of one piece, compiled: number its objects, and sum over them.

A piece is a few thousand voxels, small enough for the processor's cache. It is held as a cube of
slots with a halo of one voxel on all sides: 0 is background, and slot s the object whose sums are
row s - 1. Everything is counted in integers that may wrap around, see `volseg.moments.Moments`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.compilation import compiled

Cube = NDArray[np.int32]
Sums = NDArray[np.int64]

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
    labels: NDArray[Any], cube: Cube, keys: NDArray[np.uint64], slots: Cube, used: int
) -> int:
    """Write the slots of a piece's voxels into a cube, behind its halo.

    Parameters
    ----------
    labels : uint32 or uint64, shape (z, y, x)
    cube : shape at least (z + 1, y + 1, x + 1)
    keys, slots : see `find_slot`
    used : how many slots are given

    Returns
    -------
    int
        How many are given now; -1 if the table is too small, so that a larger one is to be tried.
    """
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            if used + width > len(keys) // 2:
                return -1
            first = labels[z, y, 0]
            differs = first ^ first
            for x in range(width):
                differs |= labels[z, y, x] ^ first
            last, slot = first ^ first, 0
            # a row of one label is most often background
            for x in range(width if differs else 1):
                label = labels[z, y, x]
                if label != last:
                    last, slot = label, 0
                    if label != 0:
                        slot = find_slot(np.uint64(label), keys, slots, used)
                        used = max(used, slot)
                cube[z + 1, y + 1, x + 1] = slot
            if not differs:
                cube[z + 1, y + 1, 1 : width + 1] = slot
    return used


@compiled
def _is_empty(cube: Cube, z: int, y: int, width: int) -> bool:
    """Tell whether a row is background, many voxels at a time."""
    any_slot = np.int32(0)
    for x in range(width):
        any_slot |= cube[z, y, x + 1]
    return bool(any_slot == 0)


@compiled
def sum_moments(
    cube: Cube, shape: tuple[int, int, int], origin: tuple[int, int, int], sums: Sums, areas: Sums
) -> None:
    """Sum over the objects of one piece.

    Parameters
    ----------
    cube : see `number_voxels`
    shape : of the piece, without its halo
    origin : (z, y, x) of the piece in the volume
    sums : shape (slots, 16)
        Voxels, sums of coordinates, starts, stops and products of two coordinates.
    areas : shape (z,)
        Voxels of objects in each slice of the piece.
    """
    for k in range(shape[0]):
        z = k + origin[0]
        for j in range(shape[1]):
            y = j + origin[1]
            start, slot = 0, 0
            if _is_empty(cube, k + 1, j + 1, shape[2]):
                continue
            for i in range(shape[2] + 1):
                here = 0
                if i < shape[2]:
                    here = cube[k + 1, j + 1, i + 1]
                if here == slot:
                    continue
                if slot:
                    n = i - start
                    areas[k] += n
                    _add_run(sums[slot - 1], (z, y, start + origin[2]), n)
                start, slot = i, here


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
def sum_values(cube: Cube, values: NDArray[Any], sums: Sums) -> None:
    """Sum over the intensities in each object of one piece.

    Parameters
    ----------
    cube : see `number_voxels`
    values : uint8, uint16 or int16, shape (z, y, x)
        What stands at the piece's voxels.
    sums : shape (slots, 4)
        Totals, sums of squares, lowest and highest.
    """
    depth, height, width = values.shape
    for z in range(depth):
        for y in range(height):
            x = width if _is_empty(cube, z + 1, y + 1, width) else 0
            while x < width:
                slot = cube[z + 1, y + 1, x + 1]
                if slot == 0:
                    x += 1
                    continue
                total, squares = np.int64(0), np.int64(0)
                low = high = np.int64(values[z, y, x])
                while x < width and cube[z + 1, y + 1, x + 1] == slot:
                    value = np.int64(values[z, y, x])
                    total += value
                    squares += value * value
                    low, high = min(low, value), max(high, value)
                    x += 1
                row = sums[slot - 1]
                row[TOTAL] += total
                row[SQUARES] += squares
                row[LOWEST] = min(row[LOWEST], low)
                row[HIGHEST] = max(row[HIGHEST], high)


@compiled
def sum_cells(cube: Cube, shape: tuple[int, int, int], counts: Sums, sums: Sums) -> None:
    """Count the cells of 2 x 2 x 2 voxels of one piece, each for every object that it holds.

    Parameters
    ----------
    cube : see `number_voxels`
    shape : of the part of the cube whose cells are counted
    counts : shape (256, columns)
        What a cell adds, by its configuration: bit 4 z + 2 y + x for each voxel of the object.
    sums : shape (slots, columns)
    """
    depth, height, width = shape
    uneven = np.empty(width, np.int32)
    cell = np.empty(8, np.int32)
    for z in range(depth - 1):
        for y in range(height - 1):
            whole = np.int32(0)
            for x in range(width - 1):
                a = cube[z, y, x]
                differs = (a ^ cube[z, y, x + 1]) | (a ^ cube[z, y + 1, x])
                differs |= (a ^ cube[z, y + 1, x + 1]) | (a ^ cube[z + 1, y, x])
                differs |= (a ^ cube[z + 1, y, x + 1]) | (a ^ cube[z + 1, y + 1, x])
                differs |= a ^ cube[z + 1, y + 1, x + 1]
                uneven[x] = differs
                whole |= differs
            if whole == 0:
                continue
            for x in range(width - 1):
                if uneven[x]:
                    for k in range(8):
                        cell[k] = cube[z + (k >> 2), y + (k >> 1 & 1), x + (k & 1)]
                    _add_cell(cell, counts, sums)


@compiled
def _add_cell(cell: Cube, counts: Sums, sums: Sums) -> None:
    seen = 0
    for k in range(8):
        if cell[k] == 0 or seen >> k & 1:
            continue
        code = 0
        for j in range(8):
            code |= int(cell[j] == cell[k]) << j
        seen |= code
        for c in range(counts.shape[1]):
            sums[cell[k] - 1, c] += counts[code, c]


@compiled
def enlarge(
    old_keys: NDArray[np.uint64], old_slots: Cube, keys: NDArray[np.uint64], slots: Cube
) -> None:
    """Move labels with their slots into a larger table, which is empty."""
    for place in range(len(old_keys)):
        if old_slots[place]:
            find_slot(old_keys[place], keys, slots, old_slots[place] - 1)
