"""The sums of one block, as a worker takes them: slab by slab."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.blocks import Block, Grid, roi_shape, whole_multiples
from volseg.io.arrays import StoredArray
from volseg.io.label_sources import LabelSource
from volseg.moments import LabelRuns, Values, find_runs, slice_areas, sum_runs, sum_values
from volseg.statistics import ObjectSums, merge_sums
from volseg.surface import Closed, Crossings, count_crossings
from volseg.types import Roi

SLAB_VOXELS = 1 << 24
BLOCK_DEPTH = 256


def slab_depth(source: LabelSource) -> int:
    """Say how many slices are read at once: those of one chunk."""
    return source.block[0] if source.array is None else source.array.chunk[0]


def plan_blocks(source: LabelSource) -> Grid:
    """Choose blocks that are deep, and of wide slabs: little is read twice, for halos.

    A slab has about `SLAB_VOXELS`, whatever the shape of the stored chunks.
    """
    area = SLAB_VOXELS // slab_depth(source)
    _, height, width = source.shape
    _, y, x = source.block
    tall = min(max(math.isqrt(area) // y, 1) * y, height)
    wide = min(max(area // tall // x, 1) * x, width)
    tall = min(max(area // wide // y, 1) * y, height)
    deep = min(BLOCK_DEPTH, source.shape[0])
    return Grid(source.shape, whole_multiples((deep, tall, wide), source.block))


@dataclass(frozen=True)
class MeasureBlock:
    """Sum over what one block holds of each object.

    Attributes
    ----------
    source : LabelSource
    shapes : also second moments and surfaces
    raw, probabilities : of the volume, where their values are to be summed
    """

    source: LabelSource
    shapes: bool
    raw: StoredArray | None = None
    probabilities: StoredArray | None = None

    def __call__(self, block: Block) -> tuple[ObjectSums, NDArray[np.int64]]:
        """Measure one block; return its sums, and the objects' area in each of its slices."""
        parts, areas = [], []
        previous = self._plane_before(block.core) if self.shapes else None
        for slab in self._slabs(block.core):
            box, halo = self._with_halo(slab)
            labels = self.source[box]
            runs = find_runs(labels[(slice(None), *halo)])
            sums = ObjectSums(sum_runs(runs, slab, second=self.shapes))
            areas.append(slice_areas(runs, roi_shape(slab)[0]))
            if self.shapes:
                sums = replace(sums, crossings=self._crossings(labels, slab, previous))
                previous = labels[-1].copy()  # a copy lets go of the slab
            parts.append(
                replace(
                    sums,
                    intensity=_sum_array(self.raw, runs, slab),
                    probability=_sum_array(self.probabilities, runs, slab),
                )
            )
        return merge_sums(parts), np.concatenate(areas)

    def _slabs(self, core: Roi) -> Iterator[Roi]:
        z, y, x = core
        depth = slab_depth(self.source)
        for start in range(z.start, z.stop, depth):
            yield slice(start, min(start + depth, z.stop)), y, x

    def _with_halo(self, slab: Roi) -> tuple[Roi, tuple[slice, slice]]:
        """Grow a slab by one voxel before it in y and x, and say where it lies in that."""
        z, y, x = slab
        if not self.shapes:
            return slab, (slice(None), slice(None))
        up, left = min(y.start, 1), min(x.start, 1)
        box = (z, slice(y.start - up, y.stop), slice(x.start - left, x.stop))
        return box, (slice(up, None), slice(left, None))

    def _plane_before(self, core: Roi) -> NDArray[Any] | None:
        z, *_ = core
        if z.start == 0:
            return None
        _, y, x = self._with_halo(core)[0]
        plane: NDArray[Any] = self.source[slice(z.start - 1, z.start), y, x][0]
        return plane

    def _crossings(
        self, labels: NDArray[Any], slab: Roi, previous: NDArray[Any] | None
    ) -> Crossings:
        z, y, x = (
            (s.start == 0, s.stop == n) for s, n in zip(slab, self.source.shape, strict=True)
        )
        closed: Closed = (z, y, x)
        return count_crossings(labels, closed, previous)


def _sum_array(array: StoredArray | None, runs: LabelRuns, slab: Roi) -> Values | None:
    """Sum over an array's values in each object; reads no more than the box around them all."""
    if array is None:
        return None
    if not len(runs.labels):
        return sum_values(runs, np.empty((0, 0, 0), array.dtype))
    low = runs.first.min(axis=1)
    high = runs.first.max(axis=1) + 1
    high[2] = (runs.first[2] + runs.lengths).max()
    z, y, x = (
        slice(s.start + int(a), s.start + int(b)) for s, a, b in zip(slab, low, high, strict=True)
    )
    return sum_values(replace(runs, first=runs.first - low[:, None]), array[z, y, x])
