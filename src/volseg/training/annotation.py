"""Labels of classes, as they are stored, and the centres of their objects."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError
from volseg.geometry.grid import full_roi
from volseg.models.maps import MapSpec, find_vector
from volseg.training.offsets import Centres, find_centres, number_components
from volseg.types import Floats, Mask, Readable, Roi

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)")
"""Anything that looks like one is no file of labels."""
MOST_OF_A_MASK = 1 << 30
"""Voxels of labels whose connected parts are numbered in memory."""
SLAB = 8
"""Slices that are read at a time: chunks hold several."""


def parse_class(text: str) -> tuple[str, int | None, str | None]:
    """Read a class: its name, and the value or the place of its labels.

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


def without_folder(text: str) -> str:
    """Write a class without the folder of its labels, as cards and runs name data.

    Examples
    --------
    >>> without_folder("axons=data/axons.tif"), without_folder("axons=3")
    ('axons=axons.tif', 'axons=3')
    """
    name, _, place = parse_class(text)
    return text if place is None else f"{name}={PurePath(place).name}"


def check_classes(
    names: Sequence[str], training: Sequence[int], held_out: Sequence[int]
) -> tuple[str, ...]:
    """Check that each class has voxels to learn from; note those that are not held out.

    Parameters
    ----------
    training, held_out : voxels of each
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


@dataclass(frozen=True)
class Annotation:
    """Labels of one class.

    Attributes
    ----------
    labels : integer, shape (z, y, x).
    value : of the class in them; None takes all above 0, each value another object.
    ignore : value of what nobody annotated; values below 0 stand for it if None.
    centres : of its objects, where offsets to them are learned.
    """

    labels: Readable
    value: int | None = None
    ignore: int | None = None
    centres: Centres | None = None

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

    def aim(self, objects: NDArray[Any], box: Roi) -> Floats:
        """Find the vectors to the centres of the objects of a box, shape (3, z, y, x), if known."""
        if self.centres is None:
            return np.zeros((3, 0, 0, 0), np.float32)
        return self.centres.aim(objects, box, getattr(self.labels, "sizes", ()))

    def centred(self, *, flat: bool) -> Annotation:
        """Find the centres of the objects; a mask's are its connected parts."""
        found = self.value is None and find_centres(self._slices(), flat=flat)
        if found and any(len(numbers) > 1 for numbers, _ in found.tables.values()):
            return replace(self, centres=found)
        if math.prod(self.shape) > MOST_OF_A_MASK:
            raise ParameterError(
                f"labels of {math.prod(self.shape)} voxels number no objects, whose parts are told "
                f"apart in up to {MOST_OF_A_MASK}; offsets need labels that number objects"
            )
        mask, lacking = self.read(full_roi(self.shape))
        parts = number_components(mask > 0, flat=flat)
        parts[lacking] = -1
        numbered = Annotation(parts)
        return replace(numbered, centres=find_centres(numbered._slices(), flat=flat))

    def _slices(self) -> Iterator[tuple[NDArray[Any], Mask]]:
        """Read slice by slice what `read` does."""
        z, y, x = self.shape
        for first in range(0, z, SLAB):
            slab = slice(first, min(first + SLAB, z)), slice(0, y), slice(0, x)
            yield from zip(*self.read(slab), strict=True)


def add_centres(
    classes: Sequence[Annotation], maps: Sequence[MapSpec], *, flat: bool
) -> list[Annotation]:
    """Find the centres of the objects of those classes whose offsets are learned."""
    names = [m.name for m in maps if m.is_class]
    return [
        each.centred(flat=flat) if find_vector(maps, name) else each
        for each, name in zip(classes, names, strict=False)
    ]


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
