"""Scores agree with scikit-image and with their definitions, voxel pair by voxel pair."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import adapted_rand_error
from skimage.metrics import variation_of_information as skimage_variation

from volseg.geometry.grid import full_roi
from volseg.scores.contingency import count_pairs
from volseg.scores.overlap import adapted_rand, foreground_scores, variation_of_information

CASES = {
    "no truth": (np.zeros((2, 3, 4), np.uint8), np.ones((2, 3, 4), np.uint8)),
    "no prediction": (np.ones((2, 3, 4), np.uint8), np.zeros((2, 3, 4), np.uint8)),
    "nothing": (np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 4), np.uint8)),
    "all foreground": (np.ones((2, 3, 4), np.uint8), np.full((2, 3, 4), 3, np.uint8)),
    "one voxel": (np.ones((1, 1, 1), np.uint8), np.ones((1, 1, 1), np.uint8)),
    "one object": (np.eye(3, dtype=np.uint8)[None], np.eye(3, dtype=np.uint8)[None]),
}
drawn = st.tuples(st.tuples(*[st.integers(1, 6)] * 3), st.integers(0, 2**32 - 1))


def draw(shape, seed):
    rng = np.random.default_rng(seed)
    return [
        (rng.integers(0, 6, shape) * (rng.random(shape) < rng.random())).astype(np.int64)
        for _ in range(2)
    ]


def table_of(truth, predicted):
    return count_pairs(truth, predicted, full_roi(truth.shape))


def same(found, want):
    return (math.isnan(found) and math.isnan(want)) or found == pytest.approx(want, abs=1e-9)


def pairs_one_by_one(truth, predicted):
    """Count pairs of voxels together in both, in the truth and in the prediction."""
    inside = truth.ravel() > 0
    a, b = truth.ravel()[inside], predicted.ravel()[inside]
    together = in_truth = in_predicted = 0
    for i in range(len(a)):
        for j in range(i):
            in_truth += a[i] == a[j]
            in_predicted += b[i] == b[j]
            together += a[i] == a[j] and b[i] == b[j]
    return together, in_truth, in_predicted


def check_against_scikit_image(truth, predicted):
    table = table_of(truth, predicted)
    truth, predicted = truth.astype(np.int64), predicted.astype(np.int64)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # it divides by 0
        error, *parts = adapted_rand_error(truth, predicted)
        split, merge = skimage_variation(truth, predicted)
    rand, found = adapted_rand(table), variation_of_information(table)
    assert same(rand.error, error)
    # its two parts have each other's names; see the next test
    assert same(rand.precision, parts[1])
    assert same(rand.recall, parts[0])
    assert same(found.split, split)
    assert same(found.merge, merge)


@given(drawn)
def test_random_labels_agree_with_scikit_image(drawn):
    check_against_scikit_image(*draw(*drawn))


@pytest.mark.parametrize("case", CASES)
def test_degenerate_labels_agree_with_scikit_image(case):
    check_against_scikit_image(*CASES[case])


@given(st.tuples(st.tuples(*[st.integers(1, 4)] * 3), st.integers(0, 2**32 - 1)))
def test_rand_scores_are_what_counting_pairs_gives(drawn):
    truth, predicted = draw(*drawn)
    together, in_truth, in_predicted = pairs_one_by_one(truth, predicted)
    found = adapted_rand(table_of(truth, predicted))
    assert same(found.precision, together / in_predicted if in_predicted else math.nan)
    assert same(found.recall, together / in_truth if in_truth else math.nan)


@given(drawn)
def test_foreground_scores_are_those_of_the_masks(drawn):
    truth, predicted = draw(*drawn)
    t, p = truth > 0, predicted > 0
    found = foreground_scores(table_of(truth, predicted))
    tp, fp, fn = (int(m.sum()) for m in (t & p, ~t & p, t & ~p))
    counts = (found.both, found.predicted_only, found.truth_only, found.neither)
    assert counts == (tp, fp, fn, t.size - tp - fp - fn)
    assert same(found.jaccard, tp / (t | p).sum() if (t | p).any() else math.nan)
    both_sizes = int(t.sum() + p.sum())
    assert same(found.dice, 2 * tp / both_sizes if both_sizes else math.nan)
    assert same(found.precision, tp / p.sum() if p.any() else math.nan)
    assert same(found.recall, tp / t.sum() if t.any() else math.nan)
    assert same(found.accuracy, float((t == p).mean()))


def test_splits_and_merges_are_told_apart():
    one, two = np.ones((1, 1, 8), np.uint8), np.repeat([1, 2], 4).astype(np.uint8)[None, None]
    cut = variation_of_information(table_of(one, two))
    joined = variation_of_information(table_of(two, one))
    assert (cut.split, cut.merge) == (1.0, 0.0)
    assert (joined.split, joined.merge) == (0.0, 1.0)
    assert adapted_rand(table_of(one, two)).precision == 1
    assert adapted_rand(table_of(two, one)).recall == 1


def test_a_perfect_prediction_is_perfect_whatever_its_numbers():
    truth = np.random.default_rng(1).integers(0, 9, (4, 8, 8))
    table = table_of(truth, np.array([0, 5, 4, 3, 2, 1, 60, 70, 80])[truth])
    assert foreground_scores(table).jaccard == 1
    assert adapted_rand(table).error == pytest.approx(0)
    found = variation_of_information(table)
    assert (found.split, found.merge) == pytest.approx((0, 0))


def test_counts_too_large_for_squares_in_64_bits():
    truth = np.ones((1, 1, 2), np.uint8)
    table = table_of(truth, np.array([[[1, 2]]], np.uint8))
    table.voxels[:] = 5 * 10**12
    found = adapted_rand(table)
    assert found.recall == pytest.approx(0.5)
    assert found.precision == 1
