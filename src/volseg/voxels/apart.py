"""Slices seen by their own intensities: unrelated images, and equalisation slice by slice.

What a voxel becomes depends on what is stored in its slice alone, so on no block and no tile.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Doubles, Floats, Readable, Roi
from volseg.voxels.background import SIDE, count_constant, without_areas
from volseg.voxels.histogram import count_intensities
from volseg.voxels.intensity import Preprocessing, Tone, find_tone

KEPT = 1024
"""Slices whose tones a process remembers."""
ROWS = 1 << 24
"""Voxels of a slice that are counted at a time."""
CONTEXT = 128
"""Voxels of the side of the squares that equalise their surroundings."""
BINS = 256
CLIP = 0.01
"""Largest part of a square's voxels that one bin counts for; what is above is given to all bins."""


@dataclass(frozen=True, eq=False)
class _Same:
    """Key by which an array in memory is known; it keeps the array from being another."""

    array: Readable

    def __hash__(self) -> int:
        return id(self.array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.array is self.array


@dataclass(frozen=True, eq=False)
class Apart:
    """The tones of slices, each fitted to the voxels of its own.

    Attributes
    ----------
    preprocessing : which it is.
    volume : level 0, of which slices are counted.
    shown : the level that is looked at.
    whole : tone of the whole volume, whose window equalisation of surroundings takes, unless slices
        have windows of their own.
    invert : whether bright voxels are shown dark.
    images : whether slices are unrelated images, of which areas of one value count, too.
    sizes : (y, x) that images have of their slices, where that is not all.
    stamp : tells the voxels from others that stood at the same place.
    """

    preprocessing: Preprocessing
    volume: Readable
    shown: Readable
    whole: Tone
    invert: bool = False
    images: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    stamp: str | None = None

    def __call__(self, raw: NDArray[Any], box: Roi) -> Floats:
        """Map what was read from a box of the level that is shown; float32, same shape."""
        slices = zip(range(box[0].start, box[0].stop), raw, strict=True)
        if self.preprocessing.equalise == "local":
            return np.stack([self._equalised(z, box) for z, _ in slices])
        return np.stack([self.tone(z)(plane) for z, plane in slices])

    def tone(self, z: int) -> Tone:
        """Fit the preprocessing to a slice of the level that is shown."""
        at = self._finest(z)
        key = (self.volume, self.stamp) if isinstance(self.volume, Hashable) else _Same(self.volume)
        shape = self.sizes[at] if self.sizes else self.volume.shape[1:]
        how = self.preprocessing, self.invert, self.images
        return _fit(key, at, (shape[0], shape[1]), how)

    def _finest(self, z: int) -> int:
        """Find the slice of level 0 that lies in the middle of one that is shown."""
        return int((z + 0.5) * self.volume.shape[0] / self.shown.shape[0])

    def _equalised(self, z: int, box: Roi) -> Floats:
        """Equalise a part of a slice by the squares around each voxel.

        K. Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV (1994):
        between the middles of squares, what they make of a voxel is interpolated.
        """
        tone = self.tone(z) if self.preprocessing.each else self.whole
        ends = self.shown.shape[1:]
        if self.sizes:
            finest = zip(self.sizes[self._finest(z)], ends, self.volume.shape[1:], strict=True)
            ends = tuple(-(-size * n // whole) for size, n, whole in finest)
        y, x = (_between(s, n) for s, n in zip(box[1:], ends, strict=True))
        corner = int(y.edges[0]), int(x.edges[0])
        around = [
            slice(start, max(int(a.edges[-1]), s.stop))
            for start, a, s in zip(corner, (y, x), box[1:], strict=True)
        ]
        level = (tone(np.asarray(self.shown[(slice(z, z + 1), *around)])[0]) + 1) / 2
        bins = np.clip(level * BINS, 0, BINS - 1).astype(np.intp)
        maps = _map_squares(bins, y.edges - corner[0], x.edges - corner[1])
        own = [slice(s.start - c, s.stop - c) for s, c in zip(box[1:], corner, strict=True)]
        seen, found = bins[own[0], own[1]], np.zeros([s.stop - s.start for s in box[1:]])
        for rows, down in ((y.low, 1 - y.weight), (y.high, y.weight)):
            for columns, across in ((x.low, 1 - x.weight), (x.high, x.weight)):
                found += np.outer(down, across) * maps[rows[:, None], columns, seen]
        return np.asarray(2 * found - 1, np.float32)


def tone_at(tone: Tone | Apart, z: int) -> Tone:
    """Tell what is made of the intensities of one slice, but for its local equalisation."""
    if isinstance(tone, Tone):
        return tone
    own = tone.preprocessing.each or tone.preprocessing.equalise != "local"
    return tone.tone(z) if own else tone.whole


@lru_cache(maxsize=KEPT)
def _fit(
    key: Hashable, z: int, shape: tuple[int, int], how: tuple[Preprocessing, bool, bool]
) -> Tone:
    """Fit a preprocessing to a slice of level 0, counted some rows at a time."""
    volume: Readable = key.array if isinstance(key, _Same) else key[0]  # type: ignore[index]
    preprocessing, invert, images = how
    total, values = (part.copy() for part in count_intensities(np.asarray(volume[:0, :0, :0])))
    step = max(ROWS // shape[1], SIDE)
    for first in range(0, shape[0], step):
        rows = slice(first, min(first + step, shape[0]))
        plane = np.asarray(volume[slice(z, z + 1), rows, slice(0, shape[1])])[0]
        counts, _ = count_intensities(plane)
        if not images:
            counts = without_areas(count_constant(plane), counts, plane.dtype)
        total += counts
    if not total.any():
        return Tone((0.0, 1.0))
    held = np.flatnonzero(total)
    return find_tone(preprocessing, total[held], values[held], invert=invert)


@dataclass(frozen=True, eq=False)
class _Between:
    """Places of voxels between the middles of squares along an axis.

    Attributes
    ----------
    edges : int64, shape (squares + 1,): of the squares that are needed.
    low, high : int64: the squares before and after each voxel, counted among those.
    weight : float64: of the square after it.
    """

    edges: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: Doubles


def _between(span: slice, length: int) -> _Between:
    count = max(round(length / CONTEXT), 1)
    edges = np.linspace(0, length, count + 1).astype(np.int64)
    middles, at = (edges[:-1] + edges[1:] - 1) / 2, np.arange(span.start, span.stop)
    after = np.searchsorted(middles, at)
    low, high = np.maximum(after - 1, 0), np.minimum(after, count - 1)
    apart = np.maximum(middles[high] - middles[low], 1)
    weight = np.clip((at - middles[low]) / apart, 0, 1)
    first, last = int(low.min()), int(high.max())
    return _Between(edges[first : last + 2], low - first, high - first, weight)


def _map_squares(
    bins: NDArray[np.intp], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Doubles:
    """Find what each square makes of each bin; shape (rows, columns, bins), 0..1."""
    maps = np.empty((len(rows) - 1, len(columns) - 1, BINS))
    for i, j in np.ndindex(maps.shape[:2]):
        square = bins[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
        counts = np.bincount(square.ravel(), minlength=BINS)
        most = max(int(CLIP * square.size), 1)
        above = int(np.maximum(counts - most, 0).sum())
        shares = np.minimum(counts, most) + above / BINS
        maps[i, j] = np.cumsum(shares) / max(square.size, 1)
    return maps
