"""Matching agrees with a dense assignment over all pairs of objects."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from volseg.errors import ParameterError
from volseg.geometry.grid import full_roi
from volseg.measures.border import reaches_border
from volseg.scores.contingency import count_pairs
from volseg.scores.matching import (
    THRESHOLDS,
    _assign,
    excuse_cut,
    find_matches,
    find_overlaps,
    match,
    mean_precision,
    score_objects,
)

drawn = st.tuples(st.tuples(*[st.integers(1, 7)] * 3), st.integers(0, 2**32 - 1))
thresholds = st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.55, 0.8, 1.0])


def draw(shape, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 6, shape) * (rng.random(shape) < rng.random())
    moved = np.where(rng.random(shape) < rng.random(), truth, rng.integers(0, 8, shape))
    return truth, moved * (rng.random(shape) < 0.9)


def overlaps_of(truth, predicted):
    return find_overlaps(count_pairs(truth, predicted, full_roi(truth.shape)))


def dense_iou(truth, predicted):
    """Compare every object with every other, as whole masks."""
    ours, theirs = (np.unique(a[a > 0]) for a in (truth, predicted))
    found = np.zeros((len(ours), len(theirs)))
    for i, t in enumerate(ours):
        for j, p in enumerate(theirs):
            a, b = truth == t, predicted == p
            found[i, j] = (a & b).sum() / (a | b).sum()
    return found


def best_by_assignment(iou, threshold):
    """Match as many as possible, then as well as possible; count and sum of IoU."""
    gain = np.where(iou >= threshold, iou + 100, 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    kept = iou[rows, columns] >= threshold
    return int(kept.sum()), float(iou[rows, columns][kept].sum())


@given(drawn, thresholds)
def test_matching_equals_a_dense_assignment(drawn, threshold):
    truth, predicted = draw(*drawn)
    overlaps, iou = overlaps_of(truth, predicted), dense_iou(truth, predicted)
    sparse = np.zeros_like(iou)
    sparse[overlaps.first, overlaps.second] = overlaps.iou
    np.testing.assert_array_equal(sparse, iou)
    pairs = match(overlaps, threshold)
    assert len(np.unique(overlaps.first[pairs])) == len(pairs)
    assert len(np.unique(overlaps.second[pairs])) == len(pairs)
    assert (overlaps.iou[pairs] >= threshold).all()
    count, total = best_by_assignment(iou, threshold)
    assert len(pairs) == count
    assert overlaps.iou[pairs].sum() == pytest.approx(total)


@given(drawn, thresholds)
def test_scores_follow_from_the_counts(drawn, threshold):
    truth, predicted = draw(*drawn)
    overlaps, iou = overlaps_of(truth, predicted), dense_iou(truth, predicted)
    found = score_objects(overlaps, find_matches(overlaps, threshold))
    tp, total = best_by_assignment(iou, threshold)
    fn, fp = iou.shape[0] - tp, iou.shape[1] - tp
    assert (found.matched, found.missed, found.false) == (tp, fn, fp)
    assert (found.truth, found.predicted) == iou.shape
    if tp + fn + fp:
        assert found.average_precision == tp / (tp + fn + fp)
        assert found.f1 == pytest.approx(tp / (tp + (fp + fn) / 2))
        assert found.panoptic_quality == pytest.approx(total / (tp + (fp + fn) / 2))
    else:
        assert math.isnan(found.average_precision)
    if tp:
        assert found.panoptic_quality == pytest.approx(found.f1 * found.matched_iou)


def test_at_a_half_a_prediction_may_fit_two_and_takes_one():
    truth = np.array([[[1, 1, 0]]])
    found = overlaps_of(truth, np.array([[[5, 6, 0]]]))
    assert found.iou.tolist() == [0.5, 0.5]
    assert len(match(found, 0.5)) == 1
    assert len(match(found, 0.51)) == 0


def test_more_matches_come_before_better_ones():
    # truth 1 and prediction 7 fit best, but then truth 2 and prediction 8 stay alone
    truth = np.repeat([1, 2], [8, 5])[None, None]
    predicted = np.repeat([8, 7, 7], [2, 6, 5])[None, None]
    found = overlaps_of(truth, predicted)
    pairs = match(found, 0.2)
    labels = zip(
        found.truth.labels[found.first[pairs]].tolist(),
        found.predicted.labels[found.second[pairs]].tolist(),
        strict=True,
    )
    assert set(labels) == {(1, 8), (2, 7)}


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, math.nan])
def test_thresholds_out_of_range_are_refused(threshold):
    found = overlaps_of(np.ones((1, 1, 1), int), np.ones((1, 1, 1), int))
    with pytest.raises(ParameterError, match="above 0 and up to 1"):
        match(found, threshold)


def test_mean_precision_is_over_eleven_thresholds():
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
    # IoU 1.0, IoU 11/20 = 0.55 and a false one
    truth = np.repeat([1, 2, 2, 0], [5, 11, 9, 4])[None, None]
    predicted = np.repeat([4, 3, 0, 9], [5, 11, 9, 4])[None, None]
    found = mean_precision(overlaps_of(truth, predicted))
    assert [s.matched for s in found.at] == [2, 2, *[1] * 9]
    assert found.average_precision == pytest.approx((2 * 2 / 3 + 9 * 1 / 4) / 11)
    assert found.precision == pytest.approx((2 * 2 / 3 + 9 * 1 / 3) / 11)


def test_objects_at_the_border_are_excused_but_may_match():
    truth, predicted = np.zeros((6, 6, 6), int), np.zeros((6, 6, 6), int)
    truth[0, 1:3, 1:3], truth[3, 3, 3], truth[2:4, 1, 0:2] = 1, 2, 3
    predicted[5, 1:3, 1:3], predicted[1, 3, 3], predicted[2:4, 1, 0:2] = 4, 5, 6
    overlaps = overlaps_of(truth, predicted)
    strict = score_objects(overlaps, find_matches(overlaps, 0.5))
    assert (strict.matched, strict.missed, strict.false) == (1, 2, 2)
    excused = excuse_cut(overlaps, full_roi(truth.shape), 0.5)
    found = score_objects(overlaps, find_matches(overlaps, 0.5, excused))
    assert (found.matched, found.missed, found.false) == (1, 1, 1)
    assert (found.recall, found.precision) == (0.5, 0.5)
    inner = (slice(0, 6), slice(0, 6), slice(1, 6))
    assert reaches_border(overlaps.truth.starts, overlaps.truth.stops, inner).tolist() == [
        True,
        False,
        True,
    ]


def test_a_match_at_the_border_that_is_not_good_enough_is_no_excuse():
    truth, predicted = np.zeros((4, 4, 10), int), np.zeros((4, 4, 10), int)
    truth[0, 0, :10], predicted[0, 0, :8] = 1, 2  # IoU 0.8
    predicted[3, 3, 3] = 3  # excused
    found = mean_precision(overlaps_of(truth, predicted), full_roi(truth.shape))
    assert [s.average_precision for s in found.at] == [1.0] * 7 + [0.0] * 4
    assert found.average_precision == pytest.approx(7 / 11)


@pytest.mark.parametrize(("truth", "predicted"), [(0, 0), (0, 3), (3, 0), (3, 3)])
def test_degenerate_volumes(truth, predicted):
    overlaps = overlaps_of(np.full((2, 2, 2), truth), np.full((2, 2, 2), predicted))
    found = score_objects(overlaps, find_matches(overlaps, 0.3))
    mean = mean_precision(overlaps)
    assert (found.truth, found.predicted) == (int(truth > 0), int(predicted > 0))
    if truth and predicted:
        assert (found.f1, found.panoptic_quality, mean.average_precision) == (1, 1, 1)
    elif truth or predicted:
        assert (found.f1, found.panoptic_quality, mean.average_precision) == (0, 0, 0)
        assert math.isnan(found.precision if truth else found.recall)
    else:
        assert math.isnan(found.f1)
        assert math.isnan(mean.average_precision)


def test_long_chains_of_objects_need_no_dense_matrix():
    # every object overlaps its two neighbours by half
    n = 40_000
    truth = np.repeat(np.arange(1, n + 1), 4)[None, None]
    predicted = np.roll(np.repeat(np.arange(1, n + 1), 4), 2)
    predicted[:2] = 0
    found = overlaps_of(truth, predicted[None, None])
    assert len(match(found, 0.3)) == n


def test_a_hundred_thousand_torn_objects_take_time_in_proportion():
    count = 100_000
    rng = np.random.default_rng(3)
    # threes that overlap in a chain, and their best matching, chain by chain
    iou = rng.uniform(0.1, 0.4, (count // 3, 4))
    first = np.tile([0, 1, 1, 2], (len(iou), 1)) + 3 * np.arange(len(iou))[:, None]
    second = np.tile([0, 0, 1, 1], (len(iou), 1)) + 2 * np.arange(len(iou))[:, None]
    shuffled = rng.permutation(first.size)
    chosen = _assign(first.ravel()[shuffled], second.ravel()[shuffled], iou.ravel()[shuffled])
    best = np.maximum(iou[:, 0] + np.maximum(iou[:, 2], iou[:, 3]), iou[:, 1] + iou[:, 3])
    assert chosen.sum() == 2 * len(iou)
    assert iou.ravel()[shuffled][chosen].sum() == pytest.approx(best.sum())
