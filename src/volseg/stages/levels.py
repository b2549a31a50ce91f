"""Build the coarser levels of an image that is complete at level 0, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress
from volseg.engine.run import run_blocks
from volseg.geometry.grid import Block, Grid, roi_shape
from volseg.storage.arrays import StoredArray
from volseg.storage.volumes import Image
from volseg.types import Zyx, zyx
from volseg.voxels.downsample import reduce_labels, reduce_mean


@dataclass(frozen=True)
class ReduceTask:
    """Reduce what a block of the coarser level stands for, and write that block's shard."""

    fine: StoredArray
    coarse: StoredArray
    factor: Zyx
    label: bool

    def __call__(self, block: Block) -> int:
        """Write one block; return its voxels."""
        z, y, x = (
            slice(s.start * f, min(s.stop * f, n))
            for s, f, n in zip(block.core, self.factor, self.fine.shape, strict=True)
        )
        reduce = reduce_labels if self.label else reduce_mean
        reduced = np.empty(roi_shape(block.core), self.fine.dtype)
        # in layers of chunks: the finer level holds up to eight times as much
        depth = -(-self.fine.chunk[0] // self.factor[0]) * self.factor[0]
        for start in range(z.start, z.stop, depth):
            layer = slice(start, min(start + depth, z.stop))
            at = (start - z.start) // self.factor[0]
            part = reduce(self.fine[layer, y, x], self.factor)
            reduced[at : at + len(part)] = part
        self.coarse.write(block.core, reduced)
        return reduced.size


def build_pyramid(
    image: Image, options: EngineOptions, progress: Progress, *, label: bool, first: int = 1
) -> None:
    """Write level ``first`` and coarser ones, each from the one before.

    Parameters
    ----------
    image : complete before level ``first``; the other levels exist and are empty
    label : take the most frequent label in place of the mean

    Raises
    ------
    BlockError
        If blocks failed; building it again starts over, which costs little.
    """
    total = sum(int(np.prod(level.shape)) for level in image.levels[first:])
    with Job(progress, total, "voxels", "pyramid").shown():
        for k in range(first, len(image.levels)):
            task = reduce_task(image, k, label=label)
            blocks = Grid(task.coarse.shape, task.coarse.shard).blocks()
            run_blocks(task, blocks, options, on_result=lambda _, n: progress.advance(n))


def reduce_task(image: Image, level: int, *, label: bool) -> ReduceTask:
    """Say how a level is made from the one before."""
    return ReduceTask(
        image.levels[level - 1], image.levels[level], step_factor(image, level), label
    )


def step_factor(image: Image, level: int) -> Zyx:
    """Count the voxels of the level before that make one of this."""
    pairs = zip(image.factors[level], image.factors[level - 1], strict=True)
    return zyx(round(a / b) for a, b in pairs)
