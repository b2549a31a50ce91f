"""Intensities: the one mapping from stored values to what networks see, frozen for a volume."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError
from volseg.types import Floats

LOOKED_UP_AT_ONCE = 1 << 18
MOST_KNOTS = 4096
"""Of a cumulative histogram: between them it rises by 1/4096 at most, unless a value does."""


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of intensities for a network; part of a model's card.

    Attributes
    ----------
    percentiles : (low, high), of all voxels of a volume; they become 0 and 1.
    gain, gamma : then V_out = gain * V_in ** gamma, where they are not 1; V_in below 0 becomes 0.
    equalise : then each intensity becomes the part of all voxels that are no brighter: of all the
        volume (True), or of their ``slice``; or of their surroundings (``local``), as far as
        contrast is not raised too much.
    each : whether percentiles are those of each slice, as of unrelated images.

    In the end 0..1 becomes -1..1.

    Source: Cao, Wang and Zhou, "Attention U-net: Mitochondria Segmentation", eq. 1, who take a
    gamma of 0.5 and then equalise.
    """

    percentiles: tuple[float, float] = (1.0, 99.0)
    gain: float = 1.0
    gamma: float = 1.0
    equalise: bool | str = False
    each: bool = False

    def __post_init__(self) -> None:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ParameterError(f"percentiles must rise within 0..100, found {self.percentiles}")
        if not (0 < self.gain < np.inf and 0 < self.gamma < np.inf):
            raise ParameterError(
                f"gain and gamma must be positive, found {self.gain} and {self.gamma}"
            )
        if self.equalise not in (False, True, "slice", "local"):
            raise ParameterError(
                f"equalise is true, slice or local, or false, found {self.equalise!r}"
            )

    @property
    def apart(self) -> bool:
        """Tell whether slices are looked at by themselves; see `volseg.voxels.apart`."""
        return self.each or self.equalise in ("slice", "local")


def choose_preprocessing(
    known: Preprocessing, gamma: float | None, equalise: str | None
) -> Preprocessing:
    """Change what is done to intensities, as far as a user says so."""
    power = known.gamma if gamma is None else gamma
    wanted: bool | str = {None: known.equalise, "volume": True}.get(equalise, equalise or False)
    changed = replace(known, gamma=power, equalise=wanted)
    if changed.equalise in (True, "slice") and (changed.gamma, changed.gain) != (1, 1):
        raise ParameterError(
            "--gamma and gain do nothing before --equalise volume or slice, which keep only the "
            "order of intensities; leave either out, or give --equalise local"
        )
    return changed


@dataclass(frozen=True)
class Tone:
    """`Preprocessing` with the statistics of a volume that it needs.

    Attributes
    ----------
    window : intensities that become 0 and 1; of inverted data the first is the higher one.
    gain, gamma : see `Preprocessing`.
    ranks : None, or intensities, ascending, and the part of all voxels up to each; linear between.
    """

    window: tuple[float, float]
    gain: float = 1.0
    gamma: float = 1.0
    ranks: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @property
    def linear(self) -> bool:
        """Tell whether the mapping is the window alone."""
        return self.gain == 1 and self.gamma == 1 and self.ranks is None

    def __call__(self, raw: NDArray[Any]) -> Floats:
        """Map stored intensities to what the network sees, float32.

        Integers of up to 16 bits are looked up, unless the mapping is linear.
        """
        if self.linear or raw.dtype.kind not in "ui" or raw.itemsize > 2:
            return self._compute(raw)
        table = tone_table(self, raw.dtype.name)
        flat = np.ascontiguousarray(raw, raw.dtype.newbyteorder("=")).reshape(-1)
        found = np.empty(flat.shape, np.float32)
        codes = flat.view(f"u{raw.itemsize}")
        # NumPy turns all indices into eight bytes each
        for start in range(0, len(codes), LOOKED_UP_AT_ONCE):
            part = slice(start, start + LOOKED_UP_AT_ONCE)
            np.take(table, codes[part], out=found[part])
        return found.reshape(raw.shape)

    def _compute(self, raw: NDArray[Any]) -> Floats:
        if self.linear:
            return normalise(raw, self.window)
        if self.ranks is not None:
            # equalisation undoes any mapping that rises with intensity
            level = np.interp(raw, *self.ranks)
        else:
            low, high = self.window
            level = (np.asarray(raw, np.float64) - low) / (high - low)
            level = self.gain * np.maximum(level, 0) ** self.gamma
        return np.asarray(2 * level - 1, np.float32)


@lru_cache(maxsize=4)
def tone_table(tone: Tone, dtype: str) -> Floats:
    """Map every value of an integer type, in the order of its bits."""
    kind = np.dtype(dtype)
    codes = np.arange(1 << 8 * kind.itemsize).astype(f"u{kind.itemsize}")
    return tone._compute(codes.view(kind))


def find_tone(
    preprocessing: Preprocessing,
    counts: NDArray[Any],
    values: NDArray[Any],
    *,
    invert: bool = False,
) -> Tone:
    """Fit a preprocessing to the histogram of a volume.

    Parameters
    ----------
    counts, values : of each intensity that occurs, ascending
    invert : show bright voxels dark and dark ones bright

    Examples
    --------
    >>> values, counts = np.array([10, 20, 30]), np.array([2, 1, 1])
    >>> find_tone(Preprocessing((0, 100)), counts, values).window
    (10.0, 30.0)
    >>> find_tone(Preprocessing(equalise=True), counts, values)(np.array([10, 20, 30]))
    array([0. , 0.5, 1. ], dtype=float32)
    >>> find_tone(Preprocessing((0, 100)), counts, values, invert=True)(np.array([10, 20, 30]))
    array([ 1.,  0., -1.], dtype=float32)
    """
    if invert:
        mirrored = find_tone(preprocessing, counts[::-1], -values[::-1].astype(np.float64))
        (low, high), ranks = mirrored.window, mirrored.ranks
        flipped = ranks and (tuple(-v for v in ranks[0][::-1]), ranks[1][::-1])
        return replace(mirrored, window=(-low, -high), ranks=flipped)
    share = np.cumsum(np.asarray(counts, float))
    at = [np.searchsorted(share, p / 100 * share[-1]) for p in preprocessing.percentiles]
    first, last = (float(values[min(i, len(values) - 1)]) for i in at)
    window = first, last if last > first else first + 1
    ranks = None
    if preprocessing.equalise in (True, "slice"):
        share /= share[-1]
        # close values share the rank of the last
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
        Intensities, frozen once per volume, that differ.

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
