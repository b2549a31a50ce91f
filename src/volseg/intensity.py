"""Intensities: the one mapping from stored values to what networks see."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Floats

COUNTED_AT_ONCE = 1 << 20
NARROW = 1 << 15


def normalise(raw: NDArray[Any], window: tuple[float, float]) -> Floats:
    """Map intensities linearly so that the window becomes -1..1; nothing is clipped.

    Parameters
    ----------
    raw : any real type, any shape
    window : (low, high)
        Intensities, frozen once per volume; ``low < high``.

    Returns
    -------
    float32, shape of ``raw``

    Examples
    --------
    >>> normalise(np.array([10, 20, 40]), (10, 30))
    array([-1.,  0.,  2.], dtype=float32)
    """
    low, high = window
    return (raw.astype(np.float32) - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1)


def count_intensities(raw: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Count how often each intensity occurs.

    Parameters
    ----------
    raw : uint8, uint16, int16 or float32, any shape
        float32 must be finite; it is counted at the precision of bfloat16 (8 bits of mantissa).

    Returns
    -------
    counts : int64, shape (256,) for uint8, otherwise (65536,)
        Counts of different arrays of one type may be added.
    values : same length, ascending
        The intensity that each count stands for.

    Examples
    --------
    >>> counts, values = count_intensities(np.array([-3, 5, 5], np.int16))
    >>> [(int(v), int(c)) for v, c in zip(values[counts > 0], counts[counts > 0])]
    [(-3, 1), (5, 2)]
    """
    flat = np.ascontiguousarray(raw).reshape(-1)
    kind = raw.dtype.name
    if kind == "uint8":
        return _count_codes(flat), np.arange(256)
    if kind == "uint16":
        return _count_codes(flat), np.arange(65536)
    if kind == "int16":
        codes = flat.view(np.uint16) ^ np.uint16(0x8000)
        return _count_codes(codes), np.arange(-32768, 32768)
    # The upper half of a float32 is a bfloat16; flipping bits makes its order that of integers.
    upper = (flat.view(np.uint32) >> 16).astype(np.uint16)
    codes = np.where(upper & 0x8000, ~upper, upper | 0x8000).astype(np.uint16)
    return _count_codes(codes), _bfloat16_values()


def _count_codes(codes: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.int64]:
    """Count how often each code occurs; other threads run meanwhile, unlike in `numpy.bincount`.

    Arrow finds the most frequent values by counting, where they span no more than NARROW: three
    to five times as fast as the alternative, a radix sort of parts in cache.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    bins = np.arange(1 << 8 * codes.itemsize, dtype=codes.dtype)
    counts = np.zeros(len(bins), np.int64)
    if codes.size and int(codes.max()) - int(codes.min()) < NARROW:
        modes = pc.mode(pa.array(codes), n=len(bins))
        counts[modes.field("mode").to_numpy()] = modes.field("count").to_numpy()
        return counts
    for start in range(0, len(codes), COUNTED_AT_ONCE):
        # stable is radix; the default needs AVX-512, without which it is 16 times slower
        part = np.sort(codes[start : start + COUNTED_AT_ONCE], kind="stable")
        counts += np.diff(np.searchsorted(part, bins), append=len(part))
    return counts


def _bfloat16_values() -> NDArray[np.float32]:
    codes = np.arange(65536, dtype=np.uint16)
    upper = np.where(codes & 0x8000, codes & 0x7FFF, ~codes).astype(np.uint16)
    # The middle of the values that share the upper half.
    return ((upper.astype(np.uint32) << 16) | 0x8000).view(np.float32)
