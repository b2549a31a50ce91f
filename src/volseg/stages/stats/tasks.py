"""Measure a block, or one object at a time, as a worker does; read each chunk about once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import Block, Grid, grow, roi_shape, roi_size
from volseg.measures.object_table import ObjectSums, Scale
from volseg.measures.outline import count_hull_voxels, feret_diameter, hull_points, section_measures
from volseg.measures.single_object import (
    AROUND,
    OUTLINE,
    SINGLE,
    centerline,
    compare_surroundings,
    mesh_area,
)
from volseg.measures.tally import Readers, tally
from volseg.sources.labels import LabelSource
from volseg.storage.arrays import DEFAULT_CHUNK, StoredArray
from volseg.storage.shard_reading import ChunkReader, stored_bytes, stores_chunks
from volseg.types import Readable, Roi, VoxelSize, Zyx

SLAB_VOXELS = 1 << 24
"""Of what is read slab by slab, because its chunks are of another form than volseg's."""
LARGEST_BLOCK: Zyx = (512, 1024, 1024)
BLOCKS_PER_WORKER = 4
LARGEST_BOX = 1 << 25
"""Voxels of an object's box beyond which it is not measured on its own."""
MOST_SHARDS = 1 << 12
"""Of which the sizes are looked up, one by one, before anything begins."""
BoxReader: TypeAlias = Callable[[Roi], NDArray[Any] | None]
LARGEST_PIECE, LONGEST_SIDE = 1 << 18, 1 << 10
"""Voxels of a chunk that is looked at as a whole; thin ones would have faces as large as blocks."""


def plan_blocks(source: LabelSource, workers: int) -> Grid:
    """Choose large blocks, since halos are read twice, but enough for all workers."""
    unit, longest = source.block, LARGEST_BLOCK
    if not reads_chunks(source.array):
        side = math.isqrt(SLAB_VOXELS // max(unit[0], brick_of(source.array)[0]))
        longest = LARGEST_BLOCK[0], side, side
    # in units
    size = [
        min(max(n // u, 1), -(-s // u)) for n, u, s in zip(longest, unit, source.shape, strict=True)
    ]
    while True:
        z, y, x = (n * u for n, u in zip(size, unit, strict=True))
        grid = Grid(source.shape, (z, y, x))
        if max(size) == 1 or math.prod(grid.counts) >= workers * BLOCKS_PER_WORKER:
            return grid
        axis = max(range(3), key=lambda k: (size[k] > 1, size[k] * unit[k]))
        size[axis] = -(-size[axis] // 2)


def order_blocks(source: LabelSource, grid: Grid, workers: int) -> Iterable[Block]:
    """Sort few blocks by their stored size, largest first, so that no large one comes last."""
    array = source.array
    if array is None or not reads_chunks(array):
        return grid.blocks()
    shards = math.prod(Grid(array.shape, array.shard).counts)
    if math.prod(grid.counts) > 4 * BLOCKS_PER_WORKER * workers or shards > MOST_SHARDS:
        return grid.blocks()
    return sorted(grid.blocks(), key=lambda b: stored_bytes(array, b.core), reverse=True)


@dataclass(frozen=True)
class MeasureBlock:
    """Sum over what one block holds of each object.

    Attributes
    ----------
    shapes : also second moments and surfaces
    raw, probabilities : of the volume, where their values are to be summed
    scale : of the raw, if that is not of whole numbers
    """

    source: LabelSource
    shapes: bool
    raw: StoredArray | None = None
    probabilities: StoredArray | None = None
    scale: Scale | None = None

    def __call__(self, block: Block) -> tuple[ObjectSums, NDArray[np.int64]]:
        """Measure one block; return its sums, and the objects' area in each of its slices."""
        brick, shape = brick_of(self.source.array), self.source.shape
        region = grow(block.core, (1, 1, 1), shape)
        readers = Readers(
            open_reader(self.source, self.source.array, brick, region),
            _read_values(self.raw, brick, block.core, self.scale),
            _read_values(self.probabilities, brick, block.core),
        )
        return tally(block.core, shape, brick, readers, shapes=self.shapes)


def _read_values(
    array: StoredArray | None, brick: Zyx, region: Roi, scale: Scale | None = None
) -> BoxReader | None:
    if array is None:
        return None
    read = open_reader(array, array, brick, region)
    if scale is None:
        return read

    def counted(box: Roi) -> NDArray[Any]:
        values = read(box)
        return scale.count(np.zeros(roi_shape(box), array.dtype) if values is None else values)

    return counted


@dataclass(frozen=True)
class ObjectBox:
    """One object: its row, its label, and the box that holds it."""

    row: int
    label: int
    box: Roi


@dataclass(frozen=True)
class MeasureObject:
    """Task of measuring one object in its own box.

    Attributes
    ----------
    raw : of the volume, to be compared with what lies around; None where it is not
    reached : voxels along y and x that lie around an object
    images : (y, x) of the unrelated images that slices are, beyond which nothing lies
    """

    source: LabelSource
    spacing: VoxelSize
    mesh: bool
    centerline: bool
    outline: bool = False
    raw: StoredArray | None = None
    reached: tuple[int, int] = (0, 0)
    images: tuple[tuple[int, int], ...] | None = None

    def __call__(self, item: ObjectBox) -> tuple[float, ...]:
        """Measure one object; return its values in the order of `SINGLE`.

        Measurements that were not requested are NaN, and so are all of an object that is too large.
        """
        found = dict.fromkeys(SINGLE, math.nan)
        if roi_size(item.box) > LARGEST_BOX:
            return tuple(found.values())
        mask = self.source[item.box] == item.label
        if self.mesh:
            found["mesh_areas"] = mesh_area(mask, self.spacing)
        if self.centerline:
            found["lengths"], found["branches"] = centerline(mask, self.spacing)
        if self.outline:
            points = hull_points(mask)
            found["ferets"] = feret_diameter(points, self.spacing)
            found["solidities"] = np.count_nonzero(mask) / count_hull_voxels(points)
            areas = section_measures(mask, self.spacing)
            found.update(zip(OUTLINE[2:], areas, strict=True))
        if self.raw is not None:
            found.update(zip(AROUND, self._compare(self.raw, item), strict=True))
        return tuple(found.values())

    def _compare(self, raw: StoredArray, item: ObjectBox) -> tuple[float, float]:
        """Compare an object with what lies around it."""
        first, shape = item.box[0].start, self.source.shape
        ends = shape if self.images is None else (shape[0], *self.images[first])
        box = grow(item.box, (0, *self.reached), ends)
        values = np.asarray(raw[box])
        return compare_surroundings(self.source[box] == item.label, values, self.reached)


def reads_chunks(array: StoredArray | None) -> bool:
    """Tell whether an array's chunks can be read one by one, and are small."""
    if array is None or math.prod(array.chunk) > LARGEST_PIECE or max(array.chunk) > LONGEST_SIDE:
        return False
    return stores_chunks(array)


def brick_of(array: StoredArray | None) -> Zyx:
    """Choose the boxes that are read at once: the array's chunks, if they are small."""
    return array.chunk if array is not None and reads_chunks(array) else DEFAULT_CHUNK


def open_reader(source: Readable, array: StoredArray | None, brick: Zyx, region: Roi) -> BoxReader:
    """Open a reader for one block, in one thread.

    Parameters
    ----------
    array : in which that is stored, if it is one
    brick : boxes are those of a grid of this size, or lie in one of them
    region : all that will be read
    """
    if array is not None and array.chunk == brick and reads_chunks(array):
        return ChunkReader(array)
    depth = brick[0] if array is None else array.chunk[0]
    return SlabReader(source, depth, region)


@dataclass
class SlabReader:
    """Keeps some slices of a block, in which the next boxes lie.

    Attributes
    ----------
    depth : slices that are stored together
    """

    source: Readable
    depth: int
    region: Roi
    _start: int = 0
    _slab: NDArray[Any] | None = None

    def __call__(self, box: Roi) -> NDArray[Any]:
        """Read a box."""
        z, y, x = box
        _, rows, columns = self.region
        if self._slab is None or not self._start <= z.start <= z.stop <= self._start + len(
            self._slab
        ):
            stop = min(-(-z.stop // self.depth) * self.depth, self.region[0].stop)
            self._slab = None  # never two at once
            self._slab, self._start = self.source[slice(z.start, stop), rows, columns], z.start
        found: NDArray[Any] = self._slab[
            z.start - self._start : z.stop - self._start,
            y.start - rows.start : y.stop - rows.start,
            x.start - columns.start : x.stop - columns.start,
        ]
        return found
