"""Measure the convex hull of one object, and its outlines in slices. Pure functions."""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from volseg.measures.shape import ROUNDEST
from volseg.types import Doubles, Mask, VoxelSize

FACES = np.array([p for k in range(3) for p in (np.eye(3)[k] / 2, -np.eye(3)[k] / 2)])
"""Middles of a voxel's faces, from its own."""
NEAR = 1e-10
"""Voxels beyond a hull that still lie on it, by rounding."""
ROWS = 1 << 22
"""Rows of voxels times faces of a hull that are looked at together."""


def hull_points(mask: Mask) -> Doubles:
    """Find the vertices of the convex hull of the middles of all voxels' faces.

    Parameters
    ----------
    mask : bool, shape (z, y, x), not empty

    Returns
    -------
    float64, shape (n, 3); in voxels, (z, y, x).
    """
    from scipy.spatial import ConvexHull, QhullError

    z, y = np.nonzero(mask.any(axis=2))
    rows = mask[z, y]
    # what lies between the ends of a row lies in the hull
    ends = np.argmax(rows, axis=1), mask.shape[2] - 1 - np.argmax(rows[:, ::-1], axis=1)
    middles = np.concatenate([np.stack([z, y, x], axis=1) for x in ends]).astype(np.float64)
    with suppress(QhullError, ValueError):  # all in one plane, which the faces are not
        middles = middles[ConvexHull(middles).vertices]
    points = (middles[:, None] + FACES).reshape(-1, 3)
    found: Doubles = points[ConvexHull(points).vertices]
    return found


def feret_diameter(points: Doubles, voxel_size: VoxelSize) -> float:
    """Find the largest distance between two points of a hull, in the voxel size's unit.

    Examples
    --------
    >>> feret_diameter(np.array([[0, 0, 0], [0, 3, 4]]), (9.0, 2.0, 2.0))
    10.0
    """
    placed, longest = points * voxel_size, 0.0
    for start in range(0, len(placed), 512):
        apart = placed[start : start + 512, None] - placed[None]
        longest = max(longest, float(np.einsum("ijk,ijk->ij", apart, apart).max()))
    return math.sqrt(longest)


def count_hull_voxels(points: Doubles) -> int:
    """Count the voxels whose middles lie in a hull.

    Examples
    --------
    >>> count_hull_voxels(np.array([[0, 0, 0], [0, 0, 4], [0, 4, 0], [4, 0, 0]]))
    35
    """
    from scipy.spatial import ConvexHull

    planes = ConvexHull(points).equations
    low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
    z, y = (np.arange(low[k], high[k] + 1) for k in range(2))
    rows = np.stack(np.meshgrid(z, y, indexing="ij"), axis=-1).reshape(-1, 2)
    step = max(ROWS // len(planes), 1)
    return sum(_count_in_rows(planes, rows[k : k + step]) for k in range(0, len(rows), step))


def _count_in_rows(planes: Doubles, rows: Doubles) -> int:
    """Count the whole x of each row (z, y) that lie on the inner side of all planes."""
    rest = rows @ planes[:, :2].T + planes[:, 3]
    along = planes[:, 2]
    right, left, flat = along > NEAR, along < -NEAR, np.abs(along) <= NEAR
    last = np.floor(((NEAR - rest[:, right]) / along[right]).min(axis=1, initial=np.inf))
    first = np.ceil(((NEAR - rest[:, left]) / along[left]).max(axis=1, initial=-np.inf))
    inside = (rest[:, flat] <= NEAR).all(axis=1)
    return int((np.maximum(last - first + 1, 0) * inside).sum())


def section_measures(mask: Mask, voxel_size: VoxelSize) -> tuple[float, float, float, float]:
    """Measure the sections of an object with the slices along z; means over its slices.

    Parameters
    ----------
    mask : bool, shape (z, y, x), not empty

    Returns
    -------
    area, perimeter : in the voxel size's unit, and its square
    circularity : 4 pi area / perimeter^2, 1 of a circle
        Without sections of so few pixels that it is above 1.02; NaN if there are no others.
    largest : area of the largest section, no mean

    Notes
    -----
    Crofton's formula in the plane with 4 directions, as in `scikit-image`: lines of one direction
    at a distance d cross an outline of length P in the mean 2 P / (pi d) times.
    """
    _, dy, dx = voxel_size
    sections = mask[mask.any(axis=(1, 2))]
    areas = np.count_nonzero(sections, axis=(1, 2)) * (dy * dx)
    perimeters = np.zeros(len(sections))
    padded = np.pad(sections, ((0, 0), (1, 1), (1, 1)))
    for (y, x), weight in zip(DIRECTIONS, _weights(dy, dx), strict=True):
        height, width = padded.shape[1:]
        here = padded[:, : height - y, max(-x, 0) : width - max(x, 0)]
        there = padded[:, y:, max(x, 0) : width + min(x, 0)]
        perimeters += weight * np.count_nonzero(here != there, axis=(1, 2))
    round_ = 4 * math.pi * areas / perimeters**2
    known = np.minimum(round_[round_ <= ROUNDEST], 1)
    mean = float(known.mean()) if len(known) else math.nan
    return float(areas.mean()), float(perimeters.mean()), mean, float(areas.max())


DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))
"""Steps (y, x) between neighbouring pixels, by angle."""


def _weights(dy: float, dx: float) -> NDArray[np.float64]:
    """Find the length of outline that a crossing in each direction stands for.

    Each direction stands for those that are closest to it.
    """
    angles = np.array([math.atan2(y * dy, x * dx) for y, x in DIRECTIONS])
    before = np.diff(angles, prepend=angles[-1] - math.pi)
    shares = (before + np.roll(before, -1)) / (2 * math.pi)
    lengths = np.array([math.hypot(y * dy, x * dx) for y, x in DIRECTIONS])
    weights: NDArray[np.float64] = math.pi / 2 * shares * dy * dx / lengths
    return weights
