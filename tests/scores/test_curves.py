"""Curves equal what thresholding at every level gives; areas equal their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.errors import ShapeError
from volseg.scores.curves import count_probabilities, score_curves

seeds = st.integers(0, 2**32 - 1)


def draw(seed, levels=256):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 6, 3))
    truth = (rng.random(shape) < rng.uniform(0.1, 0.9)).astype(np.int16)
    noise = rng.integers(0, levels, shape)
    return np.clip(noise + truth * rng.integers(0, 60), 0, 255).astype(np.uint8), truth


@given(seeds)
def test_histograms_are_of_background_and_foreground(seed):
    probabilities, truth = draw(seed)
    counted = np.random.default_rng(seed).integers(0, 2, truth.shape)
    for mask in (None, counted):
        valid = np.ones(truth.shape, bool) if mask is None else mask > 0
        found = count_probabilities(probabilities, truth, mask)
        for side in (0, 1):
            for level in range(256):
                want = (probabilities == level) & ((truth > 0) == bool(side)) & valid
                assert found[side, level] == want.sum()


@given(seeds, st.sampled_from([3, 40, 256]))
def test_points_are_what_each_threshold_does(seed, levels):
    probabilities, truth = draw(seed, levels)
    truth.flat[0], truth.flat[-1] = 0, 1
    found = score_curves(count_probabilities(probabilities, truth))
    for k in (0, 1, 2, 30, 60, 100, 255):
        predicted, inside = probabilities >= k, truth > 0
        tp = (predicted & inside).sum()
        assert found.recall[k] == pytest.approx(tp / inside.sum())
        assert found.false_positive_rate[k] == (predicted & ~inside).sum() / (~inside).sum()
        assert found.precision[k] == (tp / predicted.sum() if predicted.any() else 1)
        assert found.jaccard[k] == tp / (predicted | inside).sum()
    ends = found.recall[-1], found.false_positive_rate[-1], found.precision[-1], found.jaccard[-1]
    assert ends == (0, 0, 1, 0)
    assert found.best_jaccard == found.jaccard[1:].max()
    level = round(found.best_threshold * 255)
    assert found.jaccard[level] == found.best_jaccard


@given(seeds, st.sampled_from([3, 40, 256]))
def test_the_roc_area_is_the_chance_to_rank_a_pair_right(seed, levels):
    probabilities, truth = draw(seed, levels)
    truth.flat[0], truth.flat[-1] = 0, 1
    inside = probabilities[truth > 0].astype(int)[:, None]
    outside = probabilities[truth == 0].astype(int)[None]
    ranked = ((inside > outside) + (inside == outside) / 2).mean()
    found = score_curves(count_probabilities(probabilities, truth))
    assert found.roc_area == pytest.approx(ranked)


@given(seeds, st.sampled_from([3, 40, 256]))
def test_the_precision_recall_area_is_the_mean_precision_of_foreground(seed, levels):
    probabilities, truth = draw(seed, levels)
    truth.flat[0] = 1
    inside = truth > 0
    # each voxel of the foreground adds the precision at which it is found
    levels_found = probabilities[inside]
    at = [inside[probabilities >= p].mean() for p in levels_found]
    found = score_curves(count_probabilities(probabilities, truth))
    assert found.pr_area == pytest.approx(np.mean(at))


def test_a_perfect_and_a_blind_predictor():
    perfect, blind = np.zeros((2, 256), np.int64), np.zeros((2, 256), np.int64)
    perfect[0, 3], perfect[1, 200] = 90, 10
    blind[0, 7], blind[1, 7] = 90, 10
    found = score_curves(perfect)
    assert (found.pr_area, found.roc_area, found.best_jaccard) == (1, 1, 1)
    assert 3 / 255 < found.best_threshold <= 200 / 255
    found = score_curves(blind)
    assert (found.pr_area, found.roc_area, found.best_jaccard) == (0.1, 0.5, 0.1)


def test_without_foreground_or_background_areas_are_not_defined():
    histogram = np.zeros((2, 256), np.int64)
    histogram[0, 3] = 5
    found = score_curves(histogram)
    assert math.isnan(found.pr_area)
    assert math.isnan(found.roc_area)
    assert math.isnan(found.best_jaccard)
    found = score_curves(histogram[::-1].copy())
    assert found.pr_area == 1
    assert math.isnan(found.roc_area)
    assert np.isfinite(found.precision).all()


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match=r"\(2, 2\) and \(3,\)"):
        count_probabilities(np.zeros((2, 2), np.uint8), np.zeros(3, np.uint8))
    with pytest.raises(ShapeError, match=r"\(2, 256\), found \(2, 3\)"):
        score_curves(np.zeros((2, 3), np.int64))
