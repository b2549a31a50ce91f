"""Surface area and Euler number from the cells of 2 x 2 x 2 voxels. Pure functions over arrays.

A cell stands at every corner that voxels share, those of the volume's border included, and beyond
the border there is background: an object that is cut by it is closed there. Cells belong to
exactly one block and are counted in integers, so sums over blocks equal sums over the whole.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.merging import merge
from volseg.types import VoxelSize

CORNERS = tuple(itertools.product((0, 1), repeat=3))
"""The voxels of a cell, (z, y, x); their order is that of the bits of a configuration."""

DIRECTIONS = tuple(d for d in itertools.product((-1, 0, 1), repeat=3) if d > (0, 0, 0))
"""The 13 directions, (z, y, x) in voxels, that join voxels of one cell."""

Closed = tuple[tuple[bool, bool], tuple[bool, bool], tuple[bool, bool]]
"""For each axis, whether background is to be added before and behind."""

CODES = 256
"""Configurations of a cell's eight voxels."""

TALLY_CELLS = 1 << 16
"""Cells that are kept before they are counted."""


@dataclass(frozen=True)
class Crossings:
    """Additive counts over the cells of a block, a part, or a whole volume.

    Attributes
    ----------
    labels : the objects' labels, ascending, each once
    crossings : int64, shape (objects, 13)
        Pairs of a voxel inside and one outside, by direction, as often as cells hold them.
    euler8 : int64, shape (objects,)
        Eight times the Euler number.
    """

    labels: NDArray[np.unsignedinteger[Any]]
    crossings: NDArray[np.int64]
    euler8: NDArray[np.int64]


def count_crossings(
    labels: NDArray[Any], closed: Closed, previous: NDArray[Any] | None = None
) -> Crossings:
    """Count the cells of one block.

    Parameters
    ----------
    labels : any integer type, shape (z, y, x)
        The block, with a halo of one voxel before it in y and x where the volume reaches further.
        What is not above 0 is background.
    closed : for each axis, whether the volume begins before the block, and ends behind it
    previous : shape (y, x)
        The plane before the block, if the volume has one.

    Returns
    -------
    Crossings
        Also of objects that only the halo holds, where cells reach into it.
    """
    pad = [(int(b), int(a)) for b, a in closed]
    height, width = (n + sum(p) for n, p in zip(labels.shape[1:], pad[1:], strict=True))
    inner = tuple(slice(p[0], p[0] + n) for n, p in zip(labels.shape[1:], pad[1:], strict=True))
    pair = np.zeros((2, height, width), np.dtype(f"u{labels.dtype.itemsize}"))
    uneven = np.zeros((2, max((height - 1) * width - 1, 0)), bool)
    parts, kept = [], [np.empty((8, 0), pair.dtype)]
    planes = [*([] if previous is None else [previous]), *labels]
    for k, plane in enumerate([*[None] * pad[0][0], *planes, *[None] * pad[0][1]]):
        below, above = pair[(k + 1) % 2], pair[k % 2]
        if plane is None:
            above[:] = 0
        elif plane.dtype.kind == "u":
            above[inner] = plane
        else:
            np.maximum(plane, 0, out=above[inner], casting="unsafe")
        _find_uneven(above.reshape(-1), width, uneven[k % 2])
        if k:
            kept.append(_uneven_cells(below.reshape(-1), above.reshape(-1), uneven, width))
        if sum(c.shape[1] for c in kept) >= TALLY_CELLS:
            parts.append(_tally(np.concatenate(kept, axis=1)))
            kept = []
    if kept:
        parts.append(_tally(np.concatenate(kept, axis=1)))
    return merge(parts)


def _find_uneven(plane: NDArray[Any], width: int, out: NDArray[np.bool_]) -> None:
    """Find where the 2 x 2 voxels from each voxel on are not all equal; wraps at row ends."""
    beside = plane[:-1] != plane[1:]
    np.not_equal(plane[: len(out)], plane[width : width + len(out)], out=out)
    out |= beside[: len(out)]
    out |= beside[width : width + len(out)]


def _uneven_cells(
    below: NDArray[Any], above: NDArray[Any], uneven: NDArray[np.bool_], width: int
) -> NDArray[Any]:
    """Gather the voxels of the cells between two planes that are not all equal, shape (8, n)."""
    cells = below[: uneven.shape[1]] != above[: uneven.shape[1]]
    cells |= uneven[0]
    cells |= uneven[1]
    cells[width - 1 :: width] = False  # these begin in one row and end in the next
    first = np.flatnonzero(cells)
    return np.stack([(above if z else below)[first + (y * width + x)] for z, y, x in CORNERS])


def _tally(corners: NDArray[Any]) -> Crossings:
    """Count each cell for every object that it holds."""
    top = corners.max(axis=0)
    inside = corners == top
    labels, codes = [top], [_codes(inside)]
    shared = np.flatnonzero(~(inside | (corners == 0)).all(axis=0))
    corners, top = corners[:, shared], top[shared]
    for k in range(8):
        inside = corners == corners[k]
        first = (corners[k] != 0) & (corners[k] != top) & ~inside[:k].any(axis=0)
        labels.append(corners[k, first])
        codes.append(_codes(inside[:, first]))
    return _sum_codes(np.concatenate(labels), np.concatenate(codes))


def _codes(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Turn shape (8, n) into n configurations."""
    codes = np.zeros(inside.shape[1], np.uint8)
    for k, voxel in enumerate(inside.view(np.uint8)):
        codes |= voxel << np.uint8(k)
    return codes


def _sum_codes(labels: NDArray[Any], codes: NDArray[np.uint8]) -> Crossings:
    """Add up the counts of each label's configurations."""
    # neighbouring cells mostly belong to one object, so there is far less to sort than cells
    heads = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]])[: len(labels)])
    distinct, rows = np.unique(labels[heads], return_inverse=True)
    keys = np.repeat(rows * CODES, np.diff(heads, append=len(labels)))
    keys += codes
    keys, repeats = np.unique(keys, return_counts=True)
    rows, codes_of = np.divmod(keys, CODES)
    counts = _code_counts()[codes_of] * repeats[:, None]
    if len(keys):
        counts = np.add.reduceat(counts, np.searchsorted(rows, np.arange(len(distinct))))
    return Crossings(distinct, counts[:, :-1], counts[:, -1])


@lru_cache(maxsize=1)
def _code_counts() -> NDArray[np.int64]:
    """Count crossings by direction, and eight times the Euler number, for each configuration.

    Returns
    -------
    int64, shape (256, 14)
    """
    inside = (np.arange(CODES)[:, None] >> np.arange(8) & 1).astype(bool)
    counts = np.zeros((CODES, len(DIRECTIONS) + 1), np.int64)
    for (a, p), (b, q) in itertools.combinations(enumerate(CORNERS), 2):
        step = tuple(j - i for i, j in zip(p, q, strict=True))
        counts[:, DIRECTIONS.index(step)] += inside[:, a] != inside[:, b]
    # corners, edges, faces and bodies of the voxels' union; an edge has 2 corners, a face 4, a
    # body 8, so that their shares at one corner are 1/2, 1/4, 1/8
    counts[:, -1] = 8 * inside.any(axis=1)
    for axis, side in itertools.product(range(3), (0, 1)):
        edge = [k for k, c in enumerate(CORNERS) if c[axis] == side]
        counts[:, -1] -= 4 * inside[:, edge].any(axis=1)
    for (a, p), (b, q) in itertools.combinations(enumerate(CORNERS), 2):
        if sum(i != j for i, j in zip(p, q, strict=True)) == 1:
            counts[:, -1] += 2 * (inside[:, a] | inside[:, b])
    counts[:, -1] -= inside.sum(axis=1)
    return counts


def euler_numbers(found: Crossings) -> NDArray[np.int64]:
    """Find the Euler number of each object: its pieces, less tunnels, plus cavities.

    Voxels that share a face, an edge or a corner are joined (26-connectivity).
    """
    return found.euler8 // 8


def surface_areas(found: Crossings, voxel_size: VoxelSize) -> NDArray[np.float64]:
    """Estimate each object's surface from how often lines cross it.

    Parameters
    ----------
    found : of the whole volume
    voxel_size : (z, y, x)

    Returns
    -------
    float64, shape (objects,)
        In the square of the voxel size's unit.

    Notes
    -----
    Crofton's formula: through a surface of area S, parallel lines of one direction, one per area A,
    pass S / 2A times in the mean over all directions. The 13 directions stand for all others,
    each with the share of the sphere that is closest to it. See G. Lehmann and D. Legland,
    "Efficient N-dimensional surface estimation using Crofton formula and run-length encoding",
    Insight Journal 2012.
    """
    areas: NDArray[np.float64] = found.crossings @ crofton_weights(voxel_size)
    return areas


@lru_cache(maxsize=64)
def crofton_weights(voxel_size: VoxelSize) -> NDArray[np.float64]:
    """Find the area that a crossing in each of the 13 directions stands for.

    Examples
    --------
    >>> crofton_weights((1.0, 1.0, 1.0))[[0, 1, 3]].round(4)
    array([0.0458, 0.0523, 0.0523])
    """
    from scipy.spatial import SphericalVoronoi

    steps = np.array(DIRECTIONS) * voxel_size
    lengths = np.linalg.norm(steps, axis=1)
    poles = steps / lengths[:, None]
    areas = SphericalVoronoi(np.concatenate([poles, -poles])).calculate_areas()
    share = (areas[:13] + areas[13:]) / (4 * math.pi)
    # a pair of voxels lies in 4, 2 or 1 cells, as it is an edge or crosses a face or the body
    repeats = np.array([2 ** d.count(0) for d in DIRECTIONS])
    weights: NDArray[np.float64] = 2 * share * math.prod(voxel_size) / lengths / repeats
    return weights
