"""Read chunks of the arrays that volseg creates, checksums and sizes checked: on numcodecs.

It takes zarr-python milliseconds to read a chunk by itself, and this a tenth of one. Arrays of any
other form are read by zarr-python.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from volseg.errors import StorageError
from volseg.geometry.grid import Block, Grid, describe, intersect, roi_shape, shift
from volseg.storage.chunks import CHECKSUM, Data, unpacker, unseal
from volseg.storage.remote import RemotePath, as_remote
from volseg.storage.shards import ABSENT, ArrayForm, chunks_per_shard, shard_path, spread
from volseg.types import Roi, Zyx

READ_AHEAD = 1 << 15
"""Bytes that are read at least: many chunks of labels, less than one of most images."""
ROW, MOST_OPEN = 1024, 16
"""A reader keeps open the shards along so many voxels of x, and two more, but no more than this."""
Table = Sequence[Sequence[int]]
Fetched = Callable[[], Data | None]
"""Gives a chunk as it is stored, None for one that is not, from any thread."""


class LocalShard:
    """A file that is open, and where its chunks are.

    Parameters
    ----------
    table : offset and length of each chunk, in raster order
    """

    def __init__(self, file: int, size: int, table: Table) -> None:
        self._file, self._size, self._table = file, size, table
        self._ahead, self._start = b"", 0
        finalize(self, os.close, file)

    def fetch(self, places: Sequence[int]) -> list[Fetched]:
        """Find chunks by their numbers; each is read when it is asked for."""
        return [partial(self._read, place) for place in places]

    def _read(self, place: int) -> Data | None:
        found = _find(self._table, place, self._size)
        return None if found is None else unseal(os.pread(self._file, found[1], found[0]))

    def read_on(self, place: int) -> Data | None:
        """Read a chunk, in one thread; small ones are read together."""
        found = _find(self._table, place, self._size)
        if found is None:
            return None
        offset, length = found
        if not self._start <= offset <= offset + length <= self._start + len(self._ahead):
            self._ahead = os.pread(self._file, max(length, READ_AHEAD), offset)
            self._start = offset
        first = offset - self._start
        return unseal(self._ahead[first : first + length])


class RemoteShard:
    """An object, and where its chunks are.

    Parameters
    ----------
    table : offset and length of each chunk, in raster order
    """

    def __init__(self, path: RemotePath, size: int, table: Table) -> None:
        self._path, self._size, self._table = path, size, table

    def fetch(self, places: Sequence[int]) -> list[Fetched]:
        """Read chunks by their numbers, neighbours by one request."""
        found = [_find(self._table, place, self._size) for place in places]
        stored = [entry for entry in found if entry is not None]
        parts = iter(self._path.read_parts(*zip(*stored, strict=True)) if stored else ())
        return [_nothing if entry is None else partial(unseal, next(parts)) for entry in found]


def _nothing() -> None:
    """Stand for a chunk that is not stored."""


def _find(table: Table, place: int, size: int) -> tuple[int, int] | None:
    offset, length = table[place]
    if offset == ABSENT:
        return None
    if offset + length > size:
        raise ValueError("its index points beyond it: the shard is damaged")
    return offset, length


def open_shard(array: ArrayForm, index: Zyx) -> LocalShard | RemoteShard | None:
    """Open a shard; None if there is none, so that all of it is 0.

    Raises
    ------
    OSError, ValueError, StorageError, VolumeError
        If it is damaged or cannot be read.
    """
    path = shard_path(array, index)
    remote = as_remote(path)
    counts = chunks_per_shard(array)
    if remote is None:
        return _open_file(path, counts)
    try:
        packed, size = remote.read_end(_index_bytes(counts))
    except FileNotFoundError:
        return None
    return RemoteShard(remote, size, _table(packed))


def _open_file(path: Path, counts: Zyx) -> LocalShard | None:
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(file).st_size
        start = size - _index_bytes(counts)
        table = _table(os.pread(file, size - start, start) if start >= 0 else b"")
    except BaseException:
        os.close(file)
        raise
    return LocalShard(file, size, table)


def _index_bytes(counts: Zyx) -> int:
    return 16 * math.prod(counts) + CHECKSUM


def _table(packed: bytes) -> Table:
    table: Table = np.frombuffer(unseal(packed), "<u8").reshape(-1, 2).tolist()
    return table


def _place(chunk: Zyx, counts: Zyx) -> int:
    """Find the number of a chunk in its shard, from its position in the array."""
    row = chunk[0] % counts[0] * counts[1] + chunk[1] % counts[1]
    return row * counts[2] + chunk[2] % counts[2]


def read_box(array: ArrayForm, box: Roi) -> NDArray[Any]:
    """Read a box of an array of volseg's own form.

    Raises
    ------
    StorageError, VolumeError
        If a chunk is damaged or cannot be read.
    """
    out = np.zeros(roi_shape(box), array.dtype)
    reader = _BoxReader(array, box, out)
    for block in Grid(array.shape, array.shard).blocks(box):
        try:
            reader.read(block)
        except (OSError, ValueError) as error:
            path = shard_path(array, block.index)
            raise StorageError(f"{path}: {_why(error)}") from error
    return out


def _why(error: OSError | ValueError) -> object:
    return getattr(error, "strerror", None) or error


def _decoder(array: ArrayForm) -> Callable[[Data], NDArray[Any]]:
    """Make what decodes a chunk as it is stored."""
    dtype = array.dtype.newbyteorder("<")
    unpack = unpacker(array.compression, math.prod(array.chunk) * array.dtype.itemsize)
    return lambda packed: np.frombuffer(unpack(packed), dtype).reshape(array.chunk)


class _BoxReader:
    """Puts the part of each chunk that lies in a box where it belongs."""

    def __init__(self, array: ArrayForm, box: Roi, out: NDArray[Any]) -> None:
        self.array, self.box, self.out = array, box, out
        self._decode = _decoder(array)

    def read(self, shard: Block) -> None:
        """Read what lies in a shard."""
        region = intersect(shard.core, self.box)
        opened = open_shard(self.array, shard.index)
        if opened is None or region is None:
            return
        chunks = list(Grid(self.array.shape, self.array.chunk).blocks(region))
        places = [_place(chunk.index, chunks_per_shard(self.array)) for chunk in chunks]
        size = math.prod(roi_shape(region)) * self.array.dtype.itemsize
        for _ in spread(self._fill, chunks, opened.fetch(places), size=size):
            pass

    def _fill(self, chunk: Block, fetched: Fetched) -> None:
        """Decode one chunk."""
        packed, wanted = fetched(), intersect(chunk.core, self.box)
        if packed is None or wanted is None:
            return
        whole = self._decode(packed)
        at = shift(wanted, [s.start for s in self.box])
        self.out[at] = whole[shift(wanted, [s.start for s in chunk.core])]


def stores_chunks(array: ArrayForm) -> bool:
    """Tell whether an array is of the form that `create_array` gives: `ChunkReader` reads it.

    One request for each chunk would be slow where each takes its time, so remote arrays are not.
    """
    return bool(array.compression and as_remote(array.path) is None)


def stored_bytes(array: ArrayForm, region: Roi) -> int:
    """Count the bytes of the shards that a region of an array that `stores_chunks` touches."""
    total = 0
    for shard in Grid(array.shape, array.shard).blocks(region):
        with suppress(OSError):  # most often there is none; else reading it says so
            total += shard_path(array, shard.index).stat().st_size
    return total


class ChunkReader:
    """Reads boxes that lie in one chunk each, of an array that `stores_chunks`; for one thread."""

    def __init__(self, array: ArrayForm) -> None:
        self.array = array
        self._counts = chunks_per_shard(array)
        self._shards: dict[Zyx, LocalShard | None] = {}
        self._chunk: Zyx | None = None
        self._decoded: NDArray[Any] | None = None
        self._decode = _decoder(array)

    def __call__(self, box: Roi) -> NDArray[Any] | None:
        """Read a box; None if all of its chunk is 0."""
        z, y, x = box
        depth, height, width = self.array.chunk
        chunk = z.start // depth, y.start // height, x.start // width
        if chunk != self._chunk:
            self._chunk = self._decoded = None
            try:
                self._decoded = self._read(chunk)
            except (OSError, ValueError) as error:
                where = f"{self.array.path} at {describe(box)}"
                raise StorageError(f"cannot read {where}: {_why(error)}") from error
            self._chunk = chunk
        if self._decoded is None:
            return None
        top, left = chunk[1] * height, chunk[2] * width
        return self._decoded[
            z.start - chunk[0] * depth : z.stop - chunk[0] * depth,
            y.start - top : y.stop - top,
            x.start - left : x.stop - left,
        ]

    def _read(self, chunk: Zyx) -> NDArray[Any] | None:
        z, y, x = (c // n for c, n in zip(chunk, self._counts, strict=True))
        if (z, y, x) not in self._shards:
            if len(self._shards) == min(ROW // self.array.shard[2] + 2, MOST_OPEN):
                del self._shards[next(iter(self._shards))]
            self._shards[z, y, x] = _open_file(shard_path(self.array, (z, y, x)), self._counts)
        shard = self._shards[z, y, x]
        packed = None if shard is None else shard.read_on(_place(chunk, self._counts))
        return None if packed is None else self._decode(packed)
