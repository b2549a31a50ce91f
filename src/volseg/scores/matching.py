"""Match objects of the truth with predicted ones, one to one, and score what matched.

Two objects match if their IoU, the voxels they share over the voxels of either, reaches a
threshold. Above 0.5 no object can match two others. At 0.5 and below it can: then as many objects
as possible are matched and, among the ways to do that, those with the largest sum of IoU.
Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError
from volseg.measures.border import Borders, reaches_border
from volseg.measures.sums import Extents
from volseg.objects.union_find import connected_groups
from volseg.scores.contingency import Contingency, predicted_objects, truth_objects
from volseg.scores.overlap import ratio
from volseg.types import Roi

THRESHOLDS: tuple[float, ...] = tuple(k / 100 for k in range(50, 101, 5))
"""IoU 0.50, 0.55 ... 1.00: what the mean average precision is a mean over."""
UNIQUE = 0.5
"""Above this IoU an object has at most one partner."""
ASSIGNED_AT_ONCE = 1 << 10
"""Pairs of objects; the time that an assignment takes grows with the square of their number."""

Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Overlaps:
    """The objects of both sides, and how those that share voxels overlap.

    Attributes
    ----------
    truth, predicted : sums over the objects, ascending by label
    first, second : intp, shape (pairs,); positions in ``truth`` and ``predicted``.
    voxels : int64, shape (pairs,); what they share.
    iou : float64, shape (pairs,)
    """

    truth: Extents
    predicted: Extents
    first: Indices
    second: Indices
    voxels: NDArray[np.int64]
    iou: NDArray[np.float64]


def find_overlaps(table: Contingency) -> Overlaps:
    """Collect the objects of a table and the pairs of them that share voxels."""
    truth, predicted = truth_objects(table), predicted_objects(table)
    both = (table.truth > 0) & (table.predicted > 0)
    first = np.searchsorted(truth.labels, table.truth[both])
    second = np.searchsorted(predicted.labels, table.predicted[both])
    shared = table.voxels[both]
    either = truth.voxels[first] + predicted.voxels[second] - shared
    return Overlaps(truth, predicted, first, second, shared, shared / either)


def match(overlaps: Overlaps, threshold: float) -> Indices:
    """Choose the pairs of objects that match.

    Parameters
    ----------
    threshold : IoU from which objects match, above 0 and up to 1

    Returns
    -------
    intp, ascending; positions in the pairs of ``overlaps``; no object is in two of them.
    """
    if not 0 < threshold <= 1:
        raise ParameterError(f"an IoU threshold is above 0 and up to 1, found {threshold}")
    close = np.flatnonzero(overlaps.iou >= threshold)
    first, second = overlaps.first[close], overlaps.second[close]
    alone = (np.bincount(first)[first] == 1) & (np.bincount(second)[second] == 1)
    if threshold > UNIQUE or alone.all():
        return close
    torn = close[~alone]
    chosen = _assign(overlaps.first[torn], overlaps.second[torn], overlaps.iou[torn])
    return np.sort(np.concatenate([close[alone], torn[chosen]]))


def _assign(first: Indices, second: Indices, iou: NDArray[np.float64]) -> Flags:
    """Match as many as possible, then as well as possible; tell which pairs are chosen.

    Objects that no chain of pairs connects do not compete, so the problem falls apart into many.
    """
    group = _connected(first, second)
    order = np.argsort(group, kind="stable")
    heads = np.flatnonzero(np.diff(group[order], prepend=-1))
    # whole groups, each batch up to the first of them that ends beyond its share
    batches = np.unique(heads // ASSIGNED_AT_ONCE, return_index=True)[1][1:]
    chosen = np.zeros(len(first), bool)
    for some in np.split(order, heads[batches]):
        chosen[some] = _assign_together(first[some], second[some], iou[some])
    return chosen


def _connected(first: Indices, second: Indices) -> Indices:
    """Assign the same number to connected pairs."""
    rows, columns = int(first.max()) + 1, int(second.max()) + 1
    group = connected_groups(rows + columns, np.stack([first, second + rows], axis=1))[1]
    return np.asarray(group[first], np.intp)


def _assign_together(first: Indices, second: Indices, iou: NDArray[np.float64]) -> Flags:
    # heavy, and only pairs that compete need it
    from scipy import sparse
    from scipy.sparse import csgraph

    rows, row = np.unique(first, return_inverse=True)
    columns, column = np.unique(second, return_inverse=True)
    count = len(rows)
    # each row has a column of its own to stay alone with, at a price no better IoU makes up for;
    # so a full matching exists, and no dense matrix is needed
    alone = np.arange(count)
    costs = np.concatenate([2 - iou, np.full(count, 2.0 * count + 3)])
    shape = (count, len(columns) + count)
    where = (np.concatenate([row, alone]), np.concatenate([column, len(columns) + alone]))
    graph = sparse.csr_array((costs, where), shape=shape)
    partners = np.empty(count, np.intp)
    own, partner = csgraph.min_weight_full_bipartite_matching(graph)
    partners[own] = partner
    return np.asarray(partners[row] == column)


@dataclass(frozen=True)
class ObjectScores:
    """Numbers of matched objects, and scores, at one IoU threshold.

    Attributes
    ----------
    threshold : IoU
    truth, predicted : objects that count
    matched, missed, false : objects: TP, FN and FP
    recall : TP / (TP + FN)
    precision : TP / (TP + FP)
    f1 : 2 TP / (2 TP + FP + FN)
    average_precision : TP / (TP + FP + FN)
    matched_iou : mean IoU of the matched
    panoptic_quality : f1 times matched_iou
    """

    threshold: float
    truth: int
    predicted: int
    matched: int
    missed: int
    false: int
    recall: float
    precision: float
    f1: float
    average_precision: float
    matched_iou: float
    panoptic_quality: float


@dataclass(frozen=True)
class Matches:
    """Matched pairs and unmatched objects at one IoU threshold.

    Attributes
    ----------
    threshold : IoU
    pairs : positions in the pairs of the `Overlaps`
    missed : bool, shape (truth,); objects of the truth without a partner, but for the excused.
    false : bool, shape (predicted,); predicted objects without a partner, but for the excused.
    """

    threshold: float
    pairs: Indices
    missed: Flags
    false: Flags


@dataclass(frozen=True)
class Excused:
    """Objects that are neither missed nor false, even without a partner.

    Attributes
    ----------
    truth, predicted : bool, shapes (truth,) and (predicted,)
    """

    truth: Flags
    predicted: Flags


def excuse_cut(overlaps: Overlaps, region: Roi | Borders, threshold: float) -> Excused:
    """Excuse the objects that reach the border of a region and do not match at a threshold.

    At higher thresholds the others count, so that a match which is not good enough is no excuse.
    """
    alone = find_matches(overlaps, threshold)
    return Excused(
        alone.missed & reaches_border(overlaps.truth.starts, overlaps.truth.stops, region),
        alone.false & reaches_border(overlaps.predicted.starts, overlaps.predicted.stops, region),
    )


def find_matches(overlaps: Overlaps, threshold: float, excused: Excused | None = None) -> Matches:
    """Match objects at an IoU threshold, and tell which are missed and which are false."""
    pairs = match(overlaps, threshold)
    missed = np.ones(len(overlaps.truth.labels), bool)
    false = np.ones(len(overlaps.predicted.labels), bool)
    missed[overlaps.first[pairs]] = False
    false[overlaps.second[pairs]] = False
    if excused is not None:
        missed &= ~excused.truth
        false &= ~excused.predicted
    return Matches(threshold, pairs, missed, false)


def score_objects(overlaps: Overlaps, matches: Matches) -> ObjectScores:
    """Score the matched objects.

    References
    ----------
    Panoptic quality: Kirillov et al., CVPR 2019. Average precision at a threshold, as the 2018
    Data Science Bowl has it: with the missed in the denominator.
    """
    tp, fn, fp = len(matches.pairs), int(matches.missed.sum()), int(matches.false.sum())
    f1 = ratio(2 * tp, 2 * tp + fp + fn)
    total_iou = float(overlaps.iou[matches.pairs].sum())
    return ObjectScores(
        threshold=matches.threshold,
        truth=tp + fn,
        predicted=tp + fp,
        matched=tp,
        missed=fn,
        false=fp,
        recall=ratio(tp, tp + fn),
        precision=ratio(tp, tp + fp),
        f1=f1,
        average_precision=ratio(tp, tp + fp + fn),
        matched_iou=ratio(total_iou, tp),
        panoptic_quality=ratio(2 * total_iou, 2 * tp + fp + fn),
    )


@dataclass(frozen=True)
class MeanPrecision:
    """Means over the IoU thresholds 0.50, 0.55 ... 1.00.

    Attributes
    ----------
    average_precision : mean of TP / (TP + FP + FN)
    precision : mean of TP / (TP + FP), which some call average precision too
    at : the scores at each threshold
    """

    average_precision: float
    precision: float
    at: tuple[ObjectScores, ...]


def mean_precision(overlaps: Overlaps, cut_by: Roi | Borders | None = None) -> MeanPrecision:
    """Average the precision over all of `THRESHOLDS`.

    Parameters
    ----------
    cut_by : region, optional
        Objects at its border are excused at every threshold if they do not match at the lowest.
    """
    excused = None if cut_by is None else excuse_cut(overlaps, cut_by, THRESHOLDS[0])
    at = tuple(score_objects(overlaps, find_matches(overlaps, t, excused)) for t in THRESHOLDS)
    return MeanPrecision(
        average_precision=_mean([s.average_precision for s in at]),
        precision=_mean([s.precision for s in at]),
        at=at,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
