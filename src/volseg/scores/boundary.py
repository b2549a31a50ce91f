"""Distances between the surfaces of truth and prediction. Pure functions.

Distances are counted up to a reach, as whole thousandths, so counts of blocks add up exactly; what
lies farther is counted as beyond it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.scores.overlap import ratio
from volseg.types import Mask, Roi, VoxelSize

PARTS = 1000
"""Parts of a unit of length that distances are rounded to."""
BEYOND = -1
"""The distance that stands for all beyond the reach."""
PERCENTILE = 0.95

Distances = Mapping[int, int]
"""Numbers of surface voxels by their distance, in thousandths."""


@dataclass(frozen=True)
class BoundaryScores:
    """Agreement of the surfaces of the foreground.

    Attributes
    ----------
    unit : of lengths: ``nm``, or ``voxel`` where the voxel size is unknown
    tolerance, reach : up to which distances agree, and are known
    truth, predicted : voxels of both surfaces
    precision, recall : parts of the predicted, and of the true surface within the tolerance
    f1 : their harmonic mean, the boundary F1
    mean : distance of a surface voxel from the other surface, of those within the reach
    hausdorff95 : within which 95% of each surface lie; infinite if that is beyond the reach
    beyond : part of the surface voxels whose distance is beyond the reach
    """

    unit: str
    tolerance: float
    reach: float
    truth: int
    predicted: int
    precision: float
    recall: float
    f1: float
    mean: float
    hausdorff95: float
    beyond: float


def find_surface(mask: Mask, *, planar: bool = False, known: Mask | None = None) -> Mask:
    """Find the voxels of a mask with a neighbour over a face that is not of it.

    Beyond the array, and where it is not known, nothing is a surface.

    Examples
    --------
    >>> find_surface(np.array([[[0, 1, 1, 1, 0, 1]]], bool)).astype(int).tolist()
    [[[0, 1, 0, 1, 0, 1]]]
    """
    found = np.zeros(mask.shape, bool)
    for axis in range(1 if planar else 0, 3):
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        differs = mask[tuple(low)] != mask[tuple(high)]
        if known is not None:
            differs &= known[tuple(low)] & known[tuple(high)]
        found[tuple(low)] |= differs
        found[tuple(high)] |= differs
    return found & mask


def count_distances(
    surface: Mask, other: Mask, own: Roi, spacing: VoxelSize, reach: float
) -> Counter[int]:
    """Count the voxels of one surface by their distance from another.

    Parameters
    ----------
    own : the part of the surface that is counted; around it, all within the reach is known
    spacing : lengths of a voxel's sides; infinite along z where slices are unrelated
    reach : largest distance that is told apart
    """
    from scipy import ndimage  # heavy, and only distances need it

    counted = surface[own]
    if not counted.any():
        return Counter()
    if not other.any():
        return Counter({BEYOND: int(counted.sum())})
    if math.isinf(spacing[0]):
        flat = [
            ndimage.distance_transform_edt(~plane, sampling=spacing[1:])
            if plane.any()
            else np.full(plane.shape, np.inf)
            for plane in other[own[0]]
        ]
        distances: NDArray[np.float64] = np.stack(flat)[:, own[1], own[2]][counted]
    else:
        distances = ndimage.distance_transform_edt(~other, sampling=spacing)[own][counted]
    near = distances <= reach
    values, counts = np.unique(
        np.rint(distances[near] * PARTS).astype(np.int64), return_counts=True
    )
    found = Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    if beyond := int((~near).sum()):
        found[BEYOND] = beyond
    return found


def score_boundary(
    truth: Distances, predicted: Distances, unit: str, tolerance: float, reach: float
) -> BoundaryScores:
    """Score surfaces by the distances of each from the other."""
    sides = truth, predicted
    totals = [sum(side.values()) for side in sides]
    most = round(tolerance * PARTS)
    recall, precision = (
        ratio(sum(n for d, n in side.items() if 0 <= d <= most), total)
        for side, total in zip(sides, totals, strict=True)
    )
    known = [(d, n) for side in sides for d, n in side.items() if d != BEYOND]
    within = sum(n for _, n in known)
    f1 = ratio(2 * precision * recall, precision + recall) if precision + recall else 0.0
    return BoundaryScores(
        unit=unit,
        tolerance=tolerance,
        reach=reach,
        truth=totals[0],
        predicted=totals[1],
        precision=precision,
        recall=recall,
        f1=f1,
        mean=ratio(sum(d * n for d, n in known), within * PARTS),
        hausdorff95=max(_percentile(side) for side in sides),
        beyond=ratio(sum(totals) - within, sum(totals)),
    )


def _percentile(side: Distances) -> float:
    """Find the distance that so many voxels do not pass; infinite beyond the reach."""
    total, passed = sum(side.values()), 0
    for distance, count in sorted((d, n) for d, n in side.items() if d != BEYOND):
        passed += count
        if passed >= PERCENTILE * total:
            return distance / PARTS
    return math.inf if total else math.nan
