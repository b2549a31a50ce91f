"""How what volseg stores is compressed: by Zstandard, and labels by LZ4, in frames of Blosc."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import imagecodecs
import zstandard

Data: TypeAlias = bytes | memoryview
ZSTD, LZ4 = "zstd", "lz4"
LEVEL = 1
"""Of Zstandard."""
BLOSC_LEVEL = 5
"""Of Blosc: how large a frame's blocks are, and how hard LZ4 looks."""
HEADER = 16
"""Bytes at the beginning of a frame of Blosc: its sizes stand in the last twelve."""
Decoder = zstandard.ZstdDecompressor
"""Kept by who unpacks much, in one thread: to make one takes as long as to unpack 50 kB."""
Encoder = zstandard.ZstdCompressor


def pack(content: Data, encoder: Encoder | None = None) -> bytes:
    """Compress bytes, or the contiguous memory of an array."""
    return (encoder or Encoder(LEVEL)).compress(content)


def unpack(packed: Data, size: int | None = None, decoder: Decoder | None = None) -> bytes:
    """Decompress.

    Parameters
    ----------
    packed : one frame
    size : of what it holds, if that is known; memory is made for no more, whatever it says itself

    Raises
    ------
    ValueError
        If it is damaged, or holds something of another size.
    """
    try:
        if size is not None and zstandard.frame_content_size(packed) not in (-1, size):
            raise ValueError(f"it holds something else than {size} bytes")
        content = (decoder or Decoder()).decompress(
            packed, max_output_size=size or 0, allow_extra_data=False
        )
    except (zstandard.ZstdError, MemoryError) as error:
        raise ValueError(f"it cannot be decompressed: {error}") from error
    if size is not None and len(content) != size:
        raise ValueError(f"it holds {len(content)} bytes, not {size}")
    return content


def packer(compression: str | None, itemsize: int) -> Callable[[Data], bytes]:
    """Make what compresses chunks, in one thread.

    Parameters
    ----------
    compression : `ZSTD` or `LZ4`
    itemsize : bytes of a voxel

    Raises
    ------
    ValueError
        If the compression is none of volseg's.
    """
    _check(compression)
    if compression == LZ4:
        return partial(_pack_lz4, itemsize=itemsize)
    return partial(pack, encoder=Encoder(LEVEL))


def unpacker(compression: str | None, size: int) -> Callable[[Data], bytes]:
    """Make what decompresses chunks of a known size, in one thread.

    It raises `ValueError` for what is damaged, or holds something of another size; so does this for
    a compression that is none of volseg's.
    """
    _check(compression)
    if compression == LZ4:
        return partial(_unpack_lz4, size=size)
    return partial(unpack, size=size, decoder=Decoder())


def _check(compression: str | None) -> None:
    if compression not in (ZSTD, LZ4):
        raise ValueError(f"chunks are compressed by {ZSTD} or {LZ4}, found {compression}")


def _pack_lz4(content: Any, itemsize: int) -> bytes:
    packed = imagecodecs.blosc_encode(
        content,
        level=BLOSC_LEVEL,
        compressor="lz4",
        shuffle="noshuffle",
        typesize=itemsize,
        numthreads=1,
    )
    return bytes(packed)


def _unpack_lz4(packed: Any, size: int) -> bytes:
    # what it says of itself decides how much is read and written
    found, _, length = (int.from_bytes(packed[k : k + 4], "little") for k in (4, 8, 12))
    if len(packed) < HEADER or (found, length) != (size, len(packed)):
        raise ValueError(f"it holds something else than {size} bytes")
    try:
        return bytes(imagecodecs.blosc_decode(packed, numthreads=1))
    except imagecodecs.BloscError as error:
        raise ValueError(f"it cannot be decompressed: {error}") from error
