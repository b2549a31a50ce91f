"""Grow a seed: the region that a click on background stands for. Pure functions over arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.types import Mask

PART = 0.5
"""Of the highest probability near a click, from which a voxel belongs to the seed."""
FAINT = 8
"""Of 255: below it, a probability says nothing."""


@dataclass(frozen=True)
class Reach:
    """Radii of a seed along (y, x), in voxels: of what is sure, and of what is possible."""

    core: tuple[float, float]
    far: tuple[float, float]


def grow_seed(
    probabilities: NDArray[np.uint8], free: Mask, at: tuple[int, int], reach: Reach
) -> Mask:
    """Grow a seed about a click in a slice.

    The voxels within the core; and those that are connected with them, lie within reach, and have
    at least half of the highest probability within the core. Where the network saw next to
    nothing, it is the core alone. Voxels of objects are left out.

    Examples
    --------
    >>> faint = np.zeros((9, 9), np.uint8)
    >>> faint[3:6, 1:8] = 60
    >>> seed = grow_seed(faint, np.ones((9, 9), bool), (4, 4), Reach((1, 1), (3, 3)))
    >>> seed.sum(axis=1).tolist()
    [0, 0, 0, 5, 7, 5, 0, 0, 0]
    """
    y = np.arange(probabilities.shape[0])[:, None] - at[0]
    x = np.arange(probabilities.shape[1]) - at[1]
    core, possible = (
        (y / max(far[0], 0.5)) ** 2 + (x / max(far[1], 0.5)) ** 2 <= 1
        for far in (reach.core, reach.far)
    )
    core &= free
    level = max(PART * float(probabilities[core].max()), FAINT)
    parts, _ = ndimage.label((core | (possible & (probabilities >= level))) & free)
    seed: Mask = parts == parts[at]
    return seed
