"""Components of blocks become numbered objects, or do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.objects.components import mean_probabilities
from volseg.objects.joining import Candidates, label_type, number_objects

SIZES, FIRSTS = np.array([10, 6, 4, 30, 2]), np.array([50, 7, 20, 3, 1])
PAIRS = [np.array([[1, 0]]), np.array([[2, 1]])]
"""The first three components touch, so they are one object of 20 voxels."""


def test_objects_are_numbered_by_their_first_voxels():
    found = number_objects(Candidates(SIZES, FIRSTS), PAIRS)
    assert found.numbers.tolist() == [3, 3, 3, 2, 1]
    assert (found.objects, found.faint) == (3, 0)


def test_small_and_unseeded_objects_are_not_counted_as_faint():
    seeded, totals = np.array([False, True, False, False, True]), SIZES * 100
    found = number_objects(Candidates(SIZES, FIRSTS, seeded, totals), PAIRS, 3, 101 / 255)
    assert found.numbers.tolist() == [0] * 5
    assert (found.objects, found.faint) == (0, 1)


def test_a_mean_is_that_of_the_whole_object():
    totals = np.array([10 * 90, 6 * 120, 4 * 120, 30 * 99, 2 * 200])
    # (900 + 720 + 480) / 20 = 105
    for least, numbers in ((105, [2, 2, 2, 0, 1]), (105.1, [0, 0, 0, 0, 1])):
        found = number_objects(Candidates(SIZES, FIRSTS, None, totals), PAIRS, 0, least / 255)
        assert found.numbers.tolist() == numbers
        assert found.objects + found.faint == 3


def test_what_is_known_of_blocks_is_put_together_in_any_order():
    totals = SIZES * 7
    whole = Candidates.room(5, seeded=False, totals=True)
    for start, stop in ((3, 5), (0, 3), (5, 5)):
        part = slice(start, stop)
        whole.put(start, Candidates(SIZES[part], FIRSTS[part], None, totals[part]))
    assert whole.seeded is None
    with pytest.raises(ValueError, match="totals are not known"):
        whole.put(0, Candidates(SIZES, FIRSTS))
    for mine, theirs in zip(
        (whole.sizes, whole.firsts, whole.totals), (SIZES, FIRSTS, totals), strict=True
    ):
        assert mine is not None
        assert mine.tolist() == theirs.tolist()


def test_labels_widen_when_uint32_is_full():
    assert label_type(2**32 - 1) == np.uint32
    assert label_type(2**32) == np.uint64


@given(size=st.integers(1, 10**6), share=st.floats(0, 1))
def test_the_mean_that_the_table_shows_keeps_its_object(size, share):
    total = np.array([int(share * 255 * size)])
    shown = mean_probabilities(total, np.array([size])).item()
    candidates = Candidates(np.array([size]), np.array([0]), None, total)
    assert number_objects(candidates, [], 0, shown).objects == 1
    assert number_objects(candidates, [], 0, np.nextafter(shown, 2)).faint == 1
