"""The regression target of EM-Net's auxiliary task: proximity to the centerlines."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from volseg.types import Floats, Mask

ALPHA = 3.0
"""Steepness of the exponential."""
REACH = 15.0
"""Distance, in voxels, at which the score falls to zero (d_M)."""


def centerline_proximity(mask: Mask, alpha: float = ALPHA, reach: float = REACH) -> Floats:
    """Score every foreground voxel by its distance to the centerline of its object.

    Parameters
    ----------
    mask : bool, shape (z, y, x)
    alpha, reach : steepness, and the distance in voxels at which the score falls to zero (d_M).

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
    from skimage.morphology import skeletonize  # heavy, and only training needs it

    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    centerline = skeletonize(mask, method="lee").astype(bool)
    distance = ndimage.distance_transform_edt(~centerline)
    score = np.expm1(alpha * np.clip(1 - distance / reach, 0, None)) / np.expm1(alpha)
    return np.where(mask, score, 0).astype(np.float32)
