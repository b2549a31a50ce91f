"""Notes on slices: how bright, how sharp, how like the one before; findings are made of them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
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

_Transform = tuple[NDArray[np.complex128], float]
"""Spectrum of a thumbnail, and its energy."""


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
    transform: _Transform | None = None
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
        before, transform = transform, _transform(thumbnails[-1])
        if before:
            likeness[k] = _compare(before, transform, thumbnails[-1].shape, _factor(plane.shape))
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
    rows, columns = (_sample_cells(n) for n in plane.shape)
    counts = [sum(len(cells) for cells, _ in axis) for axis in (rows, columns)]
    found = np.tile([0.0, 1.0], (*counts, 1))
    if counts == [1, 1] or high <= low:
        return found
    kind: Any = "stable" if plane.itemsize < 4 else "quicksort"  # the faster one
    for (i, y), (j, x) in product(rows, columns):
        pixels = plane[y.reshape(-1, 1), x.reshape(-1)].reshape(*y.shape, *x.shape)
        values = np.moveaxis(pixels, 2, 1).reshape(len(i), len(j), -1)
        # all at once, unless something is left out of each
        for k in np.ndindex(len(i), len(j)) if areas else [()]:
            tissue = values[k][~_is_constant(values[k], areas)] if areas else values
            if tissue.shape[-1] >= FEWEST:
                at = [tissue.shape[-1] * QUANTILES[q] // 100 for q in (LOW, HIGH)]
                ends = np.sort(tissue, kind=kind)[..., at].astype(np.float64)
                found[(i[k[0]], j[k[1]]) if k else np.ix_(i, j)] = (ends - low) / (high - low)
    return found


@lru_cache
def _sample_cells(length: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Divide an axis into cells: numbers and sampled positions of those with as many samples."""
    edges = np.linspace(0, length, min(max(length // CELL, 1), MOST_CELLS) + 1).astype(np.intp)
    samples = -(-np.diff(edges) // SAMPLED)
    alike = [(n, np.flatnonzero(samples == n)) for n in np.unique(samples)]
    return [(k, edges[k, np.newaxis] + SAMPLED * np.arange(n)) for n, k in alike]


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
    return _compare(_transform(before), _transform(after), before.shape, _factor(shape))


def _compare(
    before: _Transform, after: _Transform, size: tuple[int, ...], factor: int
) -> list[float]:
    (one, energy), (two, other) = before, after
    strength = np.sqrt(energy * other)
    if strength == 0:
        return [0.0, 0.0, 0.0, 0.0]
    found = np.fft.irfft2(one.conj() * two, size) / strength
    peak = np.unravel_index(found.argmax(), found.shape)
    shift = [p if p <= n // 2 else p - n for p, n in zip(peak, found.shape, strict=True)]
    return [float(found[0, 0]), float(found.max()), *(float(factor * int(s)) for s in shift)]


def _transform(thumbnail: Floats) -> _Transform:
    """Transform what a thumbnail differs from its mean, less and less towards its border."""
    if thumbnail.size == 0:  # of slices that are much longer than wide
        return np.zeros((0, 0), np.complex128), 0.0
    window, total = _window(thumbnail.shape)
    mean = (thumbnail * window).sum() / total
    windowed = (thumbnail - mean) * window
    return np.fft.rfft2(windowed), (windowed**2).sum()


@lru_cache
def _window(shape: tuple[int, ...]) -> tuple[Doubles, float]:
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in shape))
    return window, window.sum()
