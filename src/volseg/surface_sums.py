"""Pairs of voxels across the surfaces of one piece's objects, and Euler numbers, compiled.

Each object of a piece is drawn from its runs, a bit for each voxel, so that one instruction looks
at 64 pairs of voxels. See `volseg.surface` for what is counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from volseg.compilation import compiled
from volseg.types import Zyx
from volseg.voxel_sums import (
    NEXT,
    SLOT,
    START,
    STOP,
    WORD,
    Runs,
    Slots,
    Sums,
    Y,
    Z,
    count_bits,
    find_spans,
)

Bits = NDArray[np.uint64]
FULL, ONE, LAST = np.uint64(2**64 - 1), np.uint64(1), np.uint64(WORD - 1)
COUNTS = 14
"""Pairs in 13 directions, and the Euler number."""


class Faces(NamedTuple):
    """The slots of what lies just before the piece that comes next, each piece by itself.

    Attributes
    ----------
    planes : int32, shape (pieces along y, pieces along x, y * x)
        The last plane before each piece of a layer.
    rows : int32, shape (pieces along x, (z + 1) * x)
        The last row before each piece of a row, from the plane before it on.
    column : int32, shape ((z + 1) * (y + 1),)
        The last voxels of the rows before the piece, from the plane and the row before it on.
    """

    planes: Slots
    rows: Slots
    column: Slots


class Drawing(NamedTuple):
    """Space to draw one object of a piece, with a halo of one plane and one row on both sides.

    Attributes
    ----------
    drawn : uint64, shape (z + 2, words, y + 2)
        Bit x of a row is the voxel at x - 1; words have room for x + 2 bits.
    heads : int32, shape (slots + 1,)
        The first run of each slot, counted from 1; 0 between calls.
    met : int32, shape (slots + 1,)
        The slots that occur.
    """

    drawn: Bits
    heads: Slots
    met: Slots


class Place(NamedTuple):
    """Where a piece is.

    Attributes
    ----------
    shape : of the piece
    ends : up to where its pairs are counted: its shape, and one further at the volume's end; 0 to
        count none
    at : (y, x) of the piece among the block's pieces
    """

    shape: Zyx
    ends: Zyx
    at: tuple[int, int]


@compiled
def sum_surfaces(
    runs: Runs, count: int, place: Place, faces: Faces, space: Drawing, sums: Sums
) -> bool:
    """Count the pairs of one piece, each for every object that it leaves; then keep its faces.

    A pair belongs to the piece that holds the highest z, y and x of its voxels.

    Parameters
    ----------
    runs, count : see `volseg.voxel_sums.list_runs`
        With room for the halo's, which are listed behind them.
    place : of the piece
    faces : what lies before it
    space : workspace
    sums : shape (slots, 14)

    Returns
    -------
    bool
        Whether the faces it leaves may hold anything.
    """
    (d, h, w), (j, i) = place.shape, place.at
    if j == 0:
        faces.rows[i] = 0
    if i == 0:
        faces.column[:] = 0
    # those of this piece alone, in two axes each
    near = Faces(
        faces.planes[j, i, : h * w].reshape(h, w),
        faces.rows[i, : (d + 1) * w].reshape(d + 1, w),
        faces.column[: (d + 1) * (h + 1)].reshape(d + 1, h + 1),
    )
    total = _list_faces(runs, count, near)
    if total == 0:
        return False
    for k in range(_link(runs, total, space) if place.ends[0] else 0):
        slot = space.met[k]
        low, high = _draw(runs, slot, space)
        _count(space, low, high, place.ends, sums[slot - 1])
        space.heads[slot] = 0
    _keep_faces(runs, count, near)
    return True


@compiled
def _list_faces(runs: Runs, count: int, near: Faces) -> int:
    """List the runs of a piece's halo behind its own; return how many there are then."""
    width, height = near.planes.shape[1], near.column.shape[1]
    spans = np.empty((near.planes.size + near.rows.size + near.column.size, 2), np.int32)
    flat = near.planes.reshape(near.planes.size)
    for k in range(find_spans(flat, width, spans)):
        y, x = divmod(spans[k, 0], width)
        count = _add_run((flat[spans[k, 0]], -1, y, x, x + spans[k, 1] - spans[k, 0]), runs, count)
    flat = near.rows.reshape(near.rows.size)
    for k in range(find_spans(flat, width, spans)):
        z, x = divmod(spans[k, 0], width)
        count = _add_run(
            (flat[spans[k, 0]], z - 1, -1, x, x + spans[k, 1] - spans[k, 0]), runs, count
        )
    # voxel by voxel, as if in rows of one
    flat = near.column.reshape(near.column.size)
    for k in range(find_spans(flat, 1, spans)):
        z, y = divmod(spans[k, 0], height)
        count = _add_run((flat[spans[k, 0]], z - 1, y - 1, -1, 0), runs, count)
    return count


@compiled
def _add_run(run: tuple[int, int, int, int, int], runs: Runs, count: int) -> int:
    runs[count, SLOT], runs[count, Z], runs[count, Y], runs[count, START], runs[count, STOP] = run
    return count + 1


@compiled
def _link(runs: Runs, count: int, space: Drawing) -> int:
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
def _draw(runs: Runs, slot: int, space: Drawing) -> tuple[Zyx, Zyx]:
    """Draw an object; return the first (z, y, word) at which it may have pairs, and that after."""
    depth, words, height = space.drawn.shape
    low, high = (depth, height, words), (-1, -1, 0)
    k = space.heads[slot]
    while k:
        z, y = int(runs[k - 1, Z]), int(runs[k - 1, Y])
        first, last = (int(runs[k - 1, START]) + 1) // WORD, int(runs[k - 1, STOP]) // WORD
        low = min(low[0], z), min(low[1], y), min(low[2], first)
        high = max(high[0], z), max(high[1], y), max(high[2], last)
        k = runs[k - 1, NEXT]
    # a pair's other voxel may stand in the word before
    low = max(low[0], 0), max(low[1], 0), max(low[2] - 1, 0)
    # planes and rows are counted from the halo on
    for z in range(low[0], high[0] + 3):
        space.drawn[z, low[2] : high[2] + 2, low[1] : high[1] + 3] = 0
    k = space.heads[slot]
    while k:
        z, y = runs[k - 1, Z] + 1, runs[k - 1, Y] + 1
        first, last = runs[k - 1, START] + 1, runs[k - 1, STOP]
        for word in range(first // WORD, last // WORD + 1):
            low_bit, high_bit = max(first - WORD * word, 0), min(last - WORD * word, WORD - 1)
            bits = FULL >> np.uint64(WORD - 1 - high_bit + low_bit) << np.uint64(low_bit)
            space.drawn[z, word, y] |= bits
        k = runs[k - 1, NEXT]
    return low, (high[0] + 2, high[1] + 2, high[2] + 1)


@compiled
def _count(space: Drawing, low: Zyx, high: Zyx, ends: Zyx, sums: Sums) -> None:
    """Add the pairs of the object that is drawn to its row of sums."""
    drawn = space.drawn
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
def _keep_faces(runs: Runs, count: int, near: Faces) -> None:
    """Keep what the next pieces need as their halo."""
    plane, rows, column = near
    height, width = plane.shape
    # what was before this piece is before the next ones too: their edges
    column[0, 0] = rows[0, width - 1]
    column[1:, 0] = rows[1:, width - 1]
    column[0, 1:] = plane[:, width - 1]
    column[1:, 1:] = 0
    rows[0] = plane[height - 1]
    rows[1:] = 0
    plane[:] = 0
    for k in range(count):
        slot, z, y = runs[k, SLOT], runs[k, Z], runs[k, Y]
        start, stop = runs[k, START], runs[k, STOP]
        if z == len(rows) - 2:
            plane[y, start:stop] = slot
        if y == height - 1:
            rows[z + 1, start:stop] = slot
        if stop == width:
            column[z + 1, y + 1] = slot
