"""Windows that are spread over a volume, and what is looked at in them without a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from volseg.geometry.grid import roi_shape
from volseg.storage.arrays import StoredArray
from volseg.types import FULL_PROBABILITY, Roi, Zyx

STEPS = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)
"""Powers of the inverse of the root of x**4 = x + 1: a sequence that fills a cube evenly."""
SIDE: Zyx = (1, 192, 192)
COUNTED = 48
"""Side, and number, of the places of probabilities whose mean is taken."""


def spread_windows(
    grid: Sequence[int], side: Zyx, count: int, ends: Sequence[Sequence[int]] = ()
) -> list[Roi]:
    """Spread windows evenly over a grid; each of a small one once.

    Where slices hold images of their own (y, x), ``ends``, windows of one slice lie within these;
    of what holds none there is no window.

    Examples
    --------
    >>> [w[2] for w in spread_windows((1, 9, 30), (1, 9, 10), 3)]
    [slice(1, 11, None), slice(12, 22, None), slice(3, 13, None)]
    """
    found: dict[tuple[int, ...], Roi] = {}
    for k in range(count):
        parts = [(0.5 + (k + 1) * step) % 1 for step in STEPS]
        first = _place(parts[0], grid[0], side[0])
        lengths = (grid[0], *(ends[first.start] if len(ends) else grid[1:]))
        if min(lengths) > 0:
            y, x = map(_place, parts[1:], lengths[1:], side[1:])
            found[first.start, y.start, x.start] = first, y, x
    return list(found.values())


def _place(part: float, length: int, side: int) -> slice:
    """Place a side so that a part of the room that it has lies before it."""
    room = max(length - side, 0)
    start = min(int(part * (room + 1)), room)
    return slice(start, start + min(side, length))


def mean_found(probabilities: StoredArray, roi: Roi, level: int) -> float | None:
    """Estimate the mean probability of the voxels of at least a level, at places of a region.

    Returns
    -------
    float
        None where no place holds such a voxel.
    """
    total = count = 0
    for window in spread_windows(roi_shape(roi), SIDE, COUNTED):
        z, y, x = (
            slice(s.start + w.start, s.start + w.stop) for s, w in zip(roi, window, strict=True)
        )
        values = np.asarray(probabilities[z, y, x])
        kept = values[values >= level]
        total, count = total + int(kept.sum(dtype=np.int64)), count + kept.size
    return total / count / FULL_PROBABILITY if count else None
