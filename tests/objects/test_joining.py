"""Components of blocks become numbered objects, or do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.objects.components import mean_probabilities
from volseg.objects.dropped import Dropped, Kept
from volseg.objects.joining import Candidates, Limits, label_type, number_objects

SIZES, FIRSTS = np.array([10, 6, 4, 30, 2]), np.array([50, 7, 20, 3, 1])
PAIRS = [np.array([[1, 0]]), np.array([[2, 1]])]
"""The first three components touch, so they are one object of 20 voxels."""


def test_objects_are_numbered_by_their_first_voxels():
    found = number_objects(Candidates(SIZES, FIRSTS), PAIRS)
    assert found.numbers.tolist() == [3, 3, 3, 2, 1]
    assert (found.objects, found.kept) == (3, Kept(52, 20))
    assert not any(each.objects for each in found.dropped.values())


def test_small_and_unseeded_objects_are_not_counted_as_faint():
    seeded, totals = np.array([False, True, False, False, True]), SIZES * 100
    limits = Limits(3, min_probability=101 / 255)
    found = number_objects(Candidates(SIZES, FIRSTS, seeded, totals), PAIRS, limits)
    assert found.numbers.tolist() == [0] * 5
    assert (found.objects, found.kept) == (0, Kept(0, 0))
    some = {limit: each for limit, each in found.dropped.items() if each.objects}
    assert some == {
        "min_size": Dropped(1, 2, 2),
        "seeded": Dropped(1, 30, 30),
        "min_probability": Dropped(1, 20, 20),
    }


def test_a_mean_is_that_of_the_whole_object():
    totals = np.array([10 * 90, 6 * 120, 4 * 120, 30 * 99, 2 * 200])
    # (900 + 720 + 480) / 20 = 105
    for least, numbers in ((105, [2, 2, 2, 0, 1]), (105.1, [0, 0, 0, 0, 1])):
        limits = Limits(min_probability=least / 255)
        found = number_objects(Candidates(SIZES, FIRSTS, None, totals), PAIRS, limits)
        assert found.numbers.tolist() == numbers
        gone = found.dropped["min_probability"]
        assert found.objects + gone.objects == 3
        assert found.kept.voxels + gone.voxels == 52


def test_a_large_object_is_kept_whatever_its_mean():
    totals = SIZES * 100
    for largest, numbers in ((20, [0, 0, 0, 1, 0]), (19, [2, 2, 2, 1, 0]), (30, [0] * 5)):
        limits = Limits(min_probability=0.5, faint_size=largest)
        found = number_objects(Candidates(SIZES, FIRSTS, None, totals), PAIRS, limits)
        assert found.numbers.tolist() == numbers
        assert found.objects + found.dropped["min_probability"].objects == 3


def test_an_object_beyond_several_limits_counts_for_the_first():
    sections = np.array([5, 6, 4, 30, 2])
    found = Candidates(SIZES, FIRSTS, None, SIZES * 10, sections)
    # the first two components share slice 7: 5 + 6 voxels of one section
    slices = [np.array([[0, 7, 5], [1, 7, 6]]), np.array([[2, 8, 4]])]
    for limits, numbers, dropped in (
        (Limits(max_size=20), [2, 2, 2, 0, 1], (1, 0, 0)),
        (Limits(max_section=11), [2, 2, 2, 0, 1], (0, 1, 0)),
        (Limits(max_section=10), [0, 0, 0, 0, 1], (0, 2, 0)),
        (Limits(max_size=20, max_section=10), [0, 0, 0, 0, 1], (1, 1, 0)),
        (Limits(max_section=29, min_probability=0.5), [0] * 5, (0, 1, 2)),
    ):
        numbering = number_objects(found, PAIRS, limits, slices)
        assert numbering.numbers.tolist() == numbers
        small, *gone = (each.objects for each in numbering.dropped.values())
        assert (small, tuple(gone)) == (0, dropped)


def test_what_is_known_of_blocks_is_put_together_in_any_order():
    totals = SIZES * 7
    whole = Candidates.room(5, seeded=False, totals=True, sections=False)
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
    assert number_objects(candidates, [], Limits(min_probability=shown)).objects == 1
    more = Limits(min_probability=float(np.nextafter(shown, 2)))
    assert number_objects(candidates, [], more).dropped["min_probability"].objects == 1
