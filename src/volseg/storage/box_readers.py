"""Read many small boxes of one block, in raster order, each stored chunk about once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from volseg.storage.arrays import DEFAULT_CHUNK, StoredArray
from volseg.storage.shard_reading import ChunkReader, stores_chunks
from volseg.types import Roi, Zyx

BoxReader: TypeAlias = Callable[[Roi], NDArray[Any] | None]
LARGEST_PIECE, LONGEST_SIDE = 1 << 18, 1 << 10
"""Voxels of a chunk that is looked at as a whole; thin ones would have faces as large as blocks."""


class Readable(Protocol):
    """Source that is read box by box: an array, or labels."""

    def __getitem__(self, roi: Roi) -> NDArray[Any]:
        """Read a box."""


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
    source : what is read
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
    source : what is read
    depth : slices that are stored together
    region : the block
    """

    source: Readable
    depth: int
    region: Roi
    _start: int = 0
    _slab: NDArray[Any] | None = None

    def __call__(self, box: Roi) -> NDArray[Any]:
        """Read a box.

        Raises
        ------
        StorageError, SourceError
            If it is damaged or cannot be read.
        """
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
