"""Scores of agreement that follow from a contingency table. Pure functions.

A score whose denominator is 0 is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.scores.contingency import Contingency


@dataclass(frozen=True)
class ForegroundScores:
    """Agreement of foreground and background, voxel by voxel; instances play no role.

    Attributes
    ----------
    both, predicted_only, truth_only, neither : voxels
    dice : 2 TP / (2 TP + FP + FN)
    jaccard : TP / (TP + FP + FN)
    precision : TP / (TP + FP)
    recall : TP / (TP + FN)
    accuracy : (TP + TN) / all
    """

    both: int
    predicted_only: int
    truth_only: int
    neither: int
    dice: float
    jaccard: float
    precision: float
    recall: float
    accuracy: float


def foreground_scores(table: Contingency) -> ForegroundScores:
    """Score the foreground, all labelled voxels."""
    inside, found = table.truth > 0, table.predicted > 0
    tp = int(table.voxels[inside & found].sum())
    fp = int(table.voxels[~inside & found].sum())
    fn = int(table.voxels[inside & ~found].sum())
    tn = table.background
    return ForegroundScores(
        both=tp,
        predicted_only=fp,
        truth_only=fn,
        neither=tn,
        dice=ratio(2 * tp, 2 * tp + fp + fn),
        jaccard=ratio(tp, tp + fp + fn),
        precision=ratio(tp, tp + fp),
        recall=ratio(tp, tp + fn),
        accuracy=ratio(tp + tn, tp + fp + fn + tn),
    )


def ratio(part: float, whole: float) -> float:
    """Divide; NaN where there is nothing to divide by.

    Examples
    --------
    >>> ratio(1, 4), ratio(0, 0)
    (0.25, nan)
    """
    return part / whole if whole else math.nan


@dataclass(frozen=True)
class RandScores:
    """Agreement of two labellings on which pairs of voxels belong together.

    Attributes
    ----------
    error : 1 - the harmonic mean of precision and recall
    precision : of pairs in one segment of the prediction, the part that is in one of the truth
    recall : of pairs in one segment of the truth, the part that is in one of the prediction
    """

    error: float
    precision: float
    recall: float


def adapted_rand(table: Contingency) -> RandScores:
    """Compute the adapted Rand error over the voxels that are foreground in the truth.

    The background of the prediction is a segment like any other.

    References
    ----------
    Arganda-Carreras et al., Frontiers in Neuroanatomy 9:142 (2015); here over pairs of different
    voxels, a voxel with itself being none.
    """
    inside = table.truth > 0
    counts = table.voxels[inside]
    together = _pairs(counts)
    in_truth = _pairs(_group_sums(table.truth[inside], counts))
    in_predicted = _pairs(_group_sums(table.predicted[inside], counts))
    return RandScores(
        error=1 - ratio(2 * together, in_truth + in_predicted),
        precision=ratio(together, in_predicted),
        recall=ratio(together, in_truth),
    )


def _pairs(counts: NDArray[np.int64]) -> float:
    """Count ordered pairs of different voxels in one segment; too many for 64-bit integers."""
    many = counts.astype(np.float64)
    return float((many * (many - 1)).sum())


def _group_sums(labels: NDArray[np.uint64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    found, which = np.unique(labels, return_inverse=True)
    sums = np.zeros(len(found), np.int64)
    np.add.at(sums, which, counts)
    return sums


@dataclass(frozen=True)
class Variation:
    """The variation of information, in bits, in its two parts.

    Attributes
    ----------
    split : H(prediction | truth); large where objects of the truth are cut up
    merge : H(truth | prediction); large where predicted objects join several
    """

    split: float
    merge: float


def variation_of_information(table: Contingency) -> Variation:
    """Compute the variation of information over all voxels; the background is one segment.

    References
    ----------
    Meila, Journal of Multivariate Analysis 98:873 (2007).
    """
    total = table.total
    if not total:
        return Variation(math.nan, math.nan)
    zero = np.zeros(1, np.uint64)
    truth, predicted = np.append(table.truth, zero), np.append(table.predicted, zero)
    counts = np.append(table.voxels, table.background)
    joint = _entropy(counts, total)
    split = joint - _entropy(_group_sums(truth, counts), total)
    merge = joint - _entropy(_group_sums(predicted, counts), total)
    # differences of equal entropies may fall short of 0 by a rounding error
    return Variation(max(split, 0.0), max(merge, 0.0))


def _entropy(counts: NDArray[np.int64], total: int) -> float:
    shares = counts[counts > 0] / total
    return float(-(shares * np.log2(shares)).sum())
