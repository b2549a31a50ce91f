"""Compress and decompress chunks that volseg itself stores, and its scratch, by numcodecs.

Zstandard, and for labels LZ4 in frames of Blosc. The size of what is decompressed is known
beforehand, so no memory is made for more, whatever a damaged frame says of itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd

from volseg.errors import StorageError

blosc.use_threads = False  # its threads would lock out other blocks, and blocks are parallel
Data: TypeAlias = bytes | memoryview
ZSTD, LZ4 = "zstd", "lz4"
LEVEL = 1
"""Of Zstandard."""
BLOSC_LEVEL = 5
"""Of Blosc: how large a frame's blocks are, and how hard LZ4 looks."""
HEADER = 16
"""Bytes at the beginning of a frame of Blosc: its sizes stand in the last twelve."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPED = b"\x2a\x4d\x18"
"""The end of what begins a frame that holds nothing."""
ZSTD_BLOCK = 1 << 17
"""Bytes that a block of Zstandard holds at most."""
CHECKSUM = 4
"""Bytes of a CRC-32C."""
RESIDUE = 0x48674BC7
"""The CRC-32C of anything with its own CRC-32C behind it."""


class ChunkError(StorageError, ValueError):
    """A chunk is damaged or claims to hold too much, or its codec is not used."""


def pack(content: Data, *, checked: bool = False) -> bytes:
    """Compress bytes, or the contiguous memory of an array, by Zstandard, maybe with a checksum."""
    return bytes(zstd.compress(content, LEVEL, checked))


def unpack(packed: Data, size: int | None = None) -> Data:
    """Decompress a frame of Zstandard.

    Parameters
    ----------
    size : of what it holds, if that is known; memory is made for no more, whatever it says itself
    """
    claimed = claimed_size(packed)
    if size is not None and claimed not in (None, size):
        raise ChunkError(f"it holds something else than {size} bytes")
    if claimed == 0:
        return b""  # which numcodecs takes for damage
    try:
        if size is None:
            return bytes(zstd.decompress(packed))
        content = np.empty(size, np.uint8)
        zstd.decompress(packed, content)
    except (ValueError, RuntimeError, MemoryError, BufferError) as error:
        raise ChunkError("it cannot be decompressed") from error
    return content.data


def claimed_size(packed: Data) -> int | None:
    """Read from a frame of Zstandard how many bytes it says that it holds, if it does.

    Source: RFC 8878, section 3.1.1.1.

    Examples
    --------
    >>> claimed_size(pack(b"0123456789"))
    10
    """
    return _frame_header(packed, 0)[0]


def most_bytes(packed: Data) -> int:
    """Bound how many bytes frames of Zstandard can hold, from headers, or the number of blocks.

    Examples
    --------
    >>> most_bytes(pack(b"0123456789") * 2)
    20
    """
    total, at = 0, 0
    while at < len(packed):
        if packed[at + 1 : at + 4] == SKIPPED and packed[at] >> 4 == 5:
            at += 8 + int.from_bytes(packed[at + 4 : at + 8], "little")
            continue
        size, blocks = _frame_header(packed, at)
        checked = packed[at + 4] >> 2 & 1
        at, count = _skip_blocks(packed, blocks)
        at += 4 * checked
        total += count * ZSTD_BLOCK if size is None else size
    return total


def _frame_header(packed: Data, start: int) -> tuple[int | None, int]:
    """Read the size of a frame's content, if it is said, and where its blocks begin."""
    head = bytes(packed[start : start + 18])
    if head[:4] != ZSTD_MAGIC or len(head) < 6:
        raise ChunkError("it cannot be decompressed: it is no frame of Zstandard")
    single = head[4] >> 5 & 1
    at = 5 + (not single) + (0, 1, 2, 4)[head[4] & 3]
    length = (single, 2, 4, 8)[head[4] >> 6]
    size = int.from_bytes(head[at : at + length], "little") + (256 if length == 2 else 0)
    return (size if length else None), start + at + length


def _skip_blocks(packed: Data, at: int) -> tuple[int, int]:
    """Find where a frame's blocks end, and how many there are."""
    count, last = 0, False
    while not last:
        head = int.from_bytes(packed[at : at + 3], "little")
        if at + 3 > len(packed):
            raise ChunkError("it cannot be decompressed: it is cut off")
        last, repeated = bool(head & 1), head >> 1 & 3 == 1
        at += 3 + (1 if repeated else head >> 3)
        count += 1
    return at, count


def packer(compression: str | None, itemsize: int) -> Callable[[Data], bytes]:
    """Make what compresses chunks.

    Parameters
    ----------
    compression : `ZSTD` or `LZ4`
    itemsize : bytes of a voxel
    """
    _check(compression)
    return partial(_pack_lz4, itemsize=itemsize) if compression == LZ4 else pack


def unpacker(compression: str | None, size: int) -> Callable[[Data], Data]:
    """Make what decompresses chunks of a known size.

    It raises `ValueError` for what is damaged, or holds something of another size; so does this for
    a compression that is none of volseg's.
    """
    _check(compression)
    return partial(_unpack_lz4 if compression == LZ4 else unpack, size=size)


def _check(compression: str | None) -> None:
    if compression not in (ZSTD, LZ4):
        raise ValueError(f"chunks are compressed by {ZSTD} or {LZ4}, found {compression}")


def _pack_lz4(content: Any, itemsize: int) -> bytes:
    typed = np.frombuffer(content, f"V{itemsize}")
    return bytes(blosc.compress(typed, b"lz4", BLOSC_LEVEL, blosc.NOSHUFFLE))


def _unpack_lz4(packed: Any, size: int) -> Data:
    check_blosc(packed, size, exact=True)
    content = np.empty(size, np.uint8)
    try:
        blosc.decompress(packed, content)
    except RuntimeError as error:
        raise ChunkError("it cannot be decompressed") from error
    return content.data


def check_blosc(packed: Data, most: int, *, exact: bool = False) -> None:
    """Check what a frame of Blosc says of itself, which decides how much is read and written.

    Raises
    ------
    ChunkError
        If it holds more than so many bytes, or another number, or is longer than what there is.
    """
    found, _, length = (int.from_bytes(packed[k : k + 4], "little") for k in (4, 8, 12))
    fits = found == most if exact else found <= most
    if len(packed) < HEADER or length != len(packed) or not fits:
        raise ChunkError(f"it holds something else than {most} bytes")


def seal(content: bytes) -> bytes:
    """Put the CRC-32C of bytes behind them."""
    checksum: int = google_crc32c.value(content)
    return content + checksum.to_bytes(CHECKSUM, "little")


def unseal(content: Data) -> memoryview:
    """Check bytes by the CRC-32C behind them, and take it off."""
    # this library takes no other buffer than bytes
    if google_crc32c.value(bytes(content)) != RESIDUE:
        raise ChunkError("a checksum is wrong: the shard is damaged, or cut off")
    return memoryview(content)[:-CHECKSUM]
