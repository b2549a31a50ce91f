"""Frames of Zstandard that say nothing of their size, or hold far more than they take."""

from __future__ import annotations

HEAD = bytes.fromhex("28b52ffd0038")  # no size of the content, a window of 128 kB
BLOCK = 1 << 17


def zstd_bomb(size: int) -> bytes:
    """Say in four bytes for each 128 kB that all of them are 0; the frame does not say its size."""
    blocks = [(BLOCK << 3 | 1 << 1).to_bytes(3, "little") + b"\0"] * (size // BLOCK)
    return HEAD + b"".join(blocks) + (1).to_bytes(3, "little")


STREAMED = HEAD + (1000 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"a"
"""1000 times an a, as a program writes that does not know how many will follow."""
