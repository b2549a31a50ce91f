"""Targets of a network of several maps: classes, and what labels say of borders. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from volseg.geometry.grid import grow, shift
from volseg.models.maps import (
    CONTOUR,
    CONTOUR_WIDTH,
    DISTANCE,
    DISTANCE_REACH,
    OFFSET_REACH,
    OFFSETS,
    MapSpec,
    find_vector,
)
from volseg.training.annotation import Annotation
from volseg.training.offsets import encode
from volseg.training.tissue import places_of
from volseg.types import Floats, Mask, Readable, Roi, VoxelSize

ROUNDING = 1e-6


@dataclass(frozen=True)
class Targets:
    """Labels as the target of each map of a network.

    Attributes
    ----------
    classes : in the order of the maps that are classes.
    maps : but for centerlines, which are drawn for each patch.
    sides : of a voxel of the labels, nm (z, y, x).
    unit : the shortest side of a voxel of the network, nm.
    width, reach, longest : of contours, of distances, and of offsets, in units.
    flat : whether each slice is an image of its own.
    """

    classes: tuple[Annotation, ...]
    maps: tuple[MapSpec, ...]
    sides: VoxelSize
    unit: float
    width: float = CONTOUR_WIDTH
    reach: float = DISTANCE_REACH
    longest: float = OFFSET_REACH
    flat: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.classes[0].shape

    def __getitem__(self, box: Roi, /) -> Mask:
        """Tell where any class is, as though this were labels."""
        found: Mask = np.any([a[box] > 0 for a in self.classes], axis=0)
        return found

    @property
    def reach_nm(self) -> float:
        """Return the length of offsets that 0 and 1 stand for."""
        return self.longest * self.unit

    def read(self, box: Roi) -> tuple[Floats, Mask]:
        """Read the targets of a box.

        Returns
        -------
        float32, shape (maps, z, y, x), 0..1
            NaN where a map hangs on what nobody annotated; what is interpolated between it and
            others is NaN, too. Offsets are vectors, see `volseg.training.offsets`.
        bool, shape (z, y, x); what nobody annotated, of any class.
        """
        names = [m.name for m in self.maps if m.is_class]
        wanted = [max(self._far(m) for m in self.maps if m.of == name) for name in names]
        unknown = np.zeros([s.stop - s.start for s in box], bool)
        found: list[Floats | None] = [None] * len(self.maps)
        for annotation, name, far in zip(self.classes, names, wanted, strict=True):
            around = self._around(box, far)
            objects, lacking = annotation.read(around)
            own = shift(box, [s.start for s in around])
            unknown |= lacking[own]
            depth = distances(objects, self.sides, flat=self.flat)[own] if far else None
            aims = annotation.aim(objects[own], box)
            for k, spec in enumerate(self.maps):
                if spec.of == name and spec.kind in OFFSETS:
                    found[k] = aims[OFFSETS.index(spec.kind)]
                elif spec.of == name:
                    found[k] = self._target(spec, objects[own] > 0, depth)
            if depth is not None and lacking.any():
                # what nobody annotated may be of an object, whose border then lies elsewhere
                near = distances((~lacking).astype(np.uint8), self.sides, flat=self.flat)[own]
                hangs = (objects[own] > 0) & (near <= depth * (1 + ROUNDING))
                for spec, target in zip(self.maps, found, strict=True):
                    if spec.of == name and target is not None and self._far(spec):
                        target[hangs & (near <= self._far(spec) * (1 + ROUNDING))] = np.nan
        return np.stack([f for f in found if f is not None]), unknown

    @property
    def vectors(self) -> tuple[tuple[int, ...], ...]:
        """List the channels of tissue that are the components of vectors, see `Tissue`."""
        places, of = places_of(len(self.maps)), dict.fromkeys(m.of for m in self.maps)
        found = ([places[k] for k in find_vector(self.maps, name)] for name in of)
        return tuple(tuple(each) for each in found if each)

    def finish(self, channels: Tensor, scale: Sequence[float]) -> Tensor:
        """Make maps of the vectors of a patch, in place, and return all its channels.

        Parameters
        ----------
        channels : float32, shape (c, z, y, x)
        scale : voxels of the labels per voxel of the patch
        """
        places, names = places_of(len(self.maps)), [m.name for m in self.maps]
        for spec, place in zip(self.maps, places, strict=True):
            if spec.kind in OFFSETS:
                axis, inside = OFFSETS.index(spec.kind), channels[places[names.index(spec.of)]]
                reach = self.reach_nm / (self.sides[axis] * scale[axis])
                channels[place] = encode(channels[place], inside, reach)
        return channels

    def _far(self, spec: MapSpec) -> float:
        """Find how far from a voxel, in nm, its target may be decided."""
        return {CONTOUR: self.width, DISTANCE: self.reach}.get(spec.kind, 0.0) * self.unit

    def _around(self, box: Roi, far: float) -> Roi:
        steps = [int(far / side) + 1 if far else 0 for side in self.sides]
        if self.flat:
            steps[0] = 0
        z, y, x = self.shape
        return grow(box, (steps[0], steps[1], steps[2]), (z, y, x))

    def _target(self, spec: MapSpec, mask: Mask, depth: Floats | None) -> Floats:
        if spec.kind == CONTOUR and depth is not None:
            mask = mask & (depth <= self.width * self.unit * (1 + ROUNDING))
        elif spec.kind == DISTANCE and depth is not None:
            mask = np.minimum(depth / np.float32(self.reach * self.unit), 1)
        return np.asarray(mask, np.float32)


def distances(objects: NDArray[Any], sides: Sequence[float], *, flat: bool = False) -> Floats:
    """Measure from each voxel of an object to the nearest one that is not of it.

    What lies beyond the array is not known, so it is no border.

    Parameters
    ----------
    objects : integer, shape (z, y, x); 0 is background
    sides : of a voxel
    flat : whether each slice stands for itself

    Returns
    -------
    float32, shape (z, y, x); in the unit of the sides; 0 in the background.

    Examples
    --------
    >>> distances(np.array([[[0, 5, 5, 5, 7, 7, 0]]]), (1, 1, 2))[0, 0].tolist()
    [0.0, 2.0, 4.0, 2.0, 2.0, 2.0, 0.0]
    """
    from scipy import ndimage  # heavy, and only training needs it

    found = np.zeros(objects.shape, np.float32)
    if flat and len(objects) > 1:
        for k in range(len(objects)):
            found[k] = distances(objects[k : k + 1], sides)[0]
        return found
    values, numbers = np.unique(objects, return_inverse=True)
    numbers = numbers.reshape(objects.shape) + (0 if values[0] == 0 else 1)
    z, y, x = objects.shape
    for number, box in enumerate(ndimage.find_objects(numbers), 1):
        if box is None:
            continue
        around = grow(box, (1, 1, 1), (z, y, x))
        mask = numbers[around] == number
        if mask.all():  # an object without an end
            found[around] = np.float32(np.inf)
            continue
        found[around][mask] = ndimage.distance_transform_edt(mask, sides)[mask]
    return found


def read_targets(labels: Targets | Readable, box: Roi, partial: bool) -> tuple[Any, Mask]:
    """Read the target of each map in a box, and what nobody annotated.

    Parameters
    ----------
    labels : of one class, or of several maps
    partial : whether labels of one class that are below 0 stand for what nobody annotated
    """
    if isinstance(labels, Targets):
        return labels.read(box)
    found = np.asarray(labels[box])
    return [found > 0], found < 0 if partial else np.zeros(found.shape, bool)
