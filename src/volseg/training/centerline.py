"""The regression target of EM-Net's auxiliary task: proximity to the centerlines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Floats, Mask, VoxelSize

ALPHA = 3.0
"""Steepness of the exponential."""
REACH_NM = 75.0
"""Distance, in nm, at which the score falls to zero: the published d_M of 15 voxels of 5 nm."""


def centerline_proximity(
    mask: Mask, alpha: float = ALPHA, reach: float = REACH_NM, spacing: VoxelSize = (5.0, 5.0, 5.0)
) -> Floats:
    """Score every foreground voxel by its distance to the centerline of its object.

    Parameters
    ----------
    mask : bool, shape (z, y, x)
    alpha, reach : steepness, and the distance in nm at which the score falls to zero (d_M).
    spacing : nm (z, y, x) of a voxel

    Returns
    -------
    float32, shape (z, y, x)
        1 on the centerline, 0 on the background and beyond the reach. The published score
        reaches exp(alpha) - 1, which no sigmoid can; here it is divided by that.

    Notes
    -----
    Source: Yuan et al. 2020, eq. 2. Centerlines are the 3D thinning of Lee et al. 1994.

    Examples
    --------
    >>> rod = np.zeros((3, 3, 9), bool); rod[1, 1] = True
    >>> float(centerline_proximity(rod)[1, 1].max()), float(centerline_proximity(rod)[0].max())
    (1.0, 0.0)
    """
    from scipy import ndimage  # heavy, and only training needs it
    from skimage.morphology import skeletonize  # heavy, and only training needs it

    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    centerline = skeletonize(mask, method="lee").astype(bool)
    distance = ndimage.distance_transform_edt(~centerline, sampling=spacing)
    score = np.expm1(alpha * np.clip(1 - distance / reach, 0, None)) / np.expm1(alpha)
    return np.where(mask, score, 0).astype(np.float32)


def object_proximity(
    labels: NDArray[Any], alpha: float, reach: float, spacing: VoxelSize
) -> NDArray[np.float16]:
    """Score the voxels of whole objects, each by its own centerline.

    Parameters
    ----------
    labels : integer, shape (z, y, x)
        Instances or, where there is one value, a mask whose 26-connected components are objects.
    alpha, reach, spacing : see `centerline_proximity`

    Returns
    -------
    float16, shape of ``labels``

    Examples
    --------
    >>> rods = np.zeros((5, 12, 5), np.uint8); rods[1:4, 1:4] = 1; rods[1:4, 8:11] = 2
    >>> found = object_proximity(rods, 3.0, 75.0, (5.0, 5.0, 5.0))
    >>> int((found[:, 1:4] == 1).sum()), int((found[:, 8:11] == 1).sum())
    (3, 3)
    """
    from scipy import ndimage  # heavy, and only training needs it

    named = labels
    if labels.max() <= 1 or len(np.unique(labels[labels > 0])) == 1:
        named = ndimage.label(labels > 0, np.ones((3, 3, 3)))[0]
    found = np.zeros(labels.shape, np.float16)
    numbers, compact = np.unique(named, return_inverse=True)
    # numbers from 1, of which the first may be the background's
    boxes = ndimage.find_objects(compact.reshape(named.shape) + 1)
    for number, box in zip(numbers, boxes, strict=True):
        if number > 0:
            own = named[box] == number
            found[box][own] = centerline_proximity(own, alpha, reach, spacing)[own]
    return found
