"""Loops over the voxels of one brick, compiled: list its runs, and sum over them.

A brick is a few thousand voxels, small enough for the processor's cache. Objects are known by
slots: slot s is the object whose sums are row s - 1, and 0 is background. Everything is counted in
integers that may wrap around, see `volseg.measures.sums.Moments`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Zyx
from volseg.voxels.compilation import compiled

Slots = NDArray[np.int32]
RunTable = NDArray[np.int32]
Sums = NDArray[np.int64]

WORD = 64
GATHER = np.uint64(0x0102040810204080)
"""Times eight bytes of 0 or 1: the eight bits, in the highest byte."""
SLOT, Z, Y, START, STOP, NEXT, RUN = 0, 1, 2, 3, 4, 5, 6
"""The columns of runs, and how many there are."""
VOXELS, SUMS, STARTS, STOPS, PRODUCTS, MOMENTS = 0, 1, 4, 7, 10, 16
"""First columns of the moments, and their number."""
TOTAL, SQUARES, LOWEST, HIGHEST, VALUES = 0, 1, 2, 3, 4
"""The columns of values, and how many there are."""
SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio: its multiples lie far apart (Knuth, volume 3, 6.4)."""


@compiled
def find_slot(label: np.uint64, keys: NDArray[np.uint64], slots: Slots, used: int) -> int:
    """Find the slot of a label, or give it the next one.

    Parameters
    ----------
    label : not 0
    keys, slots : shape (a power of two,); a hash table; slot 0 is a free place.
    used : how many slots are given

    Returns
    -------
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
def list_runs(
    runs: RunTable,
    table: tuple[NDArray[np.uint64], Slots, NDArray[np.int64]],
    space: tuple[NDArray[np.uint8], NDArray[np.uint64]],
    planes: NDArray[Any],
    width: int,
) -> int:
    """List the runs of a brick: stretches of voxels of one object along x.

    Parameters
    ----------
    runs : shape (at least as many as there are voxels, 6)
        For each its slot, z, y, start and stop in the brick; the last column stays as it is.
    table : keys and slots, see `find_slot`, and how many slots are given, shape (1,)
    space : shapes (at least as many as a plane has voxels, in whole words,) and (words,)
    planes : uint32 or uint64, shape (z, y * width); labels.

    Returns
    -------
    how many runs there are; -1 if the table is too small, so a larger one is to be tried.
    """
    (keys, slots, used), (changes, words) = table, space
    depth, size = planes.shape
    count, known, slot, given = 0, np.uint64(0), 0, used[0]
    # zeros behind the last row, up to whole words
    whole = (size + WORD - 1) // WORD
    changes[size : whole * WORD] = 0
    for z in range(depth):
        flat = planes[z]
        if not _find_changes(flat, width, changes[: whole * WORD], words):
            continue
        start = y = row = 0
        for k in range(whole):
            word = words[k]
            while word:
                lowest = word & (~word + np.uint64(1))
                word ^= lowest
                stop = WORD * k + int(count_bits(lowest - np.uint64(1))) + 1
                label = np.uint64(flat[start])
                if label:
                    if label != known:
                        if given == len(keys) // 2:
                            used[0] = given
                            return -1
                        known, slot = label, find_slot(label, keys, slots, given)
                        given = max(given, slot)
                    while start >= row + width:
                        y, row = y + 1, row + width
                    runs[count, SLOT], runs[count, Z], runs[count, Y] = slot, z, y
                    runs[count, START], runs[count, STOP] = start - row, stop - row
                    count += 1
                start = stop
    used[0] = given
    return count


@compiled
def _find_changes(
    flat: NDArray[Any], width: int, changes: NDArray[np.uint8], words: NDArray[np.uint64]
) -> bool:
    """Find where stretches of one value end, within rows; return whether any value is not 0.

    Parameters
    ----------
    flat : integer, shape (rows * width,)
    changes : shape (at least as many, rounded up to whole words,); workspace.
    words : shape (a 64th of that,)
        Bit k of them all: whether the voxel k is the last of a stretch that another one follows, or
        is not 0 and the last of its row.
    """
    size, filled = len(flat), flat[0]
    for k in range(size):
        filled |= flat[k]
    if not filled:
        return False
    # separate loops, which the compiler vectorises: as bytes, then as bits
    for k in range(size - 1):
        changes[k] = flat[k] != flat[k + 1]
    changes[size - 1] = 0
    for k in range(width - 1, size, width):
        changes[k] |= flat[k] != 0
    eights, packed = changes.view(np.uint64), words.view(np.uint8)
    for k in range(len(eights)):
        packed[k] = eights[k] * GATHER >> np.uint64(56)
    return True


@compiled
def count_bits(word: np.uint64) -> np.int64:
    """Count the bits of a word; compilers know this as one instruction."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@compiled
def sum_voxels(
    runs: RunTable,
    sums: tuple[Sums, Sums, Sums],
    count: int,
    origin: Zyx,
    areas: Sums,
    values: tuple[NDArray[Any], NDArray[Any]],
) -> None:
    """Sum over the voxels of the objects of one brick.

    Parameters
    ----------
    runs, count : see `list_runs`
    sums : shapes (slots, 16), (slots, 4) and (slots, 4)
        Voxels, sums of coordinates, starts, stops and products of two coordinates; of both values,
        totals, sums of squares, lowest and highest.
    origin : (z, y, x) of the brick in the volume
    areas : shape (z,); voxels of objects in each slice of the brick.
    values : uint8, uint16, int16 or int32, each of shape (z, y, x), or empty
        What stands at the brick's voxels.
    """
    moments, one_sums, other_sums = sums
    one, other = values
    for k in range(count):
        z, y, start = runs[k, Z], runs[k, Y], runs[k, START]
        n = runs[k, STOP] - start
        areas[z] += n
        first = z + origin[0], y + origin[1], start + origin[2]
        _add_run(moments[runs[k, SLOT] - 1], first, n)
    if one.size:
        _sum_values(runs, count, one, one_sums)
    if other.size:
        _sum_values(runs, count, other, other_sums)


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
def _sum_values(runs: RunTable, count: int, values: NDArray[Any], sums: Sums) -> None:
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
def enlarge(
    old_keys: NDArray[np.uint64], old_slots: Slots, keys: NDArray[np.uint64], slots: Slots
) -> None:
    """Move labels with their slots into a larger table, which is empty."""
    for place in range(len(old_keys)):
        if old_slots[place]:
            find_slot(old_keys[place], keys, slots, old_slots[place] - 1)
