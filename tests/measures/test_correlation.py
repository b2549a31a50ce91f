"""Correlation of slices: of random fields whose correlation is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage, stats

from volseg.measures.correlation import (
    NOISE,
    choose_distances,
    correlate_slices,
    decay_length,
    fisher_interval,
    independent_samples,
)


@pytest.fixture(scope="module")
def field():
    """A field whose correlation at a distance d along z is exp(-d²/4s²), s = 6; 2 along y and x."""
    noise = np.random.default_rng(1).standard_normal((80, 200, 200))
    return ndimage.gaussian_filter(noise, (6, 2, 2), mode="wrap")


def test_a_gaussian_field_falls_to_1_over_e_at_twice_its_sigma(field):
    for axis, sigma in enumerate((6, 2, 2)):
        found = correlate_slices(field, axis)
        assert decay_length(found.distances, found.plain) == pytest.approx(2 * sigma, rel=0.15)
    found = correlate_slices(field, 0)
    near = found.distances < 12
    expected = np.exp(-(found.distances[near] ** 2) / (4 * 36))
    np.testing.assert_allclose(found.plain[near], expected, atol=0.06)


def test_noise_and_flips_take_correlation_away(field):
    found = correlate_slices(field, 0)
    for level, noisy in zip(NOISE, found.noisy, strict=True):
        np.testing.assert_allclose(noisy, found.plain / math.sqrt(1 + level**2), atol=0.03)
    assert abs(found.flipped).max() < 0.2
    # the farther pixels are moved, the more; less than a flip does
    little, much = (curve[0] for curve in found.distorted)
    assert 0.95 > little > much > 0.1
    mirrored = np.concatenate([field, field[:, :, ::-1]], axis=2)
    assert correlate_slices(mirrored, 0).flipped[0] == pytest.approx(1)


def test_the_interval_is_that_of_scipy():
    rng = np.random.default_rng(2)
    x = rng.standard_normal(50)
    y = x + rng.standard_normal(50)
    exact = stats.pearsonr(x, y)
    low, high = fisher_interval(np.array([exact.statistic]), 50)
    expected = exact.confidence_interval(0.95)
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_slices_of_one_value_have_no_correlation():
    found = correlate_slices(np.ones((3, 4, 5), np.uint8), 0)
    assert np.isnan(found.plain).all()
    assert decay_length(found.distances, found.plain) is None
    one = correlate_slices(np.arange(20.0).reshape(1, 4, 5), 0)
    assert one.plain == pytest.approx([1])


def test_distances_are_few_and_begin_with_all_short_ones():
    assert choose_distances(1).tolist() == [0]
    found = choose_distances(10**6)
    assert found[:24].tolist() == list(range(24))
    assert (len(found) <= 48, found[-1]) == (True, 10**6 - 1)


def test_independent_parts_of_a_slice():
    assert independent_samples((100, 40), (5, None)) == 10
    assert independent_samples((100, 40), (5, 50)) == 10
