"""Read boxes of what a viewer shows, from the level of the pyramid that takes the fewest voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError
from volseg.geometry.pyramid import reduced_shape
from volseg.sources.labels import LabelSource
from volseg.storage.volumes import Image, open_image
from volseg.types import Readable, Zyx, zyx

MOST_READ = 64
"""Voxels that are read for one that is shown, at most."""


@dataclass(frozen=True)
class Pyramid:
    """An image at several levels, read where it is looked at.

    Attributes
    ----------
    dtype : of what is read: one that the viewer knows.
    labels : are never averaged.
    corner : voxel of the volume at which it begins.
    """

    shape: Zyx
    dtype: np.dtype[Any]
    levels: tuple[tuple[Readable, Zyx], ...]
    labels: bool
    corner: Zyx = (0, 0, 0)

    def level_for(self, factor: Zyx) -> int:
        """Choose the coarsest level that is no coarser than a factor, and divides it."""
        fits = [
            k
            for k, (_, own) in enumerate(self.levels)
            if not any(f % o for f, o in zip(factor, own, strict=True))
        ]
        return fits[-1]

    def read(self, factor: Zyx, start: Sequence[int], stop: Sequence[int]) -> NDArray[Any]:
        """Read a box, of which the bounds are in voxels that are ``factor`` times as large.

        Labels are those of the first voxel of each group, other values the mean of the group.
        """
        if min(factor) < 1:
            raise ParameterError(f"voxels are made 1 or more times as large, found {factor}")
        whole = reduced_shape(self.shape, factor)
        if not all(0 <= a < b <= n for a, b, n in zip(start, stop, whole, strict=True)):
            raise ParameterError(f"{tuple(start)} to {tuple(stop)} is no box in {whole}")
        array, own = self.levels[self.level_for(factor)]
        rest = _divide(factor, own)
        if math.prod(rest) > MOST_READ:
            raise ParameterError(f"there is no level close to voxels {factor} times as large")
        ends = reduced_shape(self.shape, own)
        z, y, x = (
            slice(a * f, min(b * f, n)) for a, b, f, n in zip(start, stop, rest, ends, strict=True)
        )
        return _reduce(np.asarray(array[z, y, x]), rest, labels=self.labels).astype(
            self.dtype, copy=False
        )

    def reach(self, factors: Sequence[Zyx]) -> int:
        """Find how many times larger voxels can be: the largest of leading factors that is near."""
        found = 1
        for factor in factors:
            if math.prod(_divide(factor, self.levels[self.level_for(factor)][1])) > MOST_READ:
                break
            found = math.prod(factor)
        return found


def _divide(factor: Zyx, own: Zyx) -> Zyx:
    return zyx(f // o for f, o in zip(factor, own, strict=True))


def _reduce(values: NDArray[Any], factor: Zyx, *, labels: bool) -> NDArray[Any]:
    z, y, x = factor
    if labels or factor == (1, 1, 1):
        return values[::z, ::y, ::x]
    kind = np.float64 if values.dtype.kind == "f" else np.int64
    sums: NDArray[Any] = values.astype(kind)
    for axis, step in enumerate(factor):
        starts = np.arange(0, values.shape[axis], step)
        sums = np.add.reduceat(sums, starts, axis=axis)
    sides = [
        np.diff(np.append(np.arange(0, n, step), n))
        for n, step in zip(values.shape, factor, strict=True)
    ]
    counts = sides[0][:, None, None] * sides[1][:, None] * sides[2]
    return np.asarray(sums / counts if kind is np.float64 else (sums + counts // 2) // counts)


def pyramid_of(image: Image, *, labels: bool = False, corner: Zyx = (0, 0, 0)) -> Pyramid:
    """See an image as a pyramid; levels that are no whole parts of the first are left out."""
    first = image.levels[0]
    levels: list[tuple[Readable, Zyx]] = []
    for array, factor in zip(image.levels, image.factors, strict=True):
        z, y, x = (round(f) for f in factor)
        exact = np.allclose(factor, (z, y, x), rtol=1e-6) and min(z, y, x) >= 1
        if exact and array.shape == reduced_shape(first.shape, (z, y, x)):
            levels.append((array, (z, y, x)))
    return Pyramid(first.shape, _shown_type(first.dtype, labels), tuple(levels), labels, corner)


def pyramid_of_labels(source: LabelSource) -> Pyramid:
    """See labels of any origin as a pyramid."""
    if source.array is not None:
        return pyramid_of(open_image(source.path), labels=True)
    return Pyramid(source.shape, np.dtype(np.uint64), ((source, (1, 1, 1)),), labels=True)


def _shown_type(dtype: np.dtype[Any], labels: bool) -> np.dtype[Any]:
    """Choose a type that the viewer knows: labels without sign, numbers of 32 bits at most."""
    if labels:
        return np.dtype(f"u{dtype.itemsize}")
    return dtype if dtype.itemsize <= 4 and dtype.name != "float16" else np.dtype(np.float32)
