"""Choose which predicted objects to keep, by what is right on held-out regions.

Pure functions over arrays that fit into memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.geometry.grid import full_roi
from volseg.scores.contingency import count_pairs
from volseg.scores.matching import find_overlaps
from volseg.types import FULL_PROBABILITY, level_of

MATCHED = 0.5
"""IoU above which a predicted object is right; no object of the truth has two such partners."""
SPECK = 2
"""Voxels of the largest object of the truth that is taken for a slip of the pen."""
PROBABILITY_STEP = 0.05
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
CHANCE = 0.005
"""Of the Jaccard index of held-out voxels: what differs by less does as well."""


@dataclass(frozen=True)
class Predicted:
    """Objects that were predicted in a region.

    Attributes
    ----------
    truth : number of objects in the truth.
    voxels : int64, shape (objects,)
    means : float64, shape (objects,); mean probability of each, 0..1.
    right : bool, shape (objects,); whether it matches an object of the truth.
    """

    truth: int
    voxels: NDArray[np.int64]
    means: NDArray[np.float64]
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class Selection:
    """Rules for objects, and the F1 score with them and without.

    Attributes
    ----------
    min_size : objects of fewer voxels are dropped.
    min_probability : objects of a lower mean probability are dropped.
    f1, f1_of_all : of objects matched above `MATCHED`, with these rules and without.
    truth, kept, right : numbers of objects: of the truth, kept, and right among those.
    """

    min_size: int
    min_probability: float
    f1: float
    f1_of_all: float
    truth: int
    kept: int
    right: int


@dataclass(frozen=True)
class Sections:
    """Rules for sections of objects, and the Jaccard index of voxels with them and without.

    Attributes
    ----------
    threshold, min_probability : from which voxels are foreground, and sections are kept.
    jaccard, jaccard_of_all : with these rules, and of all at the threshold that was given.
    """

    threshold: float
    min_probability: float
    jaccard: float
    jaccard_of_all: float


def match_components(levels: NDArray[np.uint8], truth: NDArray[np.bool_], level: int) -> Predicted:
    """Find the connected components (26 neighbours) of both masks, and which of them match.

    Parameters
    ----------
    levels : uint8, shape (z, y, x); probabilities, 255 standing for 1.
    truth : bool, shape (z, y, x)
    level : from which a voxel is foreground.

    Examples
    --------
    >>> levels, truth = np.zeros((1, 3, 8), np.uint8), np.zeros((1, 3, 8), bool)
    >>> levels[0, :, :3], levels[0, 0, 5], truth[0, :, :4] = 204, 153, True
    >>> found = match_components(levels, truth, 128)
    >>> found.truth, found.voxels, found.means, found.right
    (1, array([9, 1]), array([0.8, 0.6]), array([ True, False]))
    """
    cube = np.ones((3, 3, 3), bool)
    ours, count = ndimage.label(levels >= level, cube)
    theirs, _ = ndimage.label(truth, cube)
    overlaps = find_overlaps(count_pairs(theirs, ours, full_roi(truth.shape)))
    voxels = overlaps.predicted.voxels
    sums = np.bincount(ours.ravel(), levels.ravel(), minlength=count + 1)
    right = np.zeros(count, bool)
    right[overlaps.second[overlaps.iou > MATCHED]] = True
    meant = int(np.count_nonzero(overlaps.truth.voxels > SPECK))
    return Predicted(meant, voxels, sums[1:] / voxels / FULL_PROBABILITY, right)


def select_objects(regions: Sequence[Predicted], threshold: float) -> Selection | None:
    """Choose the smallest size and the lowest mean probability with the best F1.

    A rule that improves nothing is not set. Of several values that do the same, the middle one is
    taken for the size, and the lowest for the probability.

    Parameters
    ----------
    regions : of which the objects are counted together
    threshold : from which voxels were foreground

    Examples
    --------
    >>> right = np.array([True, True, False, False])
    >>> found = Predicted(2, np.array([900, 700, 9, 4]), np.full(4, 0.8), right)
    >>> chosen = select_objects([found], 0.5)
    >>> chosen.min_size, chosen.min_probability, chosen.f1_of_all, chosen.f1
    (50, 0.0, 0.6666666666666666, 1.0)
    """
    truth = sum(region.truth for region in regions)
    voxels, means, right = (
        np.concatenate([getattr(region, name) for region in regions])
        for name in ("voxels", "means", "right")
    )
    if not right.any():
        return None

    def score(size: int, least: float) -> tuple[float, int, int]:
        kept = (voxels >= size) & (means >= least)
        matched = int(np.count_nonzero(right & kept))
        count = int(np.count_nonzero(kept))
        return 2 * matched / (truth + count), count, matched

    of_all, count, matched = score(0, 0.0)
    sizes = _round_sizes(int(voxels[right].max()))
    steps = np.arange(PROBABILITY_STEP, 1, PROBABILITY_STEP).round(2)
    probabilities = [0.0, *(float(p) for p in steps if p > threshold)]
    scores = {(p, n): score(n, p)[0] for p in probabilities for n in sizes}
    best = max(scores.values())
    if best <= of_all:
        return Selection(0, 0.0, of_all, of_all, truth, count, matched)
    least = min(p for (p, _), f1 in scores.items() if f1 == best)
    equal = [n for n in sizes if scores[least, n] == best]
    smallest = equal[(len(equal) - 1) // 2] if 0 not in equal else 0
    _, count, matched = score(smallest, least)
    return Selection(smallest, least, best, of_all, truth, count, matched)


def select_sections(
    regions: Sequence[tuple[NDArray[np.uint8], NDArray[np.bool_]]],
    threshold: float,
    others: Sequence[float] = THRESHOLDS,
) -> Sections:
    """Choose the threshold and the lowest mean probability with the best Jaccard index of voxels.

    Of pairs within `CHANCE` of the best, the one with the lowest mean is chosen, and the threshold
    nearest to 0.5. A single region chooses no mean: what is true of its few objects may hold for
    them alone.

    Parameters
    ----------
    regions : of probabilities, uint8, 255 standing for 1, and truth, both of shape (z, y, x)
    threshold : that keeps all objects
    others : thresholds that are tried with each lowest mean, beside it

    Examples
    --------
    >>> levels, truth = np.zeros((1, 1, 6), np.uint8), np.zeros((1, 1, 6), bool)
    >>> levels[0, 0] = 255, 255, 100, 0, 140, 140
    >>> truth[0, 0, :3] = True
    >>> select_sections([(levels, truth)] * 2, 0.5, [0.3])
    Sections(threshold=0.3, min_probability=0.55, jaccard=1.0, jaccard_of_all=0.4)
    """
    truth = sum(int(np.count_nonzero(true)) for _, true in regions)
    scores: dict[tuple[float, float], float] = {}
    for least in sorted({threshold, *others}):
        found = [_count_sections(*region, level_of(least)) for region in regions]
        voxels, inside, means = (np.concatenate(parts) for parts in zip(*found, strict=True))
        steps = (
            np.arange(PROBABILITY_STEP, 1, PROBABILITY_STEP).round(2) if len(regions) > 1 else ()
        )
        for mean in (0.0, *(float(p) for p in steps if p > least)):
            kept = means >= mean
            right = int(inside[kept].sum())
            scores[least, mean] = right / max(int(voxels[kept].sum()) + truth - right, 1)
    of_all, best = scores[threshold, 0.0], max(scores.values())
    near = [pair for pair, jaccard in scores.items() if jaccard > best - CHANCE]
    least, mean = min(near, key=lambda pair: (pair[1], abs(pair[0] - 0.5)))
    return Sections(least, mean, scores[least, mean], of_all)


def _count_sections(
    levels: NDArray[np.uint8], truth: NDArray[np.bool_], level: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Count voxels of each component, and those of the truth in it; and take its mean."""
    ours, count = ndimage.label(levels >= level, np.ones((3, 3, 3), bool))
    voxels = np.bincount(ours.ravel(), minlength=count + 1)[1:]
    inside = np.bincount(ours[truth], minlength=count + 1)[1:]
    sums = np.bincount(ours.ravel(), levels.ravel(), minlength=count + 1)[1:]
    return voxels, inside, sums / voxels / FULL_PROBABILITY


def _round_sizes(most: int) -> list[int]:
    """List 0 and the numbers 1, 2, 5, 10, 20 ... up to the most."""
    powers = range(int(math.log10(most)) + 1) if most else range(0)
    return [0, *(n * 10**power for power in powers for n in (1, 2, 5) if n * 10**power <= most)]
