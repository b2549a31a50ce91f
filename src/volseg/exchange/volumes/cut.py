"""A part of a stored array, as it is handed on: read block by block, in another type."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.engine.progress import Progress
from volseg.geometry.grid import Block, Grid, roi_shape, shift
from volseg.storage.arrays import StoredArray
from volseg.storage.ome import Space
from volseg.storage.volumes import Image
from volseg.types import Roi, Zyx, zyx

SLAB_BYTES = 1 << 28
"""Of planes that are read together, at most, as far as one plane allows."""


@dataclass(frozen=True)
class Cut:
    """Voxels that are handed on.

    Attributes
    ----------
    array : that they are stored in.
    roi : which of them.
    space : of the first voxel of ``roi``, and of all that follow.
    dtype : that they are written as.
    label : they are labels.
    """

    array: StoredArray
    roi: Roi
    space: Space
    dtype: np.dtype[Any]
    label: bool

    @property
    def shape(self) -> Zyx:
        """Voxels along (z, y, x)."""
        return roi_shape(self.roi)

    @property
    def nbytes(self) -> int:
        """Size of all voxels, as they are written."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def origin_nm(self) -> tuple[float, float, float]:
        """Middle of the first voxel; in voxels where their size is unknown."""
        scale = self.space.scale
        sizes = self.space.voxel_size or (1.0, 1.0, 1.0)
        return zyx(o / s * n for o, s, n in zip(self.space.origin, scale, sizes, strict=True))

    def read(self, box: Roi) -> NDArray[Any]:
        """Read a box, given from the first voxel on."""
        z, y, x = (
            slice(s.start + o.start, s.stop + o.start) for s, o in zip(box, self.roi, strict=True)
        )
        found = self.array[z, y, x]
        if self.label and found.dtype.kind == "i" != self.dtype.kind:  # below 0 is background, too
            found = np.maximum(found, 0)
        return found.astype(self.dtype, copy=False)

    def pieces(self, core: Roi, chunk: Zyx) -> Iterator[tuple[Roi, NDArray[Any]]]:
        """Read a block, and part it into chunks of a target, which are written one by one.

        Of several that are written at once, some may still be under way when another has failed.
        """
        read, corner = self.read(core), [s.start for s in core]
        for piece in Grid(self.shape, chunk).blocks(core):
            yield piece.core, read[shift(piece.core, corner)]

    def slabs(
        self, progress: Progress, title: str, done: int = 0
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Read all from a plane on, some planes at a time, the next ones meanwhile.

        Yields
        ------
        the number of the first plane, and planes
        """
        depth, height, width = self.shape
        plane = height * width * self.array.dtype.itemsize
        layer = max(min(self.array.chunk[0], SLAB_BYTES // plane), 1)
        # whole layers of chunks, wherever the region begins
        first = layer - self.roi[0].start % layer
        starts = [done, *(k for k in range(first, depth, layer) if k > done)]
        if done == depth:
            return

        def read(k: int) -> NDArray[Any]:
            stop = starts[k + 1] if k + 1 < len(starts) else depth
            return self.read((slice(starts[k], stop), slice(0, height), slice(0, width)))

        progress.start(math.prod(self.shape), "voxels", title)
        progress.advance(done * height * width)
        try:
            with ThreadPoolExecutor(1) as reader:
                coming = reader.submit(read, 0)
                for k, start in enumerate(starts):
                    slab = coming.result()
                    if k + 1 < len(starts):
                        coming = reader.submit(read, k + 1)
                    yield start, slab
                    progress.advance(slab.size)
        finally:
            progress.finish()

    def planes(self, progress: Progress, title: str, done: int) -> Iterator[NDArray[Any]]:
        """Read plane by plane, from one on."""
        for _, slab in self.slabs(progress, title, done):
            yield from slab


def space_at(image: Image, level: int, roi: Roi) -> Space:
    """Find where a region of a level lies."""
    return image.space.at([part.start for part in roi], image.factors[level])


@dataclass(frozen=True)
class HighestLabel:
    """Find the highest label in a block."""

    array: StoredArray

    def __call__(self, block: Block) -> int:
        """Read one block."""
        return int(self.array[block.core].max())
