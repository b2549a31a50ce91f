"""Precision-recall and ROC curves of probabilities, from two histograms. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ShapeError
from volseg.types import Probabilities
from volseg.voxels.histogram import count_codes

LEVELS = 256


def count_probabilities(
    probabilities: Probabilities, truth: NDArray[Any], counted: NDArray[Any] | None = None
) -> NDArray[np.int64]:
    """Count the voxels of one block by probability, apart for background and foreground.

    Parameters
    ----------
    probabilities : uint8, any shape
    truth : any integer type, same shape; above 0 is foreground.
    counted : any number type, same shape, optional; only voxels above 0 count.

    Returns
    -------
    int64, shape (2, 256)
        Background and foreground of the truth; those of several blocks may be added.

    Examples
    --------
    >>> found = count_probabilities(np.array([7, 7, 9], np.uint8), np.array([0, 1, 1]))
    >>> [row.nonzero()[0].tolist() for row in found]
    [[7], [7, 9]]
    """
    if probabilities.shape != truth.shape:
        raise ShapeError(
            f"probabilities and truth must have one shape, found {probabilities.shape} and "
            f"{truth.shape}"
        )
    flat, inside = probabilities.reshape(-1), truth.reshape(-1) > 0
    if counted is not None:
        chosen = counted.reshape(-1) > 0
        flat, inside = flat[chosen], inside[chosen]
    foreground = count_codes(flat[inside])
    return np.stack([count_codes(flat) - foreground, foreground])


@dataclass(frozen=True)
class Curves:
    """Scores at every threshold; a voxel is foreground at or above the threshold.

    Attributes
    ----------
    thresholds : float64, shape (257,)
        Probabilities, ascending from 0; the last is above 1, where both curves end.
    precision, recall, false_positive_rate, jaccard : float64, shape (257,)
        Precision is 1 where nothing is foreground.
    pr_area : area under precision over recall, in steps; NaN without foreground in the truth
    roc_area : area under recall over false positive rate; NaN if the truth is all of one kind
    best_threshold : with the best Jaccard index; the middle one of several
    best_jaccard : at that threshold
    """

    thresholds: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    false_positive_rate: NDArray[np.float64]
    jaccard: NDArray[np.float64]
    pr_area: float
    roc_area: float
    best_threshold: float
    best_jaccard: float


def score_curves(histogram: NDArray[np.int64]) -> Curves:
    """Compute the curves from the histograms of background and foreground.

    The area under the precision-recall curve is a sum of steps, sum over k of
    (R_k - R_(k+1)) P_k, because straight lines between its points are too favourable (Davis and
    Goadrich, ICML 2006); that under the ROC curve is that of straight lines.

    Parameters
    ----------
    histogram : int64, shape (2, 256)

    Examples
    --------
    >>> histogram = np.zeros((2, 256), np.int64)
    >>> histogram[0, 10], histogram[1, 51], histogram[0, 51] = 9, 3, 1
    >>> found = score_curves(histogram)
    >>> found.best_jaccard, round(found.best_threshold * 255), round(found.roc_area, 3)
    (0.75, 31, 0.95)
    """
    if histogram.shape != (2, LEVELS):
        raise ShapeError(f"expected histograms of shape (2, {LEVELS}), found {histogram.shape}")
    # beyond the highest level nothing is foreground
    ended = np.pad(histogram, ((0, 0), (0, 1)))
    fp, tp = ended[:, ::-1].cumsum(axis=1)[:, ::-1]
    negatives, positives = histogram.sum(axis=1)
    precision = np.where(tp + fp > 0, tp / np.maximum(tp + fp, 1), 1.0)
    jaccard = tp / np.maximum(positives + fp, 1)
    recall = tp / positives if positives else np.full(LEVELS + 1, math.nan)
    fpr = fp / negatives if negatives else np.full(LEVELS + 1, math.nan)
    roc_area = float((-np.diff(fpr) * (recall[1:] + recall[:-1]) / 2).sum())
    best = middle_of_best(jaccard[:-1])
    return Curves(
        thresholds=np.arange(LEVELS + 1) / (LEVELS - 1),
        precision=precision,
        recall=recall,
        false_positive_rate=fpr,
        jaccard=jaccard,
        pr_area=float((-np.diff(recall) * precision[:-1]).sum()),
        roc_area=roc_area,
        best_threshold=best / (LEVELS - 1) if positives else math.nan,
        best_jaccard=float(jaccard[best]) if positives else math.nan,
    )


def middle_of_best(jaccard: NDArray[np.float64]) -> int:
    """Find the best of the thresholds above 0; the middle one, the safest, where several are.

    Level 0 makes everything foreground, and labelling takes no such threshold.
    """
    best = np.flatnonzero(jaccard[1:] == jaccard[1:].max()) + 1
    return int(best[len(best) // 2])
