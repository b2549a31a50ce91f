"""Compare the intensities of one object with those around it. Pure functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Mask, VoxelSize

REACH_NM, REACH_VOXELS = 100.0, 10
"""Reach of surroundings in a slice; in voxels where their size is unknown."""


def reach(voxel_size: VoxelSize | None) -> tuple[int, int]:
    """Find how many voxels surroundings reach along y and x.

    Examples
    --------
    >>> reach((50.0, 5.0, 8.0)), reach(None)
    ((20, 12), (10, 10))
    """
    if voxel_size is None:
        return REACH_VOXELS, REACH_VOXELS
    y, x = (max(int(REACH_NM / side), 1) for side in voxel_size[1:])
    return y, x


def compare_surroundings(
    mask: Mask, raw: NDArray[Any], reached: tuple[int, int]
) -> tuple[float, float]:
    """Compare an object with what lies around it in its slices, other objects among them.

    Parameters
    ----------
    mask : bool, shape (z, y, x)
        The object, in a box that holds its surroundings, as far as the volume does.
    raw : of the same box
    reached : voxels along y and x that belong to the surroundings

    Returns
    -------
    darkness : mean around less mean inside, in standard deviations around
    evenness : standard deviation around over that inside
        Above 1 where the object is the more even one. NaN where there is nothing to compare.

    Examples
    --------
    >>> raw = np.array([[[9.0, 7.0, 4.0, 4.5, 9.0, 7.0]]])
    >>> compare_surroundings(raw < 5, raw, (1, 2))
    (3.75, 4.0)
    """
    from scipy import ndimage

    height, width = (2 * n + 1 for n in reached)
    near = ndimage.maximum_filter(mask.view(np.uint8), (1, height, width), mode="constant")
    around = raw[(near > 0) & ~mask].astype(np.float64)
    inside = raw[mask].astype(np.float64)
    if not around.size:
        return math.nan, math.nan
    spread, own = float(around.std()), float(inside.std())
    darkness = float(around.mean() - inside.mean()) / spread if spread else math.nan
    return darkness, spread / own if own else math.nan
