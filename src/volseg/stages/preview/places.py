"""Choose a few places of a volume that show what its tissue is like."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.errors import VolumeError
from volseg.geometry.grid import describe
from volseg.storage.images import images_in
from volseg.storage.volumes import Image
from volseg.types import Roi, Zyx, zyx

CANDIDATES = 48
"""Windows that are looked at, to choose among."""
SIDE = 192
"""Of such a window, in voxels of (y, x)."""


@dataclass(frozen=True)
class Window:
    """A window of one slice.

    Attributes
    ----------
    centre : (z, y, x), in voxels.
    values : of raw, shape (y, x).
    texture : mean difference of neighbours, two by two voxels averaged; 0 where all is one value.
    """

    centre: Zyx
    values: NDArray[np.generic]
    texture: float


def look_around(image: Image, seconds: float = math.inf) -> list[Window]:
    """Read windows that are spread evenly over a volume; those that hold one value are left out.

    A window is read once, however small the volume; no other one after so many seconds, where
    chunks are so large that a few windows take them.

    Raises
    ------
    VolumeError
        If values are not finite.
    """
    from scipy.stats.qmc import Halton  # heavy, and only this needs it

    begun, shape, sizes = time.monotonic(), image.levels[0].shape, images_in(image)
    spread = Halton(3, scramble=False)
    spread.fast_forward(1)  # the first one is the corner
    found: list[Window] = []
    seen: set[str] = set()
    for point in spread.random(CANDIDATES):
        first = int(point[0] * shape[0])
        held = (shape[0], *sizes[first]) if sizes else shape
        z, y, x = (int(part * n) for part, n in zip(point, held, strict=True))
        roi = window_about((z, y, x), (SIDE, SIDE), held)
        if describe(roi) in seen or (found and time.monotonic() - begun > seconds):
            continue
        seen.add(describe(roi))
        values = read_slice(image, 0, roi)[0]
        texture = measure_texture(values)
        if texture > 0:
            found.append(Window((z, y, x), values, texture))
    return found


def read_slice(image: Image, level: int, roi: Roi) -> NDArray[np.generic]:
    """Read a window of one slice at a level, of which the roi is in voxels of level 0.

    Raises
    ------
    VolumeError
        If values are not finite.
    """
    array, sides = image.levels[level], []
    for s, f, n in zip(roi, image.factors[level], array.shape, strict=True):
        first = min(int(s.start / f), n - 1)
        sides.append(slice(first, min(first + max(round((s.stop - s.start) / f), 1), n)))
    values = np.asarray(array[zyx(sides)])
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise VolumeError(
            f"{array.path} holds values that are not finite, in {describe(roi)}; replace them first"
        )
    return values


def choose_places(windows: list[Window], count: int) -> list[Zyx]:
    """Choose places of much, but not the most texture, far from one another.

    Tissue full of membranes has much; empty resin has little, and dirt, folds and borders of
    padding have the most. Half of the windows are left to choose from: those from the four tenths
    to the nine tenths of the ranking.

    Returns
    -------
    centres, (z, y, x), from the most typical on.
    """
    ranked = sorted(windows, key=lambda w: w.texture)
    first, last = int(0.4 * len(ranked)), int(np.ceil(0.9 * len(ranked)))
    left = [w.centre for w in ranked[first:last]]
    if not left:
        return []
    extent = np.ptp([w.centre for w in windows], axis=0) + 1.0
    chosen = [left.pop(len(left) // 2)]
    while left and len(chosen) < count:
        apart = [min(_distance(p, c, extent) for c in chosen) for p in left]
        chosen.append(left.pop(int(np.argmax(apart))))
    return chosen


def _distance(one: Zyx, other: Zyx, extent: NDArray[np.float64]) -> float:
    return float(np.linalg.norm((np.array(one) - np.array(other)) / extent))


def window_about(centre: Zyx, lengths: tuple[int, int], shape: Zyx) -> Roi:
    """Find a window of one slice about a voxel, of so many rows and columns, moved into the volume.

    Examples
    --------
    >>> window_about((3, 1, 50), (10, 10), (9, 64, 64))
    (slice(3, 4, None), slice(0, 10, None), slice(45, 55, None))
    """
    z, *place = centre
    sides = []
    for at, side, length in zip(place, lengths, shape[1:], strict=True):
        first = min(max(at - side // 2, 0), max(length - side, 0))
        sides.append(slice(first, min(first + side, length)))
    return slice(z, z + 1), sides[0], sides[1]


def measure_texture(values: NDArray[np.generic]) -> float:
    """Measure the mean difference of neighbours after averaging two by two voxels.

    Examples
    --------
    >>> measure_texture(np.full((8, 8), 7)), measure_texture(np.arange(64).reshape(8, 8)) > 0
    (0.0, True)
    """
    y, x = (n // 2 * 2 for n in values.shape)
    if not y or not x:
        return float(np.ptp(values))
    even = values[:y, :x].astype(np.float64).reshape(y // 2, 2, x // 2, 2).mean(axis=(1, 3))
    steps = [np.abs(np.diff(even, axis=axis)) for axis in (0, 1)]
    return float(np.mean([s.mean() if s.size else 0.0 for s in steps]))
