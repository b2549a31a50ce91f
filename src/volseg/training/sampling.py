"""Random positions of training patches, biased to foreground and read straight from storage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ShapeError
from volseg.geometry.grid import roi_shape
from volseg.training.augmentation import Augmentation, patch_coordinates, resample, vary_intensity
from volseg.training.centerline import centerline_proximity
from volseg.types import Floats, Roi, Zyx
from volseg.voxels.intensity import Tone

SLAB = 8
"""Slices that are read at a time: chunks hold several."""
FOREGROUND, NOT_ANNOTATED = 1, 2
UNKNOWN = -1.0
"""The target of voxels that nobody annotated."""


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
    tone : Tone
        What the network sees of intensities.
    foreground : int64, shape (k, 3)
        A sample of the foreground's voxels.
    isotropic : bool
        Whether patches may be rotated out of the (y, x) plane.
    slices : int64, shape (k,), optional
        The z of the roi's annotated slices, ascending; None where all of them are.
    planar : bool
        Whether patches are single slices that take nothing from their neighbours.
    """

    raw: Readable
    labels: Readable
    roi: Roi
    tone: Tone
    foreground: NDArray[np.int64]
    isotropic: bool
    slices: NDArray[np.int64] | None = None
    planar: bool = False

    @property
    def annotated(self) -> int:
        """Number of voxels that may be learned from."""
        z, y, x = roi_shape(self.roi)
        return (z if self.slices is None else len(self.slices)) * y * x


@dataclass(frozen=True)
class Patch:
    """One training example: arrays of the same shape (z, y, x).

    The target is 1 in the foreground, 0 in the background and `UNKNOWN` where nothing is annotated.
    """

    raw: Floats
    target: Floats
    centerline: Floats


def find_foreground(
    labels: Readable,
    roi: Roi,
    *,
    slices: NDArray[np.int64] | None = None,
    keep: int = 4096,
) -> tuple[NDArray[np.int64], int]:
    """Collect an even random sample of foreground voxels, slice by slice.

    Parameters
    ----------
    labels : integer, shape (z, y, x)
        Foreground is what is above 0.
    roi : Roi
    slices : int64, shape (k,), optional
        The z of those to look at; all of the roi's otherwise.
    keep : int
        At most this many per slice.

    Returns
    -------
    positions : int64, shape (k, 3)
        In the volume.
    count : int
        All foreground voxels of the roi.
    """
    rng = np.random.default_rng(0)
    found, count = [np.zeros((0, 3), np.int64)], 0
    for z, slice_ in iterate_slices(labels, roi, slices):
        plane = np.flatnonzero(slice_ > 0)
        count += plane.size
        kept = rng.choice(plane, keep, replace=False) if plane.size > keep else plane
        y, x = np.divmod(kept, roi[2].stop - roi[2].start)
        found.append(np.stack([np.full_like(y, z), y + roi[1].start, x + roi[2].start], axis=1))
    return np.concatenate(found).astype(np.int64), count


def iterate_slices(
    labels: Readable, roi: Roi, slices: NDArray[np.int64] | None = None
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield a roi's slices with their z, reading a slab at a time; or those that are listed."""
    if slices is not None:
        for z in slices.tolist():
            yield z, np.asarray(labels[(slice(z, z + 1), *roi[1:])])[0]
        return
    for first in range(roi[0].start, roi[0].stop, SLAB):
        slab = slice(first, min(first + SLAB, roi[0].stop))
        yield from enumerate(np.asarray(labels[(slab, *roi[1:])]), first)


def draw_centre(
    source: Source, rng: np.random.Generator, foreground_share: float, centre_crop: float = 0.0
) -> tuple[float, float, float]:
    """Draw a patch's centre: the roi's own, a foreground voxel, or any voxel of the roi."""
    if centre_crop and rng.random() < centre_crop:
        z, y, x = ((s.start + s.stop - 1) / 2 for s in source.roi)
        if source.planar or source.slices is not None:
            every = np.arange(source.roi[0].start, source.roi[0].stop)
            z = rng.choice(every if source.slices is None else source.slices)
    elif len(source.foreground) and rng.random() < foreground_share:
        z, y, x = source.foreground[rng.integers(len(source.foreground))]
    else:
        z, y, x = (rng.integers(s.start, s.stop) for s in source.roi)
        if source.slices is not None:
            z = source.slices[rng.integers(len(source.slices))]
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
        The only source of random numbers.
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
    centre = draw_centre(source, rng, foreground_share, options.centre_crop)
    if source.planar:  # faults between the slices of a stack cannot occur in one slice
        options = replace(options, fault_probability=0.0, section_probability=0.0)
    coordinates, spacing = patch_coordinates(
        rng, options, shape, centre, isotropic=source.isotropic and not source.planar
    )
    if source.planar:
        coordinates[0] = centre[0]
    coordinates = _reflect(coordinates, source.roi)
    low = np.floor(coordinates.min(axis=(1, 2, 3))).astype(int)
    high = np.ceil(coordinates.max(axis=(1, 2, 3))).astype(int) + 1
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    raw, labels = resample(
        source.tone(np.asarray(source.raw[box])),
        _read_classes(source, box),
        coordinates - low.reshape(3, 1, 1, 1).astype(np.float32),
        spacing,
    )
    mask, known = labels == FOREGROUND, labels != NOT_ANNOTATED
    # the centerline of objects that are known in part is not that of the objects
    wanted = centerline and bool(known.all())
    lines = centerline_proximity(mask) if wanted else np.zeros(shape, np.float32)
    target = np.where(known, mask, UNKNOWN).astype(np.float32)
    return Patch(vary_intensity(raw, rng, options), target, lines)


def _read_classes(source: Source, box: Roi) -> NDArray[np.uint8]:
    """Read background, foreground and unannotated voxels, shape (z, y, x)."""
    classes = (np.asarray(source.labels[box]) > 0).astype(np.uint8)
    if source.slices is not None and not source.planar:
        z = np.arange(box[0].start, box[0].stop)
        classes[~np.isin(z, source.slices)] = NOT_ANNOTATED
    return classes
