"""Describe the size and form of objects from their sums. Pure functions over arrays."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.measures.sums import PAIRS, Moments, Values, about_own_box
from volseg.types import VoxelSize

LARGEST = 2.0**63
"""Voxels times squared extent from which second moments no longer fit 64 bits."""

FLAT = 1e-12
"""Share of an object's largest variance below which a variance is rounding, not thickness."""

Lengths = NDArray[np.floating[Any]]


def too_large(moments: Moments) -> NDArray[np.bool_]:
    """Find the objects whose second moments do not fit 64 bits: thousands of gigavoxels."""
    extent = (moments.stops - moments.starts).max(axis=1, initial=0).astype(float)
    large: NDArray[np.bool_] = moments.voxels * extent**2 >= LARGEST
    return large


def covariances(moments: Moments, voxel_size: VoxelSize) -> NDArray[np.float64]:
    """Find the covariance of each object's voxel centres.

    Parameters
    ----------
    moments : with second moments

    Returns
    -------
    float64, shape (objects, 3, 3); in the square of the voxel size's unit; NaN where `too_large`.
    """
    boxed = about_own_box(moments)
    voxels = boxed.voxels.astype(float)
    mean = boxed.sums / voxels[:, None]
    out = np.empty((len(voxels), 3, 3))
    for k, (a, b) in enumerate(PAIRS):
        spread = boxed.products[:, k] / voxels - mean[:, a] * mean[:, b]
        out[:, a, b] = out[:, b, a] = spread * voxel_size[a] * voxel_size[b]
    out[too_large(moments)] = np.nan
    return out


def principal_axes(
    moments: Moments, voxel_size: VoxelSize
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the axes of the ellipsoid that has the same second moments as each object.

    Parameters
    ----------
    moments : with second moments

    Returns
    -------
    lengths : float64, shape (objects, 3)
        Full lengths, longest first, in the voxel size's unit. An object one voxel thin has 0.
    orientations : float64, shape (objects, 3)
        Unit vectors (z, y, x) along the longest axis; of both ends the one at higher z (then y,
        then x). NaN where all voxels are one.

    Notes
    -----
    A solid ellipsoid of semi-axis a has the variance a^2 / 5 along it.
    """
    spread = covariances(moments, voxel_size)
    known = ~too_large(moments)
    values, vectors = np.linalg.eigh(np.where(known[:, None, None], spread, 0))
    values = np.where(values < FLAT * values[:, -1:], 0, values)[:, ::-1]
    longest = vectors[:, :, -1]
    leading = np.argmax(np.abs(longest) > math.sqrt(FLAT), axis=1)
    signs = np.sign(np.take_along_axis(longest, leading[:, None], axis=1))
    lengths = np.sqrt(20 * values)
    lengths[~known] = np.nan
    return lengths, np.where(lengths[:, :1] > 0, longest * signs, np.nan)


def ratio(above: Lengths, below: Lengths) -> Lengths:
    """Divide; NaN where there is nothing to divide by."""
    out = np.full(len(above), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def equivalent_diameters(volumes: Lengths) -> Lengths:
    """Find the diameters of balls of the same volumes.

    Examples
    --------
    >>> equivalent_diameters(np.array([np.pi / 6]))
    array([1.])
    """
    diameters: Lengths = np.cbrt(6 * volumes / math.pi)
    return diameters


def sphericities(volumes: Lengths, surfaces: Lengths) -> Lengths:
    """Compare the surface of a ball of the same volume with an object's; a ball has 1.

    Nothing has more: it is NaN where too few voxels make the surface too small for the volume.

    Examples
    --------
    >>> sphericities(np.ones(3), np.array([9.672, 4.83, 3.0])).round(3)
    array([0.5, 1. , nan])

    Notes
    -----
    H. Wadell, "Volume, shape, and roundness of quartz particles", J. Geology 1935.
    """
    found = ratio(math.pi ** (1 / 3) * (6 * volumes) ** (2 / 3), surfaces)
    return np.where(found > ROUNDEST, np.nan, np.minimum(found, 1))


ROUNDEST = 1.02
"""Sphericity up to which more than 1 is the error of a surface that is measured on voxels."""


def complexity_indices(volumes: Lengths, surfaces: Lengths) -> Lengths:
    """Find the mitochondrial complexity index, surface^3 / (16 pi^2 volume^2).

    It does not depend on size; a ball has 9 / (4 pi) = 0.716, and branches raise it.

    Notes
    -----
    A. E. Vincent et al., "Quantitative 3D mapping of the human skeletal muscle mitochondrial
    network", Cell Reports 2019.
    """
    return ratio(surfaces**3, 16 * math.pi**2 * volumes**2)


def nearest_neighbours(moments: Moments, voxel_size: VoxelSize, *, apart: bool = False) -> Lengths:
    """Find the distance from each object's centroid to the closest other one.

    Parameters
    ----------
    apart : whether slices are unrelated images, so that only objects of the same one count

    Returns
    -------
    float64, shape (objects,); in the voxel size's unit; NaN where there is no other object.
    """
    from scipy.spatial import cKDTree

    distances: Lengths = np.full(len(moments.labels), np.nan)
    if apart:
        slices = moments.starts[:, 0]
        for k in np.unique(slices):
            own = slices == k
            arrays = (getattr(moments, field.name)[own] for field in fields(moments))
            distances[own] = nearest_neighbours(Moments(*arrays), voxel_size)
        return distances
    if len(distances) < 2:
        return distances
    # near the origin, so that distances do not depend on where the objects lie
    local = moments.sums - moments.voxels[:, None] * moments.starts.min(axis=0)
    tree = cKDTree(local / moments.voxels[:, None] * voxel_size)
    distances[:] = tree.query(tree.data, k=2)[0][:, 1]
    return distances


def standard_deviations(values: Values, voxels: NDArray[np.int64]) -> Lengths:
    """Find the standard deviation of the intensities in each object (divided by its voxels)."""
    lowest = values.lowest
    total = values.total - voxels * lowest
    # sums of squares wrap around at 2**64, and wrap back here, where they are small
    squares = values.squares.view(np.int64) - lowest * (2 * values.total - voxels * lowest)
    mean = total / voxels
    return np.sqrt(np.maximum(squares.view(np.uint64) / voxels - mean**2, 0))
