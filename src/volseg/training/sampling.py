"""Where training patches come from: foreground-biased positions, read straight from storage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ShapeError
from volseg.intensity import normalise
from volseg.training.augmentation import Augmentation, patch_coordinates, resample, vary_intensity
from volseg.training.centerline import centerline_proximity
from volseg.types import Floats, Roi, Zyx

SLAB = 8
"""Slices that are read at a time: chunks hold several."""


class Readable(Protocol):
    """Anything with a shape that yields NumPy arrays when sliced: a Zarr array, a NumPy array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    def __getitem__(self, key: Any, /) -> Any:
        """Read a box."""


@dataclass(frozen=True)
class Source:
    """One annotated box of a volume.

    Attributes
    ----------
    raw, labels : arrays, shape (z, y, x)
    roi : Roi
        Patches are read from this box only.
    window : (low, high)
        Raw intensities that become -1 and 1.
    foreground : int64, shape (k, 3)
        A sample of the foreground's voxels.
    isotropic : bool
        Whether patches may be rotated out of the (y, x) plane.
    """

    raw: Readable
    labels: Readable
    roi: Roi
    window: tuple[float, float]
    foreground: NDArray[np.int64]
    isotropic: bool


@dataclass(frozen=True)
class Patch:
    """One training example: arrays of the same shape (z, y, x)."""

    raw: Floats
    target: Floats
    centerline: Floats


def find_foreground(
    labels: Readable, roi: Roi, *, keep: int = 4096, seed: int = 0
) -> tuple[NDArray[np.int64], int]:
    """Collect an even random sample of foreground voxels, slice by slice.

    Parameters
    ----------
    labels : integer, shape (z, y, x)
        Foreground is what is above 0.
    roi : Roi
    keep : int
        At most this many per slice.
    seed : int

    Returns
    -------
    positions : int64, shape (k, 3)
        In the volume.
    count : int
        All foreground voxels of the roi.
    """
    rng = np.random.default_rng(seed)
    found, count = [], 0
    for z, slice_ in _slices(labels, roi):
        plane = np.flatnonzero(slice_ > 0)
        count += plane.size
        kept = rng.choice(plane, keep, replace=False) if plane.size > keep else plane
        y, x = np.divmod(kept, roi[2].stop - roi[2].start)
        found.append(np.stack([np.full_like(y, z), y + roi[1].start, x + roi[2].start], axis=1))
    return np.concatenate(found).astype(np.int64), count


def _slices(labels: Readable, roi: Roi) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield a roi's slices with their z, reading a slab at a time."""
    for first in range(roi[0].start, roi[0].stop, SLAB):
        slab = slice(first, min(first + SLAB, roi[0].stop))
        yield from enumerate(np.asarray(labels[(slab, *roi[1:])]), first)


def draw_centre(
    source: Source, rng: np.random.Generator, foreground_share: float
) -> tuple[float, float, float]:
    """Draw a patch's centre: a foreground voxel, or any voxel of the roi."""
    if len(source.foreground) and rng.random() < foreground_share:
        z, y, x = source.foreground[rng.integers(len(source.foreground))]
    else:
        z, y, x = (rng.integers(s.start, s.stop) for s in source.roi)
    return float(z), float(y), float(x)


def _reflect(coordinates: Floats, roi: Roi) -> Floats:
    """Mirror positions beyond the roi back into it."""
    inside = np.empty_like(coordinates)
    for axis, s in enumerate(roi):
        last = max(s.stop - s.start - 1, 1)
        position = np.abs(coordinates[axis] - s.start) % (2 * last)
        inside[axis] = np.minimum(np.minimum(position, 2 * last - position), s.stop - s.start - 1)
        inside[axis] += s.start
    return inside


def draw_patch(
    source: Source,
    rng: np.random.Generator,
    shape: Zyx,
    options: Augmentation,
    *,
    foreground_share: float = 0.6,
    centerline: bool = True,
) -> Patch:
    """Draw one augmented training example.

    Parameters
    ----------
    source : Source
    rng : Generator
        The only source of chance.
    shape : (z, y, x)
    options : Augmentation
    foreground_share : float
        Part of the patches that are centred on the foreground.
    centerline : bool
        Whether the auxiliary target is wanted; zeros otherwise.

    Raises
    ------
    ShapeError
        If raw and labels differ in shape.
    """
    if tuple(source.raw.shape) != tuple(source.labels.shape):
        raise ShapeError(
            f"labels must have the shape of raw: raw {source.raw.shape}, labels "
            f"{source.labels.shape}"
        )
    centre = draw_centre(source, rng, foreground_share)
    coordinates, spacing = patch_coordinates(
        rng, options, shape, centre, isotropic=source.isotropic
    )
    coordinates = _reflect(coordinates, source.roi)
    low = np.floor(coordinates.min(axis=(1, 2, 3))).astype(int)
    high = np.ceil(coordinates.max(axis=(1, 2, 3))).astype(int) + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    raw, labels = resample(
        normalise(source.raw[box], source.window),
        (np.asarray(source.labels[box]) > 0).astype(np.uint8),
        coordinates - low.reshape(3, 1, 1, 1).astype(np.float32),
        spacing,
    )
    mask = labels > 0
    target = centerline_proximity(mask) if centerline else np.zeros(shape, np.float32)
    return Patch(vary_intensity(raw, rng, options), mask.astype(np.float32), target)
