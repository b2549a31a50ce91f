"""Intensities: the one mapping from stored values to what networks see, frozen for a volume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError
from volseg.types import Floats

COUNTED_AT_ONCE = 1 << 20
NARROW = 1 << 15
LOOKED_UP_AT_ONCE = 1 << 18
MOST_KNOTS = 4096
"""Of a cumulative histogram: between them it rises by 1/4096 at most, unless a value does."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to intensities before a network sees them; part of a model's card.

    Attributes
    ----------
    percentiles : (low, high), of all voxels of a volume; they become 0 and 1.
    gain, gamma : then V_out = gain * V_in ** gamma, where they are not 1; V_in below 0 becomes 0.
    equalise : then each intensity becomes the part of all voxels that are no brighter.

    In the end 0..1 becomes -1..1.

    Source: Cao, Wang and Zhou, "Attention U-net: Mitochondria Segmentation", eq. 1, who take a
    gamma of 0.5 and then equalise.
    """

    percentiles: tuple[float, float] = (1.0, 99.0)
    gain: float = 1.0
    gamma: float = 1.0
    equalise: bool = False

    def __post_init__(self) -> None:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ParameterError(f"percentiles must rise within 0..100, found {self.percentiles}")
        if not (0 < self.gain < np.inf and 0 < self.gamma < np.inf):
            raise ParameterError(
                f"gain and gamma must be positive, found {self.gain} and {self.gamma}"
            )


@dataclass(frozen=True)
class Tone:
    """`Preprocessing`, with what it needs to know of a volume.

    Attributes
    ----------
    window : intensities that become 0 and 1.
    gain, gamma : see `Preprocessing`.
    ranks : None, or intensities, ascending, and the part of all voxels up to each; linear between.
    """

    window: tuple[float, float]
    gain: float = 1.0
    gamma: float = 1.0
    ranks: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def linear(self) -> bool:
        """Whether the window is all there is to it."""
        return self.gain == 1 and self.gamma == 1 and self.ranks is None

    def __call__(self, raw: NDArray[Any]) -> Floats:
        """Map stored intensities to what the network sees, float32.

        Integers of up to 16 bits are looked up, unless the mapping is linear.
        """
        if self.linear or raw.dtype.kind not in "ui" or raw.itemsize > 2:
            return self._compute(raw)
        table, flat = _table(self, raw.dtype.name), np.ascontiguousarray(raw).reshape(-1)
        found = np.empty(flat.shape, np.float32)
        codes = flat.view(f"u{raw.itemsize}")
        # indices are eight bytes each, whatever they index with
        for start in range(0, len(codes), LOOKED_UP_AT_ONCE):
            part = slice(start, start + LOOKED_UP_AT_ONCE)
            np.take(table, codes[part], out=found[part])
        return found.reshape(raw.shape)

    def _compute(self, raw: NDArray[Any]) -> Floats:
        if self.linear:
            return normalise(raw, self.window)
        if self.ranks is not None:
            # of what only rises with intensity, nothing is left when it is equalised
            level = np.interp(raw, *self.ranks)
        else:
            low, high = self.window
            level = (np.asarray(raw, np.float64) - low) / (high - low)
            level = self.gain * np.maximum(level, 0) ** self.gamma
        return np.asarray(2 * level - 1, np.float32)


@lru_cache(maxsize=4)
def _table(tone: Tone, dtype: str) -> Floats:
    """Map every value of an integer type, in the order of its bits."""
    kind = np.dtype(dtype)
    codes = np.arange(1 << 8 * kind.itemsize).astype(f"u{kind.itemsize}")
    return tone._compute(codes.view(kind))


def find_tone(preprocessing: Preprocessing, counts: NDArray[Any], values: NDArray[Any]) -> Tone:
    """Find what a preprocessing does to a volume.

    Parameters
    ----------
    preprocessing : Preprocessing
    counts, values : of each intensity that occurs, ascending

    Examples
    --------
    >>> values, counts = np.array([10, 20, 30]), np.array([2, 1, 1])
    >>> find_tone(Preprocessing((0, 100)), counts, values).window
    (10.0, 30.0)
    >>> find_tone(Preprocessing(equalise=True), counts, values)(np.array([10, 20, 30]))
    array([0. , 0.5, 1. ], dtype=float32)
    """
    share = np.cumsum(np.asarray(counts, float))
    at = [np.searchsorted(share, p / 100 * share[-1]) for p in preprocessing.percentiles]
    first, last = (float(values[min(i, len(values) - 1)]) for i in at)
    window = first, last if last > first else first + 1
    ranks = None
    if preprocessing.equalise:
        share /= share[-1]
        # of values that are close, the last one's rank is that of all
        kept = np.append(np.floor(share[:-1] * MOST_KNOTS) < np.floor(share[1:] * MOST_KNOTS), True)
        kept |= len(share) <= MOST_KNOTS
        kept[0] = True
        ranks = tuple(map(float, np.asarray(values)[kept])), tuple(map(float, share[kept]))
    return Tone(window, preprocessing.gain, preprocessing.gamma, ranks)


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
