"""Intensities: the window maps to -1..1, and counts equal numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.intensity import COUNTED_AT_ONCE, count_intensities, normalise


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("size", [0, 1, 1000, COUNTED_AT_ONCE + 17])
@pytest.mark.parametrize("share", [1, 2, 8])
def test_integers_are_counted_exactly(dtype, size, share):
    """Whatever part of its range a type uses: wide and narrow ones are counted differently."""
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
