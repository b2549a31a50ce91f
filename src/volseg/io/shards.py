"""Read and write shards chunk by chunk, for those who work on a block piece by piece.

What `volseg.io.arrays.create_array` creates, so one codec chain only: little-endian bytes, zstd and
a CRC-32C for each chunk; offsets and lengths of the chunks with a CRC-32C at the end of the shard.
A block of labels is made from its runs, and measured, faster by far while what is worked on stays
in the processor's cache. Source: Zarr v3, ``sharding_indexed``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import tensorstore as ts
from numcodecs import zstd
from numpy.typing import NDArray

from volseg.blocks import Grid, shift
from volseg.errors import StorageError
from volseg.io.arrays import COMPRESSION_LEVEL, StoredArray, describe
from volseg.io.attributes import parse_json
from volseg.io.locations import as_remote, kvstore_spec, reason
from volseg.types import Roi, Zyx

ABSENT = 2**64 - 1
"""Stands in a shard's index for a chunk that is not stored, because all of it is 0."""

CHECKSUM = 4
"""Bytes of a CRC-32C."""
INNER, INDEX = ("bytes", "zstd", "crc32c"), ("bytes", "crc32c")
"""The codecs of chunks, and of a shard's index."""
KEYS = ({"name": "default"}, {"name": "default", "configuration": {"separator": "/"}})


def encode_chunk(chunk: NDArray[Any], shape: Zyx) -> bytes | None:
    """Encode a chunk as it is stored; None for one that need not be.

    Parameters
    ----------
    chunk : shape up to ``shape``, less at the array's border, where zeros fill the rest
    shape : of a chunk
    """
    if not chunk.max():
        return None
    if chunk.shape != shape:
        pad = [(0, full - n) for n, full in zip(chunk.shape, shape, strict=True)]
        chunk = np.pad(chunk, pad)
    little = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<"))
    packed = bytes(zstd.compress(little, COMPRESSION_LEVEL))
    checksum: int = google_crc32c.value(packed)
    return packed + checksum.to_bytes(4, "little")


def encode_chunks(part: NDArray[Any], shape: Zyx, corner: Sequence[int]) -> dict[Zyx, bytes]:
    """Encode a part of a shard, by the positions of its chunks in the shard.

    Parameters
    ----------
    part : (z, y, x)
    shape : of a chunk
    corner : where in the shard the part begins, whole chunks
    """
    encoded = {}
    for chunk in Grid((part.shape[0], part.shape[1], part.shape[2]), shape).blocks():
        content = encode_chunk(part[chunk.core], shape)
        if content is not None:
            z, y, x = (i + c // n for i, c, n in zip(chunk.index, corner, shape, strict=True))
            encoded[z, y, x] = content
    return encoded


def write_shard(array: StoredArray, index: Zyx, chunks: Mapping[Zyx, bytes]) -> Callable[[], None]:
    """Begin to write a shard, completely or not at all; one without chunks is not written.

    Parameters
    ----------
    array : made by `volseg.io.arrays.create_array`
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
    if as_remote(array.path) is not None:
        return False
    try:
        found = parse_json((array.path / "zarr.json").read_text(encoding="utf-8"))
        (sharding,) = found["codecs"]
        stored = sharding["configuration"]
        return (
            sharding["name"] == "sharding_indexed"
            and _are(stored["codecs"], INNER)
            and _are(stored["index_codecs"], INDEX)
            and stored.get("index_location", "end") == "end"
            and not found["fill_value"]
            and found["chunk_key_encoding"] in KEYS
            and not found.get("storage_transformers")
            and array.leading == 0
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _are(codecs: Sequence[Any], names: Sequence[str]) -> bool:
    """Tell whether codecs are those of these names; numbers of one byte have no order."""
    orders = {c.get("configuration", {}).get("endian", "little") for c in codecs}
    return [c["name"] for c in codecs] == list(names) and orders == {"little"}


class ChunkReader:
    """Reads boxes that lie in one chunk each, of an array that `stores_chunks`; for one thread.

    Parameters
    ----------
    array : StoredArray
    """

    def __init__(self, array: StoredArray) -> None:
        self.array = array
        self._shards: dict[Zyx, _Shard | None] = {}
        self._chunk: Zyx | None = None
        self._decoded: NDArray[Any] | None = None
        self._space = np.empty(array.chunk, array.dtype.newbyteorder("<"))

    def __call__(self, box: Roi) -> NDArray[Any] | None:
        """Read a box; None if all of its chunk is 0. The next call may overwrite it.

        Raises
        ------
        StorageError
            If the chunk is damaged or cannot be read.
        """
        array = self.array
        z, y, x = (s.start // n for s, n in zip(box, array.chunk, strict=True))
        if (z, y, x) != self._chunk:
            try:
                self._decoded = self._decode((z, y, x))
            except (OSError, ValueError, RuntimeError) as error:
                where = f"{array.path} at {describe(box)}"
                raise StorageError(f"cannot read {where}: {error}") from error
            self._chunk = z, y, x
        if self._decoded is None:
            return None
        corner = [c * n for c, n in zip((z, y, x), array.chunk, strict=True)]
        return self._decoded[shift(box, corner)]

    def _decode(self, chunk: Zyx) -> NDArray[Any] | None:
        array = self.array
        z, y, x = (s // c for s, c in zip(array.shard, array.chunk, strict=True))
        index = chunk[0] // z, chunk[1] // y, chunk[2] // x
        if index not in self._shards:
            path = array.path / "c" / "/".join(map(str, index))
            self._shards[index] = _find_shard(path, (z, y, x))
        shard = self._shards[index]
        if shard is None:
            return None
        offset, length = shard.table[chunk[0] % z, chunk[1] % y, chunk[2] % x].tolist()
        if offset == ABSENT:
            return None
        self._chunk = None  # until what stands there is whole again
        with FileIO(shard.path) as file:
            zstd.decompress(_read_checked(file, offset, length), self._space)
        return self._space


@dataclass(frozen=True)
class _Shard:
    """A file, and where its chunks are: offsets and lengths."""

    path: str
    table: NDArray[np.uint64]


def _find_shard(path: Path, counts: Zyx) -> _Shard | None:
    """Find a shard; None if there is none, so that all of it is 0."""
    size = 16 * math.prod(counts) + CHECKSUM
    try:
        with path.open("rb", buffering=0) as file:
            packed = _read_checked(file, path.stat().st_size - size, size)
    except FileNotFoundError:
        return None
    return _Shard(str(path), np.frombuffer(packed, "<u8").reshape(*counts, 2))


def _read_checked(file: FileIO, offset: int, length: int) -> bytes:
    """Read a part of a shard, without its checksum."""
    if offset >= 0:
        file.seek(offset)
        content = file.read(length)
        checksum: int = google_crc32c.value(content[:-CHECKSUM])
        if content[-CHECKSUM:] == checksum.to_bytes(CHECKSUM, "little"):
            return content[:-CHECKSUM]
    raise ValueError("a checksum is wrong: the shard is damaged, or cut off")
