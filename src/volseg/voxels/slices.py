"""Notes on slices: how bright, how sharp, how like the one before; findings are made of them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Doubles, Floats
from volseg.voxels.background import count_constant, without_areas
from volseg.voxels.histogram import count_intensities

QUANTILES = (1, 5, 25, 50, 75, 95, 99)
LOW, QUARTERS, MIDDLE, HIGH = 1, [2, 4], 3, 5
"""Columns of the quantiles that say how bright a slice is: neither end is a single bright thing."""
THUMBNAIL = 128
"""Pixels of the longer side of what slices are compared by."""
CELL, MOST_CELLS = 128, 8
"""Pixels of a cell whose brightness is noted by itself, at least; and cells along an axis."""
SAMPLED = 8
"""Every eighth row tells how sharp a slice is, and every eighth pixel how bright a cell."""
FEWEST = 64
"""Pixels that tell how bright a cell is."""


@dataclass(frozen=True)
class SliceNotes:
    """Notes on consecutive slices.

    Attributes
    ----------
    quantiles : float64, shape (slices, 7): intensities of what is no constant area.
    sharpness : float64, shape (slices,): mean difference of neighbours along x.
    constant : float64, shape (slices,): part of the pixels in squares of one value.
    cells : float64, shape (slices, y, x, 2): `LOW` and `HIGH` of each cell, 0..1 being the slice's.
    likeness : float64, shape (slices, 4): correlation with the slice before as it lies, and at the
        best shift; that shift (y, x) in pixels. The first slice has none before.
    checksums : uint32, shape (slices,)
    ends : thumbnails of the first and of the last slice.
    counts, values : of each intensity.
    areas : pixels in squares of one value, by value.
    """

    quantiles: Doubles
    sharpness: Doubles
    constant: Doubles
    cells: Doubles
    likeness: Doubles
    checksums: NDArray[np.uint32]
    ends: tuple[Floats, Floats]
    counts: NDArray[np.int64]
    values: NDArray[Any]
    areas: dict[float, int]


def note_slices(raw: NDArray[Any]) -> SliceNotes:
    """Take notes on consecutive slices.

    Parameters
    ----------
    raw : uint8, uint16, int16 or float32, shape (z, y, x)
    """
    columns: list[tuple[Doubles, float, float, Doubles]] = []
    likeness, checksums = np.zeros((len(raw), 4)), np.zeros(len(raw), np.uint32)
    (totals, values), areas = count_intensities(raw[:0]), dict[float, int]()
    thumbnails: list[Floats] = []
    for k, plane in enumerate(np.ascontiguousarray(raw)):
        counts, _ = count_intensities(plane)
        totals, found = totals + counts, count_constant(plane)
        for value, count in found.items():
            areas[value] = areas.get(value, 0) + count
        quantiles = _quantiles(without_areas(found, counts, plane.dtype), values)
        cells = _cells(plane, found, quantiles)
        part = sum(found.values()) / plane.size
        columns.append((quantiles, _sharpness(plane, found), part, cells))
        checksums[k] = zlib.crc32(plane.data)
        thumbnails.append(_thumbnail(plane, found, quantiles[MIDDLE]))
        if k:
            likeness[k] = compare_thumbnails(thumbnails[-2], thumbnails[-1], plane.shape)
    quantile, sharpness, constant, cell = (np.array(c) for c in zip(*columns, strict=True))
    ends = thumbnails[0], thumbnails[-1]
    return SliceNotes(
        quantile, sharpness, constant, cell, likeness, checksums, ends, totals, values, areas
    )


def _quantiles(counts: NDArray[np.int64], values: NDArray[Any]) -> Doubles:
    share = np.cumsum(counts)
    at = np.searchsorted(share, np.array(QUANTILES) / 100 * share[-1])
    return np.asarray(values[np.minimum(at, len(values) - 1)], np.float64)


def _is_constant(raw: NDArray[Any], areas: dict[float, int]) -> NDArray[np.bool_]:
    return np.isin(raw, list(areas))


def _sharpness(plane: NDArray[Any], areas: dict[float, int]) -> float:
    rows = plane[::SAMPLED]
    steps = np.abs(np.diff(rows.astype(np.float32), axis=1))
    if areas:
        tissue = ~_is_constant(rows, areas)
        steps = steps[tissue[:, 1:] & tissue[:, :-1]]
    return float(steps.mean()) if steps.size else 0.0


def _cells(plane: NDArray[Any], areas: dict[float, int], quantiles: Doubles) -> Doubles:
    low, high = quantiles[LOW], quantiles[HIGH]
    counts = [min(max(n // CELL, 1), MOST_CELLS) for n in plane.shape]
    found = np.tile([0.0, 1.0], (*counts, 1))
    if counts == [1, 1] or high <= low:
        return found
    edges = [np.linspace(0, n, c + 1).astype(int) for n, c in zip(plane.shape, counts, strict=True)]
    for i, j in np.ndindex(*counts):
        cell = plane[edges[0][i] : edges[0][i + 1] : SAMPLED, edges[1][j] : edges[1][j + 1]]
        cell = cell[:, ::SAMPLED]
        tissue = cell[~_is_constant(cell, areas)] if areas else cell.reshape(-1)
        if len(tissue) >= FEWEST:
            ordered = np.sort(tissue)
            at = [len(ordered) * QUANTILES[k] // 100 for k in (LOW, HIGH)]
            found[i, j] = (ordered[at].astype(np.float64) - low) / (high - low)
    return found


def _thumbnail(plane: NDArray[Any], areas: dict[float, int], middle: float) -> Floats:
    """Reduce a slice by averaging some of the pixels, and take constant areas out."""
    factor = _factor(plane.shape)
    step, (y, x) = max(factor // 4, 1), (n // factor * factor for n in plane.shape)
    taken = range(0, factor, step)
    small = np.zeros((y // factor, x // factor), np.float32)
    for i in taken:
        for j in taken:
            small += plane[i:y:factor, j:x:factor]
    small /= len(taken) ** 2
    if areas:
        small[_is_constant(small, areas)] = middle
    return small


def _factor(shape: tuple[int, ...]) -> int:
    return max(-(-max(shape) // THUMBNAIL), 1)


def compare_thumbnails(before: Floats, after: Floats, shape: tuple[int, ...]) -> list[float]:
    """Compare two slices by their thumbnails: a row of `SliceNotes.likeness`."""
    one, two = _windowed(before), _windowed(after)
    strength = np.sqrt((one**2).sum() * (two**2).sum())
    if strength == 0:
        return [0.0, 0.0, 0.0, 0.0]
    found = np.fft.irfft2(np.fft.rfft2(one).conj() * np.fft.rfft2(two), one.shape) / strength
    peak = np.unravel_index(found.argmax(), found.shape)
    shift = [p if p <= n // 2 else p - n for p, n in zip(peak, found.shape, strict=True)]
    factor = _factor(shape)
    return [float(found[0, 0]), float(found.max()), *(float(factor * int(s)) for s in shift)]


def _windowed(thumbnail: Floats) -> Doubles:
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in thumbnail.shape))
    mean = (thumbnail * window).sum() / window.sum()
    return np.asarray((thumbnail - mean) * window, np.float64)
