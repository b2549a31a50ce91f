"""Build the coarser levels of an image that is complete at level 0, block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from volseg.blocks import Block, Grid, roi_shape
from volseg.io.arrays import StoredArray
from volseg.io.volumes import Image
from volseg.pyramid import reduce_labels, reduce_mean
from volseg.stages.engine import EngineOptions, run_blocks
from volseg.stages.progress import Progress
from volseg.types import Zyx


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


def build_pyramid(image: Image, options: EngineOptions, progress: Progress, *, label: bool) -> None:
    """Write levels 1 and coarser, each from the one before.

    Parameters
    ----------
    image : Image
        Complete at level 0; the other levels exist and are empty.
    options : EngineOptions
    progress : Progress
    label : bool
        Take the most frequent label in place of the mean.

    Raises
    ------
    BlockError
        If blocks failed; building it again starts over, which costs little.
    """
    total = sum(int(np.prod(level.shape)) for level in image.levels[1:])
    progress.start(total, "voxels", "pyramid")
    try:
        for k in range(1, len(image.levels)):
            fine, coarse = image.levels[k - 1], image.levels[k]
            pairs = zip(image.factors[k], image.factors[k - 1], strict=True)
            z, y, x = (round(a / b) for a, b in pairs)
            run_blocks(
                ReduceTask(fine, coarse, (z, y, x), label),
                Grid(coarse.shape, coarse.shard).blocks(),
                options,
                on_result=lambda _, n: progress.advance(n),
            )
    finally:
        progress.finish()
