"""Read and write shards chunk by chunk, for those who work on a block piece by piece.

Only arrays that `volseg.storage.arrays.create_array` creates, so one chain of codecs
(`volseg.storage.codecs`). A block of labels is made from its runs, and measured, faster by far
while what is worked on stays in the processor's cache.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import finalize

import google_crc32c
import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from volseg.errors import StorageError
from volseg.geometry.grid import Grid
from volseg.storage.arrays import StoredArray, describe
from volseg.storage.compression import Data, packer, unpacker
from volseg.storage.locations import as_remote, kvstore_spec, reason
from volseg.types import Roi, Zyx

ABSENT = 2**64 - 1
"""Stands in a shard's index for a chunk that is not stored, because all of it is 0."""

CHECKSUM = 4
"""Bytes of a CRC-32C."""
RESIDUE = 0x48674BC7
"""The CRC-32C of anything with its own CRC-32C behind it."""
READ_AHEAD = 1 << 15
"""Bytes that are read at least: many chunks of labels, less than one of most images."""
ROW, MOST_OPEN = 1024, 16
"""A reader keeps open the shards along so many voxels of x, and two more, but no more than this."""


def encode_chunks(
    part: NDArray[Any], array: StoredArray, corner: Sequence[int]
) -> dict[Zyx, bytes]:
    """Encode a part of a shard, by the positions of its chunks in the shard; none that is all 0.

    Parameters
    ----------
    part : (z, y, x); less than whole chunks at the array's border, where zeros fill the rest
    array : for which, made by `volseg.storage.arrays.create_array`
    corner : where in the shard the part begins, whole chunks
    """
    encoded, pack = {}, packer(array.compression, array.dtype.itemsize)
    for chunk in Grid((part.shape[0], part.shape[1], part.shape[2]), array.chunk).blocks():
        if part[chunk.core].max():
            z, y, x = (i + c // n for i, c, n in zip(chunk.index, corner, array.chunk, strict=True))
            encoded[z, y, x] = _encode(part[chunk.core], array.chunk, pack)
    return encoded


def _encode(chunk: NDArray[Any], shape: Zyx, pack: Callable[[Data], bytes]) -> bytes:
    """Encode a chunk as it is stored."""
    if chunk.shape != shape:
        pad = [(0, full - n) for n, full in zip(chunk.shape, shape, strict=True)]
        chunk = np.pad(chunk, pad)
    packed = pack(np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<")).data)
    checksum: int = google_crc32c.value(packed)
    return packed + checksum.to_bytes(CHECKSUM, "little")


def write_shard(array: StoredArray, index: Zyx, chunks: Mapping[Zyx, bytes]) -> Callable[[], None]:
    """Begin to write a shard, completely or not at all; one without chunks is not written.

    Parameters
    ----------
    array : made by `volseg.storage.arrays.create_array`
    index : of the shard in the array
    chunks : by their position in the shard, from `encode_chunks`

    Returns
    -------
    callable
        Waits until the shard is durable. It raises `StorageError` if it cannot be written: a full
        disk, no permission.
    """
    if not chunks:
        return lambda: None
    z, y, x = (s // c for s, c in zip(array.shard, array.chunk, strict=True))
    table = np.full((z, y, x, 2), ABSENT, "<u8")
    offset = 0
    for position, content in chunks.items():
        table[position] = offset, len(content)
        offset += len(content)
    packed = table.tobytes()
    checksum = google_crc32c.value(packed).to_bytes(4, "little")
    key = "c/" + "/".join(map(str, index))
    writing = _folder(array.path).write(key, b"".join([*chunks.values(), packed, checksum]))

    def wait() -> None:
        try:
            writing.result()
        except (ValueError, OSError, RuntimeError) as error:
            why = reason(array.path, error)
            raise StorageError(f"cannot write {array.path / key}: {why}") from error

    return wait


@lru_cache(maxsize=64)
def _folder(path: Path) -> ts.KvStore:
    spec = kvstore_spec(path)
    return ts.KvStore.open({**spec, "path": f"{spec['path'].rstrip('/')}/"}).result()


def stores_chunks(array: StoredArray) -> bool:
    """Tell whether an array is of the form that `create_array` gives: `ChunkReader` reads it.

    One request for each chunk would be slow where each takes its time, so remote arrays are not.
    """
    return bool(array.compression and array.leading == 0 and as_remote(array.path) is None)


def stored_bytes(array: StoredArray, region: Roi) -> int:
    """Count the bytes of the shards that a region of an array that `stores_chunks` touches."""
    total = 0
    for shard in Grid(array.shape, array.shard).blocks(region):
        with suppress(OSError):  # most often there is none; else reading it says so
            total += _shard_path(array, shard.index).stat().st_size
    return total


class ChunkReader:
    """Reads boxes that lie in one chunk each, of an array that `stores_chunks`; for one thread.

    Parameters
    ----------
    array : StoredArray
    """

    def __init__(self, array: StoredArray) -> None:
        self.array = array
        z, y, x = (s // c for s, c in zip(array.shard, array.chunk, strict=True))
        self._counts = z, y, x
        self._shards: dict[Zyx, _Shard | None] = {}
        self._chunk: Zyx | None = None
        self._decoded: NDArray[Any] | None = None
        self._dtype = array.dtype.newbyteorder("<")
        size = math.prod(array.chunk) * array.dtype.itemsize
        self._unpack = unpacker(array.compression, size)

    def __call__(self, box: Roi) -> NDArray[Any] | None:
        """Read a box; None if all of its chunk is 0.

        Raises
        ------
        StorageError
            If the chunk is damaged or cannot be read.
        """
        z, y, x = box
        depth, height, width = self.array.chunk
        chunk = z.start // depth, y.start // height, x.start // width
        if chunk != self._chunk:
            self._chunk = self._decoded = None
            try:
                self._decoded = self._decode(chunk)
            except (OSError, ValueError) as error:
                where = f"{self.array.path} at {describe(box)}"
                raise StorageError(f"cannot read {where}: {error}") from error
            self._chunk = chunk
        if self._decoded is None:
            return None
        top, left = chunk[1] * height, chunk[2] * width
        return self._decoded[
            z.start - chunk[0] * depth : z.stop - chunk[0] * depth,
            y.start - top : y.stop - top,
            x.start - left : x.stop - left,
        ]

    def _decode(self, chunk: Zyx) -> NDArray[Any] | None:
        depth, height, width = self._counts
        i, j, k = chunk[0] // depth, chunk[1] // height, chunk[2] // width
        if (i, j, k) not in self._shards:
            if len(self._shards) == min(ROW // self.array.shard[2] + 2, MOST_OPEN):
                del self._shards[next(iter(self._shards))]
            self._shards[i, j, k] = _find_shard(_shard_path(self.array, (i, j, k)), self._counts)
        shard = self._shards[i, j, k]
        row = chunk[0] % depth * height + chunk[1] % height
        packed = None if shard is None else shard.read(row * width + chunk[2] % width)
        if packed is None:
            return None
        return np.frombuffer(self._unpack(packed), self._dtype).reshape(self.array.chunk)


class _Shard:
    """A file that is open, and where its chunks are.

    Parameters
    ----------
    file : descriptor, closed with the shard
    size : of the file
    table : offset and length of each chunk, in raster order
    """

    def __init__(self, file: int, size: int, table: list[list[int]]) -> None:
        self._file, self._size, self._table = file, size, table
        self._ahead, self._start = b"", 0
        finalize(self, os.close, file)

    def read(self, chunk: int) -> memoryview | None:
        """Read a chunk, by its number; None if it is not stored. Small ones are read together."""
        offset, length = self._table[chunk]
        if offset == ABSENT:
            return None
        if offset + length > self._size:
            raise ValueError("its index points beyond it: the shard is damaged")
        if not self._start <= offset <= offset + length <= self._start + len(self._ahead):
            self._ahead = os.pread(self._file, max(length, READ_AHEAD), offset)
            self._start = offset
        first = offset - self._start
        return _checked(self._ahead[first : first + length])


def _shard_path(array: StoredArray, index: Zyx) -> Path:
    return array.path / "c" / "/".join(map(str, index))


def _find_shard(path: Path, counts: Zyx) -> _Shard | None:
    """Open a shard; None if there is none, so that all of it is 0."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(file).st_size
        start = size - 16 * math.prod(counts) - CHECKSUM
        packed = _checked(os.pread(file, size - start, start) if start >= 0 else b"")
    except BaseException:
        os.close(file)
        raise
    table = np.frombuffer(packed, "<u8").reshape(-1, 2).tolist()
    return _Shard(file, size, table)


def _checked(content: bytes) -> memoryview:
    """Check a part of a shard, and take off its checksum."""
    if google_crc32c.value(content) != RESIDUE:
        raise ValueError("a checksum is wrong: the shard is damaged, or cut off")
    return memoryview(content)[:-CHECKSUM]
