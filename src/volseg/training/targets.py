"""Targets of a network of several maps: classes, and what labels say of borders. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.errors import ParameterError
from volseg.geometry.grid import grow, shift
from volseg.models.maps import CONTOUR, DISTANCE, MapSpec
from volseg.types import Floats, Mask, Roi, VoxelSize

CONTOUR_WIDTH, DISTANCE_REACH = 1.5, 10.0
"""Voxels of the network: how far a contour reaches into an object, and where distances end."""
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)")
"""Anything that looks like one is no file of labels."""
ROUNDING = 1e-6
SLAB = 8
"""Slices that are read at a time: chunks hold several."""


def parse_class(text: str) -> tuple[str, int | None, str | None]:
    """Read a class: its name, and the value or the place of its labels.

    Raises
    ------
    ParameterError
        If there is no name, or a value is no whole number above 0.

    Examples
    --------
    >>> parse_class("axons=3"), parse_class("axons=axons.tif"), parse_class("axons")
    (('axons', 3, None), ('axons', None, 'axons.tif'), ('axons', None, None))
    """
    name, equals, where = text.partition("=")
    if not name or (equals and not where):
        raise ParameterError(f"a class is NAME, NAME=VALUE or NAME=LABELS, found {text!r}")
    if not NUMBER.fullmatch(where):
        return name, None, where or None
    if not where.isdecimal() or int(where) < 1:
        raise ParameterError(
            f"the value of a class is a whole number above 0, which is the background: {text!r}"
        )
    return name, int(where), None


def check_classes(
    names: Sequence[str], training: Sequence[int], held_out: Sequence[int]
) -> tuple[str, ...]:
    """Check that each class has voxels to learn from; note those that are not held out.

    Parameters
    ----------
    names : of classes
    training, held_out : voxels of each

    Raises
    ------
    ParameterError
        If a class has none to learn from.
    """
    if lacking := [name for name, n in zip(names, training, strict=False) if not n]:
        raise ParameterError(
            f"no voxel to train on is of the class {' or '.join(lacking)}; check its value in "
            f"--classes, or train on a region that holds some"
        )
    unseen = [name for name, n in zip(names, held_out, strict=False) if not n]
    return tuple(
        f"no voxel that is held out is of the class {name}: it is left out of the scores of the "
        f"run, and its threshold is not chosen; hold out a region that holds some"
        for name in unseen
    )


class Readable(Protocol):
    """Anything with a shape that yields NumPy arrays when sliced: a Zarr array, a NumPy array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    def __getitem__(self, key: Any, /) -> Any:
        """Read a box."""


@dataclass(frozen=True)
class Annotation:
    """Labels of one class.

    Attributes
    ----------
    labels : integer, shape (z, y, x).
    value : of the class in them; None takes all above 0, each value another object.
    ignore : value of what nobody annotated; values below 0 stand for it if None.
    """

    labels: Readable
    value: int | None = None
    ignore: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.labels.shape

    def __getitem__(self, box: Roi, /) -> NDArray[Any]:
        """Read the objects of a box, 0 elsewhere."""
        return self.read(box)[0]

    def read(self, box: Roi) -> tuple[NDArray[Any], Mask]:
        """Read the objects of a box, 0 elsewhere, and what nobody annotated."""
        found = np.asarray(self.labels[box])
        unknown = found < 0 if self.ignore is None else found == self.ignore
        inside = (found > 0) & ~unknown if self.value is None else found == self.value
        return np.where(inside, found, 0), unknown


@dataclass(frozen=True)
class Targets:
    """Labels as the target of each map of a network.

    Attributes
    ----------
    classes : in the order of the maps that are classes.
    maps : but for centerlines, which are drawn for each patch.
    sides : of a voxel of the labels, nm (z, y, x).
    unit : the shortest side of a voxel of the network, nm.
    width, reach : of contours and of distances, in units.
    flat : whether each slice is an image of its own.
    """

    classes: tuple[Annotation, ...]
    maps: tuple[MapSpec, ...]
    sides: VoxelSize
    unit: float
    width: float = CONTOUR_WIDTH
    reach: float = DISTANCE_REACH
    flat: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.classes[0].shape

    def __getitem__(self, box: Roi, /) -> Mask:
        """Tell where any class is, as though this were labels."""
        found: Mask = np.any([a[box] > 0 for a in self.classes], axis=0)
        return found

    def read(self, box: Roi) -> tuple[Floats, Mask]:
        """Read the targets of a box.

        Returns
        -------
        float32, shape (maps, z, y, x), 0..1
            NaN where a contour or a distance hangs on what nobody annotated; what is interpolated
            between it and others is NaN, too.
        bool, shape (z, y, x)
            What nobody annotated, of any class.
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
            for k, spec in enumerate(self.maps):
                if spec.of == name:
                    found[k] = self._target(spec, objects[own] > 0, depth)
            if depth is not None and lacking.any():
                # what nobody annotated may be of an object, whose border then lies elsewhere
                near = distances((~lacking).astype(np.uint8), self.sides, flat=self.flat)[own]
                hangs = (objects[own] > 0) & (near <= depth * (1 + ROUNDING))
                for spec, target in zip(self.maps, found, strict=True):
                    if spec.of == name and target is not None and self._far(spec):
                        target[hangs & (near <= self._far(spec) * (1 + ROUNDING))] = np.nan
        return np.stack([f for f in found if f is not None]), unknown

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
    float32, shape (z, y, x)
        In the unit of the sides; 0 in the background.

    Examples
    --------
    >>> distances(np.array([[[0, 5, 5, 5, 7, 7, 0]]]), (1, 1, 2))[0, 0].tolist()
    [0.0, 2.0, 4.0, 2.0, 2.0, 2.0, 0.0]
    """
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
    box : Roi
    partial : whether labels of one class that are below 0 stand for what nobody annotated
    """
    if isinstance(labels, Targets):
        return labels.read(box)
    found = np.asarray(labels[box])
    return [found > 0], found < 0 if partial else np.zeros(found.shape, bool)


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
