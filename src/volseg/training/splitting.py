"""Choose, on held-out regions, by which seeds objects that touch are told apart. Pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.geometry.grid import full_roi
from volseg.objects.splitting import Splitter
from volseg.scores.contingency import count_pairs
from volseg.scores.matching import find_overlaps
from volseg.training.selection import MATCHED
from volseg.types import Probabilities, VoxelSize, level_of

SURE = (0.5, 0.65, 0.8, 0.9)
CONTOURS = (0.2, 0.3, 0.4, 0.5, 0.6)
FEWEST = (1, 4, 10)
VOTES = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
"""Settings that are tried."""
CUBE = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Touching:
    """A held-out region in which objects are whole.

    Attributes
    ----------
    guides : class, contour and, if the network gives it, distance; or class and offsets; uint8,
        shape (z, y, x).
    truth : integer, shape (z, y, x).
    """

    guides: tuple[Probabilities, ...]
    truth: NDArray[np.int64]


@dataclass(frozen=True)
class Seeds:
    """Settings of `volseg.objects.splitting.Splitter`, and F1 of objects with it and without."""

    sure: float
    contour: float
    fewest: int
    f1: float
    f1_unsplit: float


def label_region(
    guides: Sequence[Probabilities], level: int, splitter: Splitter | None, smallest: int = 0
) -> NDArray[np.int64]:
    """Label a region as `volseg label --split contour` or `offset` does.

    Parameters
    ----------
    level : from which a voxel is foreground
    splitter : None leaves components whole
    smallest : voxels of the smallest component
    """
    components = ndimage.label(guides[0] >= level, CUBE)[0]
    found, count = np.zeros(components.shape, np.int64), 0
    for number, box in enumerate(ndimage.find_objects(components), 1):
        mask = components[box] == number
        if mask.sum() < smallest:
            continue
        pieces = np.ones(mask.shape, np.int32)
        if splitter is not None:
            pieces = splitter(mask, [guide[box] for guide in guides])
        found[box][mask] = pieces[mask] + count
        count += int(pieces.max())
    return found


def count_matched(found: NDArray[np.int64], truth: NDArray[np.int64]) -> tuple[int, int, int]:
    """Count objects matched above IoU 0.5, those found, and those of the truth.

    Examples
    --------
    >>> truth = np.array([[[1, 1, 1, 0, 2, 2]]])
    >>> count_matched(np.array([[[5, 5, 0, 0, 7, 0]]]), truth)
    (1, 2, 2)
    """
    overlaps = find_overlaps(count_pairs(truth, found, full_roi(truth.shape)))
    matched = int(np.count_nonzero(overlaps.iou > MATCHED))
    return matched, len(overlaps.predicted.labels), len(overlaps.truth.labels)


def score(
    regions: Sequence[Touching], level: int, splitter: Splitter | None, smallest: int = 0
) -> float:
    """Compute F1 of the objects of all regions together."""
    counts = [
        count_matched(label_region(r.guides, level, splitter, smallest), r.truth) for r in regions
    ]
    matched, found, truth = np.sum(counts, axis=0).tolist()
    return float(2 * matched / max(found + truth, 1))


def choose_seeds(
    regions: Sequence[Touching],
    threshold: float,
    *,
    spacing: VoxelSize = (1.0, 1.0, 1.0),
    smallest: int = 0,
) -> Seeds:
    """Choose the settings of seeds with the best F1; of equal ones the first.

    Parameters
    ----------
    regions : that are held out
    threshold : probability from which a voxel is foreground
    spacing, smallest : of `volseg.objects.splitting.Splitter`
    """
    level = level_of(threshold)
    unsplit, best = score(regions, level, None, smallest), None
    for sure, contour, fewest in itertools.product(SURE, CONTOURS, FEWEST):
        if sure < threshold and sure != SURE[-1]:
            continue
        splitter = Splitter(
            "contour",
            spacing,
            smallest=smallest,
            sure=level_of(sure),
            contour=level_of(contour),
            fewest=fewest,
        )
        f1 = score(regions, level, splitter, smallest)
        if best is None or f1 > best.f1:
            best = Seeds(sure, contour, fewest, f1, unsplit)
    if best is None:
        raise ValueError("no settings of seeds were tried")
    return best


def choose_votes(
    regions: Sequence[Touching], threshold: float, splitter: Splitter
) -> dict[str, float]:
    """Choose how many votes a seed takes, by the best F1; of equal ones the fewest.

    Parameters
    ----------
    regions : that are held out, with class and offsets
    threshold : probability from which a voxel is foreground
    splitter : by offsets, but for the votes

    Returns
    -------
    the votes, F1 of objects with them, and without splitting.
    """
    level = level_of(threshold)
    tried = [replace(splitter, votes=votes) for votes in VOTES]
    f1, least = max((score(regions, level, s, s.smallest), -s.votes) for s in tried)
    unsplit = score(regions, level, None, splitter.smallest)
    return {"votes": -least, "votes_f1": f1, "f1_unsplit": unsplit}
