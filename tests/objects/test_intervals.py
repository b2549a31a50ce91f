"""Sets of voxels as intervals are those of the mask that they were found in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volseg.geometry.grid import full_roi
from volseg.objects.intervals import find_intervals, overlapping, paint_intervals

SHAPE = (4, 9, 11)
boxes = st.tuples(*[st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SHAPE]).map(
    lambda sides: tuple(slice(a, max(b, a + 1)) for a, b in sides)
)


def draw(seed, density=0.4):
    return np.random.default_rng(seed).random(SHAPE) < density


@given(seed=st.integers(0, 2**32 - 1), found_in=boxes, seen_in=boxes)
def test_what_is_found_in_a_box_is_painted_in_any_other(seed, found_in, seen_in):
    mask = draw(seed)
    spans = find_intervals(mask[found_in], found_in, SHAPE)
    kept = np.zeros(SHAPE, bool)
    kept[found_in] = mask[found_in]
    assert (spans[:, 1] - spans[:, 0]).sum() == kept.sum()
    into = np.full(kept[seen_in].shape, -1, np.int8)
    paint_intervals(into, seen_in, spans, SHAPE, 1)
    np.testing.assert_array_equal(into, np.where(kept[seen_in], 1, -1))


@given(seeds=st.tuples(*[st.integers(0, 2**32 - 1)] * 2), density=st.sampled_from([0.02, 0.1, 0.5]))
def test_sets_overlap_where_their_masks_do(seeds, density):
    one, other = (draw(seed, density) for seed in seeds)
    a, b = (find_intervals(mask, full_roi(SHAPE), SHAPE) for mask in (one, other))
    assert overlapping(a, b) == overlapping(b, a) == bool((one & other).any())
