"""Pairs of voxels across the surfaces of one brick's objects, and Euler numbers, compiled.

Each object of a brick is drawn from its runs, a bit for each voxel, so that one instruction looks
at 64 pairs of voxels. See `volseg.measures.surface` for what is counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from volseg.measures.voxel_loops import (
    NEXT,
    SLOT,
    START,
    STOP,
    WORD,
    RunTable,
    Slots,
    Sums,
    Y,
    Z,
    count_bits,
)
from volseg.types import Zyx
from volseg.voxels.compilation import compiled

Bits = NDArray[np.uint64]
FULL, ONE, LAST = np.uint64(2**64 - 1), np.uint64(1), np.uint64(WORD - 1)
WORD_BITS = 6
"""A word holds two to this power bits."""
LARGEST = 2**31
COUNTS = 14
"""Pairs in 13 directions, and the Euler number."""


class Faces(NamedTuple):
    """Runs just before the next brick, in its coordinates.

    Attributes
    ----------
    planes : int32, shape (bricks along y, bricks along x, y * x, 5)
        Of the last plane before each brick of a layer.
    rows : int32, shape (bricks along x, (z + 1) * x, 5)
        Of the last rows before each brick of a row, from the plane before it on.
    column : int32, shape ((z + 1) * (y + 1), 5)
        Of the last voxels of the rows before the brick, from the plane and the row before it on.
    counts : int32, shape (bricks along y + 1, bricks along x + 1)
        How many runs there are of each plane; last, of the rows, and in the corner of the column.
    """

    planes: RunTable
    rows: RunTable
    column: RunTable
    counts: Slots


class Drawing(NamedTuple):
    """Space to draw one object of a brick, with a halo of one plane and one row on both sides.

    Attributes
    ----------
    drawn : uint64, shape (z + 2, words, y + 2)
        Bit x of a row is the voxel at x - 1; words have room for x + 2 bits. 0 between calls.
    heads : int32, shape (slots + 1,); the first run of each slot, counted from 1; 0 between calls.
    met : int32, shape (slots + 1,); the slots that occur.
    """

    drawn: Bits
    heads: Slots
    met: Slots


class Place(NamedTuple):
    """Position of a brick.

    Attributes
    ----------
    ends : up to where its pairs are counted: its shape, and one further at the volume's end; 0 to
        count none
    at : (y, x) of the brick among the block's bricks
    """

    shape: Zyx
    ends: Zyx
    at: tuple[int, int]


@compiled
def sum_surfaces(
    runs: RunTable, faces: Faces, space: Drawing, sums: Sums, count: int, place: Place
) -> None:
    """Count the pairs of one brick, each for every object that it leaves; then keep its faces.

    A pair belongs to the brick that holds the highest z, y and x of its voxels.

    Parameters
    ----------
    runs, count : see `volseg.measures.voxel_loops.list_runs`
        With room for the halo's, which are listed behind them.
    sums : shape (slots, 14)
    place : of the brick
    """
    total = _add_halo(runs, count, faces, place.at)
    for k in range(_link(runs, total, space) if place.ends[0] else 0):
        slot = space.met[k]
        low, high = _draw(runs, slot, space)
        _count(space, low, high, place.ends, sums[slot - 1])
        for z in range(low[0], high[0]):
            space.drawn[z, low[2] : high[2], low[1] : high[1]] = 0
        space.heads[slot] = 0
    _keep_faces(runs, total, place, faces)


@compiled
def _add_halo(runs: RunTable, count: int, faces: Faces, at: tuple[int, int]) -> int:
    """List the runs of a brick's halo behind its own; return how many there are then."""
    j, i = at
    if j == 0:
        faces.counts[-1, i] = 0
    if i == 0:
        faces.counts[-1, -1] = 0
    count = _copy(faces.planes[j, i], faces.counts[j, i], runs, count)
    count = _copy(faces.rows[i], faces.counts[-1, i], runs, count)
    return _copy(faces.column, faces.counts[-1, -1], runs, count)


@compiled
def _copy(face: RunTable, found: int, runs: RunTable, count: int) -> int:
    for k in range(found):
        for column in range(NEXT):
            runs[count + k, column] = face[k, column]
    return count + found


@compiled
def _link(runs: RunTable, count: int, space: Drawing) -> int:
    """Chain the runs of each object; return how many objects there are."""
    objects = 0
    for k in range(count):
        slot = runs[k, SLOT]
        if not space.heads[slot]:
            space.met[objects] = slot
            objects += 1
        runs[k, NEXT] = space.heads[slot]
        space.heads[slot] = k + 1
    return objects


@compiled
def _draw(runs: RunTable, slot: int, space: Drawing) -> tuple[Zyx, Zyx]:
    """Draw an object; return the first (z, y, word) that it is in, and that after the last."""
    low, high = (LARGEST, LARGEST, LARGEST), (-1, -1, -1)
    k = space.heads[slot]
    while k:
        run = runs[k - 1]
        # planes, rows and bits are counted from the halo on
        z, y, first, last = run[Z] + 1, run[Y] + 1, run[START] + 1, run[STOP]
        word, last_word = first >> WORD_BITS, last >> WORD_BITS
        low = min(low[0], z), min(low[1], y), min(low[2], word)
        high = max(high[0], z), max(high[1], y), max(high[2], last_word)
        bits = FULL << np.uint64(first & (WORD - 1))
        while word < last_word:
            space.drawn[z, word, y] |= bits
            bits = FULL
            word += 1
        space.drawn[z, word, y] |= bits & (FULL >> np.uint64(WORD - 1 - (last & (WORD - 1))))
        k = run[NEXT]
    return low, (high[0] + 1, high[1] + 1, high[2] + 1)


@compiled
def _count(space: Drawing, low: Zyx, high: Zyx, ends: Zyx, sums: Sums) -> None:
    """Add the pairs of the object that is drawn to its row of sums."""
    drawn = space.drawn
    # pairs reach from the voxel before to the voxel itself
    low = max(low[0] - 1, 0), max(low[1] - 1, 0), max(low[2] - 1, 0)
    for z in range(low[0], min(high[0], ends[0])):
        for word in range(low[2], min(high[2], (ends[2] + WORD - 1) // WORD)):
            n0 = n1 = n2 = n3 = n4 = n5 = n6 = n7 = n8 = n9 = n10 = n11 = n12 = euler = np.int64(0)
            # bits at which there are pairs: each has the voxel there, and that before
            mask = FULL >> np.uint64(max(WORD * (word + 1) - ends[2], 0))
            far, near = drawn[z, word], drawn[z + 1, word]
            far_next, near_next = drawn[z, word + 1], drawn[z + 1, word + 1]
            for y in range(low[1], min(high[1], ends[1])):
                # b, d: this row in the plane before and in this one; a, c: the row before it
                p, q, r, s = far[y] & mask, far[y + 1] & mask, near[y] & mask, near[y + 1] & mask
                a, b = _here(far[y], far_next[y]), _here(far[y + 1], far_next[y + 1])
                c, d = _here(near[y], near_next[y]), _here(near[y + 1], near_next[y + 1])
                n0 += count_bits(s ^ d)
                n1 += count_bits(c ^ s)
                n2 += count_bits(c ^ d)
                n3 += count_bits(r ^ d)
                n4 += count_bits(b ^ r)
                n5 += count_bits(b ^ c)
                n6 += count_bits(q ^ c)
                n7 += count_bits(b ^ s)
                n8 += count_bits(b ^ d)
                n9 += count_bits(q ^ d)
                n10 += count_bits(a ^ s)
                n11 += count_bits(a ^ d)
                n12 += count_bits(p ^ d)
                # corners, less edges, plus faces, less bodies of the voxels' union
                x_edge, y_edge, z_edge = a | b | c | d, b | d | q | s, c | d | r | s
                euler += count_bits(x_edge | p | q | r | s)
                euler -= count_bits(x_edge) + count_bits(y_edge) + count_bits(z_edge)
                euler += count_bits(d | s) + count_bits(c | d) + count_bits(b | d)
                euler -= count_bits(d)
            found = (n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11, n12, euler)
            for k in range(COUNTS):
                sums[k] += found[k]


@compiled
def _here(word: np.uint64, following: np.uint64) -> np.uint64:
    """Move bits from the voxel before to the voxel itself."""
    return np.uint64(word >> ONE | following << LAST)


@compiled
def _keep_faces(runs: RunTable, count: int, place: Place, faces: Faces) -> None:
    """Keep the runs that the next bricks need as their halo."""
    (d, h, w), (j, i) = place.shape, place.at
    plane, row, column = faces.planes[j, i], faces.rows[i], faces.column
    in_plane = in_row = in_column = 0
    for k in range(count):
        run = runs[k]
        slot, z, y, start, stop = run[SLOT], run[Z], run[Y], run[START], run[STOP]
        if z == d - 1 and y >= 0 and start >= 0:
            in_plane = _add_run((slot, -1, y, start, stop), plane, in_plane)
        if y == h - 1 and start >= 0:
            in_row = _add_run((slot, z, -1, start, stop), row, in_row)
        if stop == w:
            in_column = _add_run((slot, z, y, -1, 0), column, in_column)
    faces.counts[j, i], faces.counts[-1, i], faces.counts[-1, -1] = in_plane, in_row, in_column


@compiled
def _add_run(run: tuple[int, int, int, int, int], runs: RunTable, count: int) -> int:
    runs[count, SLOT], runs[count, Z], runs[count, Y], runs[count, START], runs[count, STOP] = run
    return count + 1
