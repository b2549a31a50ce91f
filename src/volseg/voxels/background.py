"""Background: padding and missing data, which hold one value over areas that no tissue does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Mask
from volseg.voxels.compilation import compiled
from volseg.voxels.histogram import intensity_codes

SIDE = 16
"""A square of so many pixels a side that holds one value is no tissue, but where it is clipped."""
SMALLEST = 2 * SIDE
"""Slices with a shorter side are background as wholes or not at all."""
LEAST_SHARE = 1e-3
"""Of a volume's voxels, below which a constant area is not worth telling."""


def constant_squares(raw: NDArray[Any], value: float, side: int = SIDE) -> Mask:
    """Find the pixels that lie in a square of one value within their slice.

    What lies beyond the slice counts as that value, so that a thin strip at the border is found.
    A pixel's result depends on no pixel ``side`` or further away from it.

    Parameters
    ----------
    raw : shape (..., y, x)
    value : of the squares
    side : of the squares, a power of two

    Examples
    --------
    >>> raw = np.array([[0, 7, 0, 0], [7, 7, 0, 0], [7, 0, 7, 7], [7, 7, 7, 7]])
    >>> constant_squares(raw, 0, 2).astype(int)
    array([[1, 0, 1, 1],
           [0, 0, 1, 1],
           [0, 0, 0, 0],
           [0, 0, 0, 0]])
    """
    around = [(0, 0)] * (raw.ndim - 2) + [(side - 1, side - 1)] * 2
    found = np.pad(raw == raw.dtype.type(value), around, constant_values=True)
    for combine in (np.logical_and, np.logical_or):
        for axis in (-2, -1):
            step = 1
            while step < side:
                found = combine(_without(found, axis, last=step), _without(found, axis, first=step))
                step *= 2
    return found


def _without(values: Mask, axis: int, *, first: int = 0, last: int = 0) -> Mask:
    cut = [slice(None)] * values.ndim
    cut[axis] = slice(first, values.shape[axis] - last)
    return values[tuple(cut)]


def count_constant(plane: NDArray[Any]) -> dict[float, int]:
    """Count the pixels of a slice that lie in squares of one value, by value.

    Parameters
    ----------
    plane : shape (y, x)

    Examples
    --------
    >>> plane = np.arange(48 * 48).reshape(48, 48)
    >>> plane[:, :2] = 9
    >>> count_constant(plane), count_constant(plane[:, :1])
    ({9.0: 96}, {9.0: 48})
    """
    if plane.min() == plane.max():
        return {float(plane[0, 0]): plane.size}
    if min(plane.shape) < SMALLEST:
        return {}
    return {value: int(found.sum()) for value, found in find_constant(plane)}


def find_constant(plane: NDArray[Any]) -> Iterator[tuple[float, Mask]]:
    """Yield the values that fill squares in a slice, or in a part of one, and where."""
    for value in _constant_values(plane):
        found = constant_squares(plane, value)
        if found.any():
            yield value, found


def _constant_values(plane: NDArray[Any]) -> list[float]:
    """List the values that may fill squares; few pixels of tissue are looked at."""
    found = {v for line in (plane[0], plane[-1], plane[:, 0], plane[:, -1]) for v in _runs(line)}
    half = SIDE // 2
    samples = plane[::half, ::half]
    here = samples[:-1, :-1]
    alike = (here == samples[1:, :-1]) & (here == samples[:-1, 1:]) & (here == samples[1:, 1:])
    for value in np.unique(here[alike]):
        # wherever a square lies, it holds half of one on this raster, and its far corners
        for y, x in np.argwhere(alike & (here == value)) * half:
            if (plane[y : y + half + 1, x : x + half + 1] == value).all():
                found.add(float(value))
                break
    return sorted(found)


def _runs(line: NDArray[Any]) -> list[float]:
    """List the values of which a line holds runs as long as a square's side."""
    starts = np.concatenate([[0], np.flatnonzero(line[1:] != line[:-1]) + 1])
    lengths = np.diff(np.append(starts, len(line)))
    return [float(v) for v in line[starts[lengths >= SIDE]]]


def choose_background(
    areas: dict[float, int], counts: NDArray[Any], dtype: Any, declared: float | None = None
) -> list[float]:
    """Choose the values that are padding or missing data.

    A value that tissue is clipped to fills squares too, but most of its pixels lie elsewhere.

    Parameters
    ----------
    areas : pixels in squares of one value, by value
    counts : of each intensity of the volume, see `volseg.voxels.histogram`
    dtype : of the volume
    declared : a value whose squares are background however few they are

    Examples
    --------
    >>> counts = np.bincount([0] * 99 + [7] * 700 + [255] * 100)
    >>> choose_background({0.0: 90, 255.0: 40}, counts, np.uint8)
    [0.0]
    """
    total = int(counts.sum())
    return [
        value
        for value, area in sorted(areas.items())
        if value == declared
        or (area >= LEAST_SHARE * total and 2 * area >= counts[code_of(value, dtype)])
    ]


def without_areas(areas: dict[float, int], counts: NDArray[Any], dtype: Any) -> NDArray[np.int64]:
    """Leave areas of one value out of a histogram, unless nothing would remain."""
    left = np.array(counts, np.int64)
    for value, area in areas.items():
        left[code_of(value, dtype)] -= area
    return left if left.any() else np.asarray(counts, np.int64)


def code_of(value: float, dtype: Any) -> int:
    """Find the place of a value among the intensities that are counted."""
    return int(intensity_codes(np.array([value], dtype))[0])


def fill_by_reflection(values: NDArray[Any], missing: Mask) -> NDArray[Any]:
    """Fill what is missing by mirroring what is there: along x, then y, then z.

    Rows with nothing in them are left to the next axis. Where mirroring meets what is missing, it
    repeats what is nearest. Straight padding becomes what `volseg.voxels.blend.reflected` makes
    beyond the volume.

    Parameters
    ----------
    values, missing : shape (z, y, x)

    Examples
    --------
    >>> values = np.array([[[0, 0, 5, 6, 7, 0]]])
    >>> fill_by_reflection(values, values == 0)
    array([[[7, 6, 5, 6, 7, 6]]])
    """
    filled, lacking = values.copy(), missing.copy()
    for axis in (2, 1, 0):
        # views, so that they are changed in place
        _mirror(np.moveaxis(filled, axis, -1), np.moveaxis(lacking, axis, -1))
    return filled


@compiled
def _mirror(values: NDArray[Any], gone: Mask) -> None:
    """Fill the rows along the last axis that hold something, and mark them as held."""
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            lacking = gone[i, j].sum()
            if 0 < lacking < len(gone[i, j]):
                source = _find_sources(gone[i, j])
                row = values[i, j].copy()
                for k in range(len(row)):
                    values[i, j, k] = row[source[k]]
                    gone[i, j, k] = False


@compiled
def _find_sources(gone: Mask) -> NDArray[np.int64]:
    """Find what each pixel of a row, which holds something, becomes a copy of."""
    length = len(gone)
    nearest, last = np.empty(length, np.int64), -1
    for k in range(length):
        last = last if gone[k] else k
        nearest[k] = last
    last = 2 * length
    for k in range(length - 1, -1, -1):
        last = last if gone[k] else k
        if nearest[k] < 0 or last - k < k - nearest[k]:
            nearest[k] = last
    found = nearest.copy()
    for k in range(length):
        mirrored = 2 * nearest[k] - k
        if 0 <= mirrored < length and not gone[mirrored]:
            found[k] = mirrored
    return found
