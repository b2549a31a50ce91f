"""Histograms of intensities."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.voxels.compilation import compiled

LANES = 4
"""Histograms that neighbours are counted in by turns: no count waits for the one before it."""

PIECE = 1 << 20
"""Codes that numpy counts at once: it makes 8 bytes of each, and holds Python's lock."""

_few = [1 << 29]
"""Codes that are still counted without numba in this process; loading it takes as long."""


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
    values : same length, ascending; the intensity that each count stands for.

    Examples
    --------
    >>> counts, values = count_intensities(np.array([-3, 5, 5], np.int16))
    >>> [(int(v), int(c)) for v, c in zip(values[counts > 0], counts[counts > 0])]
    [(-3, 1), (5, 2)]
    """
    counts, kind = count_codes(intensity_codes(raw)), raw.dtype.name
    if kind == "float32":
        return counts, _bfloat16_values()
    first = -32768 if kind == "int16" else 0
    return counts, np.arange(first, first + len(counts))


def intensity_codes(raw: NDArray[Any]) -> NDArray[Any]:
    """Find the place of each intensity among those that `count_intensities` counts.

    Examples
    --------
    >>> intensity_codes(np.array([-32768, 0], np.int16))
    array([    0, 32768], dtype=uint16)
    """
    flat = np.ascontiguousarray(raw).reshape(-1)
    kind = raw.dtype.name
    if kind in {"uint8", "uint16"}:
        return flat
    if kind == "int16":
        return flat.view(np.uint16) ^ np.uint16(0x8000)
    # The upper half of a float32 is a bfloat16; flipping bits makes its order that of integers.
    upper = (flat.view(np.uint32) >> 16).astype(np.uint16)
    return np.where(upper & 0x8000, ~upper, upper | 0x8000).astype(np.uint16)


def count_codes(codes: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.int64]:
    """Count how often each code occurs, by numba once that is worth loading."""
    if "numba" not in sys.modules and len(codes) <= _few[0]:
        _few[0] -= len(codes)
        return _count_in_numpy(codes)
    counts = np.zeros((LANES, 1 << 8 * codes.itemsize), np.int64)
    _count(codes, counts)
    total: NDArray[np.int64] = counts.sum(axis=0)
    return total


def _count_in_numpy(codes: NDArray[Any]) -> NDArray[np.int64]:
    """Count codes, those of one byte in pairs: there are half as many of them."""
    size = 1 << 8 * codes.itemsize
    if codes.itemsize == 1:
        odd, pairs = codes[len(codes) // 2 * 2 :], codes[: len(codes) // 2 * 2].view(np.uint16)
        counted = _count_in_numpy(pairs).reshape(size, size)
        both: NDArray[np.int64] = counted.sum(axis=0) + counted.sum(axis=1)
        return both + np.bincount(odd, minlength=size)
    counts = np.zeros(size, np.int64)
    for start in range(0, len(codes), PIECE):
        counts += np.bincount(codes[start : start + PIECE], minlength=size)
    return counts


@compiled
def _count(codes: NDArray[Any], counts: NDArray[np.int64]) -> None:
    whole = len(codes) // LANES * LANES
    for k in range(0, whole, LANES):
        counts[0, codes[k]] += 1
        counts[1, codes[k + 1]] += 1
        counts[2, codes[k + 2]] += 1
        counts[3, codes[k + 3]] += 1
    for k in range(whole, len(codes)):
        counts[0, codes[k]] += 1


def _bfloat16_values() -> NDArray[np.float32]:
    codes = np.arange(65536, dtype=np.uint16)
    upper = np.where(codes & 0x8000, codes & 0x7FFF, ~codes).astype(np.uint16)
    # The middle of the values that share the upper half.
    return ((upper.astype(np.uint32) << 16) | 0x8000).view(np.float32)
