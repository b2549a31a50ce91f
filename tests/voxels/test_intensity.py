"""Intensities: the window maps to -1..1, and counts equal numpy's."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import exposure

from volseg.errors import ParameterError
from volseg.voxels import histogram
from volseg.voxels.histogram import count_intensities
from volseg.voxels.intensity import (
    MOST_KNOTS,
    Preprocessing,
    find_tone,
    normalise,
)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("size", [0, 1, 1003, 40000])
@pytest.mark.parametrize("share", [1, 2, 8])
@pytest.mark.parametrize("loaded", [True, False])
def test_integers_are_counted_exactly(monkeypatch, dtype, size, share, loaded):
    import numba

    if loaded:
        monkeypatch.setitem(sys.modules, "numba", numba)
    else:
        monkeypatch.delitem(sys.modules, "numba")
        monkeypatch.setattr(histogram, "PIECE", 1000)
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(size)
    raw = rng.integers(limits.min // share, limits.max // share, size, dtype, endpoint=True)
    counts, values = count_intensities(raw)
    expected = np.unique(raw, return_counts=True)
    np.testing.assert_array_equal(values[counts > 0], expected[0])
    np.testing.assert_array_equal(counts[counts > 0], expected[1])


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=50))
def test_floats_are_counted_at_the_precision_of_bfloat16(numbers):
    raw = np.array(numbers, np.float32)
    counts, values = count_intensities(raw)
    assert counts.sum() == len(raw)
    assert (np.diff(values[counts > 0]) > 0).all()
    stand_in = np.repeat(values, counts)
    np.testing.assert_allclose(np.sort(raw), stand_in, rtol=2**-7, atol=1e-37)


@given(low=st.integers(0, 200), width=st.integers(1, 300))
def test_the_window_becomes_minus_one_to_one(low, width):
    raw = np.array([low, low + width / 2, low + width, low + 2 * width])
    np.testing.assert_allclose(normalise(raw, (low, low + width)), [-1, 0, 1, 3], atol=1e-5)
    assert normalise(raw, (0, 1)).dtype == np.float32


def _tone_of(raw, preprocessing):
    counts, values = count_intensities(raw)
    seen = counts > 0
    return find_tone(preprocessing, counts[seen], values[seen])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_gamma_correction_is_the_power_law_of_the_window(dtype):
    raw = np.random.default_rng(0).integers(5, 120, (3, 40, 41)).astype(dtype)
    tone = _tone_of(raw, Preprocessing((2, 98), gain=1.3, gamma=0.5))
    low, high = tone.window
    expected = 2 * 1.3 * np.clip((raw.astype(float) - low) / (high - low), 0, None) ** 0.5 - 1
    np.testing.assert_allclose(tone(raw), expected, atol=1e-6)
    assert tone(raw).dtype == np.float32
    assert tone(raw).shape == raw.shape


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 256), ("uint16", 60000), ("int16", 30000)])
def test_equalisation_agrees_with_scikit_image(dtype, top):
    rng = np.random.default_rng(1)
    raw = (rng.beta(2, 5, (20, 60, 60)) * (top - 1)).astype(dtype)
    tone = _tone_of(raw, Preprocessing(equalise=True))
    expected = 2 * exposure.equalize_hist(raw.astype(int), nbins=top) - 1
    np.testing.assert_allclose(tone(raw), expected, atol=4 / MOST_KNOTS)
    if len(np.unique(raw)) <= MOST_KNOTS:
        exact = np.searchsorted(np.sort(raw.ravel()), raw.ravel(), side="right") / raw.size
        np.testing.assert_allclose(tone(raw).ravel(), 2 * exact - 1, atol=1e-6)


@given(dtype=st.sampled_from(["uint8", "uint16", "int16"]), seed=st.integers(0, 2**32 - 1))
def test_looking_up_equals_computing(dtype, seed):
    rng, limits = np.random.default_rng(seed), np.iinfo(dtype)
    raw = rng.integers(limits.min, limits.max, (2, 9, 11), dtype, endpoint=True)
    for given_ in (Preprocessing((0, 90), 0.7, 1.9), Preprocessing(equalise=True), Preprocessing()):
        tone = _tone_of(raw, given_)
        np.testing.assert_array_equal(tone(raw), tone._compute(raw))
        np.testing.assert_array_equal(tone(raw[:, ::-1, ::2]), tone(raw)[:, ::-1, ::2])


def test_without_correction_only_the_window_counts():
    raw = np.arange(250, dtype=np.uint8).reshape(10, 5, 5)
    tone = _tone_of(raw, Preprocessing())
    np.testing.assert_array_equal(tone(raw), normalise(raw, tone.window))


@pytest.mark.parametrize(
    "wrong", [{"percentiles": (99, 1)}, {"percentiles": (-1, 5)}, {"gamma": 0}, {"gain": -1}]
)
def test_a_preprocessing_that_cannot_be_is_refused(wrong):
    with pytest.raises(ParameterError, match="found"):
        Preprocessing(**wrong)
