"""Describe the arrays that volseg creates, and write their shards: its own code, on numcodecs.

They hold little-endian bytes, compressed in one of two ways, with a CRC-32C for each chunk, in
shards of which the index stands at the end. Source: Zarr v3, ``sharding_indexed``. A shard is
written once, whole, and to the same bytes each time; `volseg.storage.shard_reading` reads them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec
from zarr.codecs.sharding import ShardingCodecIndexLocation

from volseg.geometry.grid import Grid, shift
from volseg.storage.chunks import BLOSC_LEVEL, LEVEL, LZ4, ZSTD, packer, seal
from volseg.storage.files import remove_file, write_file
from volseg.types import Roi, Zyx, zyx

ABSENT = 2**64 - 1
"""Stands in a shard's index for a chunk that is not stored, because all of it is 0."""
SMALL = 1 << 20
"""Bytes below which other threads take longer to begin than the work takes."""
KEYS = ({"name": "default"}, {"name": "default", "configuration": {"separator": "/"}})
"""Encodings of the names of shards, which mean the same."""


@dataclass(frozen=True)
class ArrayForm:
    """An array in storage, seen as (z, y, x).

    Attributes
    ----------
    shape, dtype, chunk, shard : as seen; without sharding the shard is the chunk.
    leading : number of leading axes of length one that are hidden.
    compression : of the chunks, in an array of the form that volseg writes; else None.
    """

    path: Path
    shape: Zyx
    dtype: np.dtype[Any]
    chunk: Zyx
    shard: Zyx
    leading: int = 0
    compression: str | None = None


def codecs_of(compression: str, itemsize: int) -> list[Any]:
    """List the codecs of the chunks of an array that is to be created.

    Parameters
    ----------
    itemsize : bytes of a voxel
    """
    if compression == LZ4:
        packed: Any = BloscCodec(
            cname="lz4", clevel=BLOSC_LEVEL, shuffle="noshuffle", typesize=itemsize, blocksize=0
        )
    else:
        packed = ZstdCodec(level=LEVEL, checksum=False)
    return [packed, Crc32cCodec()]


def find_compression(metadata: Any) -> str | None:
    """Find how chunks are compressed in an array of the form that volseg creates.

    Parameters
    ----------
    metadata : of the array, by zarr-python

    Returns
    -------
    None for an array of any other form.
    """
    if metadata.zarr_format != 3 or len(metadata.codecs) != 1:
        return None
    (sharding,) = metadata.codecs
    keys = metadata.chunk_key_encoding.to_dict()
    if (
        not isinstance(sharding, ShardingCodec)
        or sharding.index_location != ShardingCodecIndexLocation.end
        or not _are(sharding.index_codecs, BytesCodec, Crc32cCodec)
        or metadata.fill_value
        or keys not in KEYS
        or metadata.storage_transformers
    ):
        return None
    if _are(sharding.codecs, BytesCodec, ZstdCodec, Crc32cCodec):
        return ZSTD
    return LZ4 if _are(sharding.codecs, BytesCodec, BloscCodec, Crc32cCodec) else None


def _are(codecs: Sequence[Any], *kinds: type) -> bool:
    """Tell whether codecs are of these kinds; numbers of one byte have no order."""
    big = [c for c in codecs if isinstance(c, BytesCodec) and c.endian and c.endian.value == "big"]
    return [type(c) for c in codecs] == list(kinds) and not big


def chunks_per_shard(array: ArrayForm) -> Zyx:
    """Count a shard's chunks along each axis."""
    return zyx(s // c for s, c in zip(array.shard, array.chunk, strict=True))


def shard_path(array: ArrayForm, index: Zyx) -> Path:
    """Find the file or object of a shard."""
    return array.path.joinpath("c", *map(str, index))


def encode_chunks(part: NDArray[Any], array: ArrayForm, corner: Sequence[int]) -> dict[Zyx, bytes]:
    """Encode a part of a shard, by the positions of its chunks in the shard; none that is all 0.

    Parameters
    ----------
    part : (z, y, x); less than whole chunks at the array's border, where zeros fill the rest
    array : for which, made by `volseg.storage.arrays.create_array`
    corner : where in the shard the part begins, whole chunks
    """
    pack = packer(array.compression, array.dtype.itemsize)
    encoded, dtype = {}, array.dtype.newbyteorder("<")
    bits = np.dtype(f"<u{dtype.itemsize}")
    for chunk in Grid(zyx(part.shape), array.chunk).blocks():
        voxels = np.ascontiguousarray(part[chunk.core], dtype)
        if voxels.view(bits).max():  # as bits: negative numbers and -0.0 are not 0 either
            z, y, x = (i + c // n for i, c, n in zip(chunk.index, corner, array.chunk, strict=True))
            encoded[z, y, x] = seal(pack(_whole(voxels, array.chunk).data))
    return encoded


def _whole(voxels: NDArray[Any], shape: Zyx) -> NDArray[Any]:
    """Fill a chunk with zeros, where it reaches beyond the array."""
    if voxels.shape == shape:
        return voxels
    return np.pad(voxels, [(0, n - m) for m, n in zip(voxels.shape, shape, strict=True)])


def write_shard(array: ArrayForm, index: Zyx, chunks: Mapping[Zyx, bytes]) -> Callable[[], None]:
    """Begin to write a shard, completely or not at all; one without chunks is removed.

    Parameters
    ----------
    chunks : by their position in the shard, from `encode_chunks`

    Returns
    -------
    callable
        Waits until the shard is durable. It raises `StorageError` if it cannot be written: a full
        disk, no permission.
    """
    path = shard_path(array, index)
    if not chunks:
        return later(remove_file, path)
    table = np.full((*chunks_per_shard(array), 2), ABSENT, "<u8")
    offset = 0
    for position, content in chunks.items():
        table[position] = offset, len(content)
        offset += len(content)
    parts = (*chunks.values(), seal(table.tobytes()))
    return later(write_file, path, *parts)


def write_box(array: ArrayForm, box: Roi, block: NDArray[Any]) -> None:
    """Write whole shards; each is encoded by several threads, while the one before is written."""
    origin = [s.start for s in box]
    depth = array.chunk[0]
    # all are waited for, whatever fails: nothing is written behind the back of who goes on
    with ExitStack() as writing:
        for shard in Grid(array.shape, array.shard).blocks(box):
            part = block[shift(shard.core, origin)]
            slabs = [part[z : z + depth] for z in range(0, len(part), depth)]
            corners = [(z * depth, 0, 0) for z in range(len(slabs))]
            chunks: dict[Zyx, bytes] = {}
            arrays = [array] * len(slabs)
            for found in spread(encode_chunks, slabs, arrays, corners, size=part.nbytes):
                chunks |= found
            writing.callback(write_shard(array, shard.index, chunks))


def spread(work: Callable[..., Any], *lists: Sequence[Any], size: int) -> Iterator[Any]:
    """Do work on the members of lists, by several threads if there are bytes enough."""
    return map(work, *lists) if size < SMALL else _threads().map(work, *lists)


def later(work: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    """Begin work; what is returned waits for its end, and raises what it raised."""
    return _threads().submit(work, *arguments).result


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(4, os.cpu_count() or 1), "volseg-chunks")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # no thread lives on in a child
