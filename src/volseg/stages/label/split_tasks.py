"""Split objects, as a worker does: measure them, and part those that begin in its block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import Grid, intersect, roi_shape, shift
from volseg.objects.components import Components
from volseg.objects.pieces import component_boxes, gather_runs, piece_runs
from volseg.objects.runs import Runs, paint
from volseg.objects.splitting import Splitter
from volseg.stages.label.tasks import Layer
from volseg.storage.arrays import StoredArray
from volseg.storage.scratch import ComponentStore
from volseg.types import Labels, Mask, Roi, Zyx

CACHED = 8
"""Blocks whose runs a task keeps at hand, since most objects lie in few."""


def measure_block(
    grid: Grid, store: ComponentStore, index: Zyx
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the bounding boxes and first voxels of the components of a block."""
    found = store.load(index)
    return component_boxes(found, grid.block(index).core), found.firsts


@dataclass(frozen=True)
class Beginning:
    """The objects whose first voxel lies in one block.

    Attributes
    ----------
    objects : int64, shape (objects,)
        Their numbers.
    boxes : int64, shape (objects, 6)
        Their bounding boxes: first voxels, and those after the last.
    layers : of every block that these reach, what is painted into it.
    """

    index: Zyx
    objects: NDArray[np.int64] = field(repr=False)
    boxes: NDArray[np.int64] = field(repr=False)
    layers: Mapping[Zyx, tuple[Layer, ...]] = field(repr=False)


@dataclass(frozen=True)
class Split:
    """Objects of one block that fell apart, and their pieces.

    Attributes
    ----------
    objects : those that fell apart.
    firsts : of each piece, the index of its first voxel in the volume's raster order.
    targets : the blocks that the pieces lie in.
    """

    objects: list[int]
    firsts: list[int]
    targets: list[Zyx]


@dataclass(frozen=True)
class SplitBlock:
    """Split the objects that begin in one block, one at a time, and keep their pieces."""

    grid: Grid
    splitter: Splitter
    folder: Path
    guides: tuple[StoredArray, ...] = ()

    def __call__(self, item: Beginning) -> Split:
        """Split the objects of one block."""

        @lru_cache(CACHED)
        def load(index: Zyx) -> list[tuple[Runs, Labels]]:
            layers = (layer.load(index) for layer in item.layers[index])
            return [(c.runs, numbers[c.values - 1]) for c, numbers in layers]

        found, stretches = Split([], [], []), dict[Zyx, list[NDArray[np.int64]]]()
        for number, bounds in zip(item.objects.tolist(), item.boxes.tolist(), strict=True):
            box = slice(bounds[0], bounds[3]), slice(bounds[1], bounds[4]), slice(*bounds[2::3])
            mask = np.zeros(roi_shape(box), bool)
            for block in self.grid.blocks(box):
                self._paint(mask, box, block.core, [(*x, number) for x in load(block.index)])
            pieces = self.splitter(mask, [guide[box] for guide in self.guides])
            if pieces.max() < 2:
                continue
            corner = np.array([s.start for s in box])
            runs = piece_runs(pieces) + np.array([*corner, corner[2], len(found.firsts)])
            found.objects.append(number)
            found.firsts.extend(self._firsts(runs, len(found.firsts)))
            for block in self.grid.blocks(box):
                inside = clip_runs(runs, block.core)
                if len(inside):
                    stretches.setdefault(block.index, []).append(inside)
        self._keep(item.index, stretches, len(found.firsts))
        found.targets.extend(stretches)
        return found

    def _paint(
        self, mask: Mask, box: Roi, core: Roi, layers: list[tuple[Runs, Labels, int]]
    ) -> None:
        """Add what of an object lies in one block."""
        part = intersect(box, core)
        if part is None:
            return
        here = shift(part, [s.start for s in core])
        there = shift(part, [s.start for s in box])
        for runs, numbers, number in layers:
            mask[there] |= paint(runs, numbers, roi_shape(core)[1], here) == number

    def _firsts(self, runs: NDArray[np.int64], before: int) -> list[int]:
        """Find the first voxel of each piece of an object; runs are in raster order."""
        pieces, at = np.unique(runs[:, 4], return_index=True)
        z, y, x = runs[at, 0], runs[at, 1], runs[at, 2]
        _, height, width = self.grid.shape
        found: list[int] = ((z * height + y) * width + x)[np.argsort(pieces - before)].tolist()
        return found

    def _keep(
        self, index: Zyx, stretches: Mapping[Zyx, list[NDArray[np.int64]]], pieces: int
    ) -> None:
        """Keep all pieces, block by block, as though they were its components."""
        store, unknown = piece_store(self.folder, index), np.zeros(pieces, np.int64)
        for target, runs in stretches.items():
            found = gather_runs(np.concatenate(runs), self.grid.block(target).core)
            store.save(target, Components(*found, unknown, unknown, planes={}))


def piece_store(folder: Path, index: Zyx) -> ComponentStore:
    """Name the place for the pieces of the objects that begin in a block."""
    return ComponentStore(folder / "pieces" / "-".join(map(str, index)))


def clip_runs(runs: NDArray[np.int64], core: Roi) -> NDArray[np.int64]:
    """Cut stretches of pieces down to one block.

    Examples
    --------
    >>> runs = np.array([[0, 0, 2, 9, 1], [4, 0, 2, 9, 1]])
    >>> clip_runs(runs, (slice(0, 4), slice(0, 4), slice(4, 8))).tolist()
    [[0, 0, 4, 8, 1]]
    """
    clipped = runs.copy()
    np.maximum(runs[:, 2], core[2].start, out=clipped[:, 2])
    np.minimum(runs[:, 3], core[2].stop, out=clipped[:, 3])
    inside = clipped[:, 2] < clipped[:, 3]
    for axis in (0, 1):
        inside &= (runs[:, axis] >= core[axis].start) & (runs[:, axis] < core[axis].stop)
    return clipped[inside]
