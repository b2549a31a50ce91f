"""Zstandard: how everything that volseg stores itself is compressed."""

from __future__ import annotations

from typing import TypeAlias

import zstandard

Data: TypeAlias = bytes | memoryview
LEVEL = 1
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
