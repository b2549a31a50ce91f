"""Slices seen by their own intensities: whatever box is read, a voxel becomes the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.errors import ParameterError
from volseg.geometry.grid import full_roi
from volseg.voxels.apart import BINS, CLIP, Apart
from volseg.voxels.intensity import Preprocessing, Tone, choose_preprocessing, find_tone

RAW = np.random.default_rng(2).integers(0, 256, (3, 300, 270), dtype=np.uint8)
RAW[1] = RAW[1] // 4 + 100
WHOLE = Tone((0.0, 255.0))
LOOKS = [
    Preprocessing(each=True, gamma=0.5),
    Preprocessing(equalise="slice"),
    Preprocessing(equalise="local"),
    Preprocessing(equalise="local", each=True, gamma=0.5),
]


@settings(max_examples=8)
@given(look=st.sampled_from(LOOKS), corner=st.tuples(*[st.integers(0, n - 1) for n in RAW.shape]))
def test_a_box_is_a_part_of_the_whole(look, corner):
    box = tuple(slice(c, min(c + 90, n)) for c, n in zip(corner, RAW.shape, strict=True))
    apart = Apart(look, RAW, RAW, WHOLE)
    np.testing.assert_array_equal(apart(RAW[box], box), apart(RAW, full_roi(RAW.shape))[box])


@pytest.mark.parametrize("look", LOOKS)
def test_a_slice_is_what_it_is_alone(look):
    together = Apart(look, RAW, RAW, WHOLE)(RAW, full_roi(RAW.shape))
    for z, plane in enumerate(RAW):
        alone = plane[None].copy()
        seen = Apart(look, alone, alone, WHOLE)(alone, full_roi(alone.shape))
        np.testing.assert_array_equal(together[z], seen[0])


def test_an_image_is_equalised_by_its_own_ranks():
    look = Preprocessing(equalise="slice")
    values, counts = np.unique(RAW[1], return_counts=True)
    seen = Apart(look, RAW, RAW, WHOLE)(RAW, full_roi(RAW.shape))
    np.testing.assert_array_equal(seen[1], find_tone(look, counts, values)(RAW[1]))
    assert abs(seen[1].mean()) < 0.02


def test_surroundings_are_equalised_with_limited_contrast():
    small = RAW[:1, :100, :120] // 16 + 120
    seen = Apart(Preprocessing(equalise="local"), small, small, WHOLE)(small, full_roi(small.shape))
    bins = (small[0] / 255 * BINS).astype(int)
    counts = np.bincount(bins.ravel(), minlength=BINS)
    most = int(CLIP * small.size)
    shares = np.minimum(counts, most) + np.maximum(counts - most, 0).sum() / BINS
    expected = 2 * np.cumsum(shares)[bins] / small.size - 1
    np.testing.assert_allclose(seen[0], expected, atol=1e-6)
    # 16 levels, of which ranks would make all of -1 to 1
    assert 0.2 < np.ptp(seen) < 0.6


def test_combinations_that_do_nothing_are_refused():
    for kind in ("volume", "slice"):
        with pytest.raises(ParameterError, match="do nothing before --equalise"):
            choose_preprocessing(Preprocessing(), 0.5, kind)
    assert choose_preprocessing(Preprocessing(), 0.5, "local").gamma == 0.5
    with pytest.raises(ParameterError, match="equalise is true, slice or local"):
        Preprocessing(equalise="global")
