"""Make a volume of any size with a known number of objects, and a truth that differs in known ways.

A cell of 15 voxels a side holds one ellipsoid, or a piece of a tube that runs through the whole
volume. What there is to find is counted cell by cell, without volseg.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import Grid, roi_shape
from volseg.storage.arrays import fit_spec
from volseg.storage.volumes import create_image, labels_path, probabilities_path, register_label
from volseg.voxels.compilation import compiled

NAME = "mitochondria"
VOXEL_SIZE = (8.0, 8.0, 8.0)
THREADS = 2

SIDE, USED = 15, 14
"""Voxels along a cell, and how many of them an ellipsoid may lie in: two never touch."""
LEVEL = 128
"""Of 255: the threshold of the prediction."""
SAME, MISSED, FALSE, MOVED, SPLIT, MERGED, TUBE = range(7)
SHARES = (0.72, 0.05, 0.04, 0.13, 0.03, 0.03)
"""How many of the cells without a tube are of each kind."""
KIND, CENTRE, RADIUS, SHIFT = 0, 1, 4, 7
"""Columns of the cells; centre and radius take three each."""

Cells = NDArray[np.float32]


@dataclass(frozen=True)
class Expected:
    """What the commands have to find.

    Attributes
    ----------
    truth, predicted, matched, split, merged : objects; matched at an IoU of 0.5
    voxels : of predicted objects
    both, truth_only : voxels of objects in both, and in the truth alone
    total_iou : sum over the matched
    """

    truth: int
    predicted: int
    matched: int
    split: int
    merged: int
    voxels: int
    both: int
    truth_only: int
    total_iou: float


def make_cells(shape: tuple[int, int, int]) -> Cells:
    """Choose what each cell holds; shape (z, y, x, 8), see `KIND`."""
    counts = tuple(n // SIDE for n in shape)
    rng = np.random.default_rng(0)
    cells = np.empty((*counts, 8), np.float32)
    cells[..., KIND] = rng.choice(len(SHARES), counts, p=SHARES)
    moved = cells[..., KIND] == MOVED
    radius = 2.2 * 2.3 ** rng.random((*counts, 3))
    radius[moved, 2] = 2.2
    room = USED - 0.6 - 2 * radius
    room[moved, 2] /= 3
    cells[..., CENTRE : CENTRE + 3] = radius + room * rng.random((*counts, 3))
    cells[..., RADIUS : RADIUS + 3] = radius
    cells[..., SHIFT] = np.where(moved, rng.uniform(0.5, 5.5, counts), 0)
    # tubes along x, then along z, which pass each other
    for columns, along in ((cells[4::8, 8::16], RADIUS + 2), (cells[:, ::16, ::16], RADIUS)):
        columns[..., KIND], columns[..., SHIFT] = TUBE, 0
        columns[..., CENTRE : CENTRE + 3], columns[..., RADIUS : RADIUS + 3] = 7, 4
        columns[..., along] = np.inf
    return cells


@compiled
def _look(cell: Any, z: int, y: int, x: int, at: Any) -> tuple[int, int, int]:
    """Find a voxel's probability, of 255, and the piece of the object: predicted, and true.

    It is the voxel (z, y, x) of a cell that begins at ``at``. Pieces are 0 for none, 1, and 2 where
    an object is cut in two.
    """
    kind, north = int(cell[KIND]), np.float32(y)
    if kind == TUBE:
        place = at[0] + z if math.isinf(cell[RADIUS]) else at[2] + x
        north += np.float32(2 * math.sin(place / 16))
    elif max(z, y, x) >= USED:
        return 0, 0, 0
    across = ((z - cell[CENTRE]) / cell[RADIUS]) ** 2
    across += ((north - cell[CENTRE + 1]) / cell[RADIUS + 1]) ** 2
    level = _level(across + ((x - cell[CENTRE + 2]) / cell[RADIUS + 2]) ** 2)
    east = (x - cell[CENTRE + 2] - cell[SHIFT]) / cell[RADIUS + 2]
    cut = int(cell[CENTRE + 2])
    piece = 0 if x == cut else 1 if x < cut else 2
    if kind == MISSED:
        return 0, 0, int(level >= LEVEL)
    true = 0 if kind == FALSE else int(_level(across + east**2) >= LEVEL)
    found = int(level >= LEVEL)
    if kind == MERGED:
        true *= piece
    elif kind == SPLIT:
        found *= piece
        level = level if piece else 0
    return level, found, true


@compiled
def _level(distance: float) -> int:
    """Turn a squared distance, in radii, into a probability of 255."""
    return int(max(255 - 127.5 * distance, 0.0))


@compiled
def _paint(cells: Any, corner: Any, levels: Any, truth: Any) -> None:
    """Write the probabilities and the true labels of one block that begins at ``corner``."""
    depth, height, width = levels.shape
    for z in range(depth):
        k, below = divmod(z + corner[0], SIDE)
        for y in range(height):
            j, front = divmod(y + corner[1], SIDE)
            for x in range(width):
                i, left = divmod(x + corner[2], SIDE)
                if k >= cells.shape[0] or j >= cells.shape[1] or i >= cells.shape[2]:
                    continue
                cell = cells[k, j, i]
                at = k * SIDE, j * SIDE, i * SIDE
                level, _, true = _look(cell, below, front, left, at)
                levels[z, y, x] = level
                if true:
                    # a tube is numbered by the cell that it begins in
                    first = 0 if math.isinf(cell[RADIUS]) else k
                    west = 0 if math.isinf(cell[RADIUS + 2]) else i
                    number = (first * cells.shape[1] + j) * cells.shape[2] + west
                    truth[z, y, x] = 2 * number + true


@compiled
def _count(cells: Any, layer: int, shared: Any) -> None:
    """Count the voxels of each pair of pieces, (true, predicted), in each cell of a layer."""
    for j in range(cells.shape[1]):
        for i in range(cells.shape[2]):
            at = layer * SIDE, j * SIDE, i * SIDE
            for z in range(SIDE):
                for y in range(SIDE):
                    for x in range(SIDE):
                        _, found, true = _look(cells[layer, j, i], z, y, x, at)
                        shared[j, i, true, found] += 1


def count(cells: Cells, pool: ThreadPoolExecutor) -> Expected:
    """Count what the commands have to find, cell by cell."""
    shared = np.zeros((*cells.shape[:3], 3, 3), np.int64)
    list(pool.map(lambda k: _count(cells, k, shared[k]), range(len(cells))))
    shared[..., 0, 0] = 0
    tube = cells[..., KIND] == TUBE
    tubes = cells[4::8, 8::16, 0, KIND].size + cells[0, ::16, ::16, KIND].size
    single = shared[~tube]
    true, found = single.sum(axis=2)[:, 1:], single.sum(axis=1)[:, 1:]
    both = single[:, 1:, 1:]
    iou = both / np.maximum(true[:, :, None] + found[:, None, :] - both, 1)
    kinds = cells[..., KIND]
    return Expected(
        truth=int((true > 0).sum()) + tubes,
        predicted=int((found > 0).sum()) + tubes,
        matched=int((iou >= 0.5).sum()) + tubes,
        split=int((kinds == SPLIT).sum()),
        merged=int((kinds == MERGED).sum()),
        voxels=int(shared[..., 1:].sum()),
        both=int(shared[..., 1:, 1:].sum()),
        truth_only=int(shared[..., 1:, 0].sum()),
        total_iou=float(iou[iou >= 0.5].sum()) + tubes,
    )


def make_volume(volume: Path, shape: tuple[int, int, int]) -> Expected:
    """Write raw, probabilities and truth, block by block."""
    spec, attributes = fit_spec(shape, "uint8"), _attributes(shape)
    raw = create_image(volume, spec, VOXEL_SIZE, attributes={}).levels[0]
    path = probabilities_path(volume, NAME)
    probabilities = create_image(path, spec, VOXEL_SIZE, attributes=attributes).levels[0]
    path, numbered = labels_path(volume, "truth"), fit_spec(shape, "uint32")
    truth = create_image(path, numbered, VOXEL_SIZE, label=True, attributes={}).levels[0]
    register_label(volume, "truth")
    cells = make_cells(shape)
    noise = np.random.default_rng(1).integers(0, 16, spec.shard, np.uint8)

    def write(core: tuple[slice, slice, slice]) -> None:
        levels, labels = np.zeros(roi_shape(core), np.uint8), np.zeros(roi_shape(core), np.uint32)
        _paint(cells, tuple(s.start for s in core), levels, labels)
        probabilities.write(core, levels)
        truth.write(core, labels)
        z, y, x = levels.shape
        raw.write(core, 170 - levels // 2 + noise[:z, :y, :x])

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, (b.core for b in Grid(shape, spec.shard).blocks())))
        return count(cells, pool)


def _attributes(shape: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "complete": True,
        "fingerprint": "benchmark",
        "run": {"roi": [[0, n] for n in shape]},
        "model": {"threshold": 0.5},
    }
