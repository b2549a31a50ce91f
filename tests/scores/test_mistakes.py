"""Wrong objects are named and placed; recall is told by size."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volseg.geometry.grid import full_roi
from volseg.scores import mistakes as object_errors
from volseg.scores.contingency import count_pairs
from volseg.scores.matching import excuse_cut, find_matches, find_overlaps
from volseg.scores.mistakes import find_errors, recall_by_size


def compare(truth, predicted, iou=0.5, cut_by=None):
    overlaps = find_overlaps(count_pairs(truth, predicted, full_roi(truth.shape)))
    excused = None if cut_by is None else excuse_cut(overlaps, cut_by, iou)
    return overlaps, find_matches(overlaps, iou, excused)


def labels(objects):
    return [o.label for o in objects]


def test_each_kind_of_error_is_found_where_it_is():
    truth, predicted = np.zeros((8, 20, 20), np.uint16), np.zeros((8, 20, 20), np.uint16)
    truth[1:3, 1:5, 1:5] = 10  # missed
    predicted[5:7, 1:5, 1:5] = 20  # false
    truth[1:5, 8:12, 0:10], predicted[1:5, 8:12, 0:5] = 11, 21  # split in two
    predicted[1:5, 8:12, 5:10] = 22
    truth[1:5, 14:18, 0:6], truth[1:5, 14:18, 6:12] = 12, 13  # merged
    predicted[1:5, 14:18, 0:12] = 23
    truth[6, 15, 15], predicted[6, 15, 15] = 14, 24  # right
    found = find_errors(*compare(truth, predicted, 0.6))
    assert labels(found.missed) == [10, 11, 12, 13]
    assert labels(found.false) == [20, 21, 22, 23]
    assert [(o.label, o.others) for o in found.split] == [(11, (21, 22))]
    assert [(o.label, o.others) for o in found.merged] == [(23, (12, 13))]
    missed = found.missed[0]
    assert missed.centroid == (1.5, 2.5, 2.5)
    assert missed.box == ((1, 3), (1, 5), (1, 5))
    assert (missed.voxels, missed.best_iou) == (32, 0.0)
    assert found.split[0].best_iou == 0.5


def test_of_many_wrong_objects_a_report_lists_the_largest(monkeypatch):
    monkeypatch.setattr(object_errors, "REPORTED", 3)
    monkeypatch.setattr(object_errors, "MADE_AT_ONCE", 2)
    truth = np.zeros((1, 12, 8), np.uint8)
    for k, size in enumerate((2, 5, 5, 1, 7, 5)):
        truth[0, 2 * k, :size] = k + 1
    found = find_errors(*compare(truth, np.zeros_like(truth)))
    assert (found.counts.missed, found.counts.false) == (6, 0)
    assert labels(found.missed) == [1, 2, 3, 4, 5, 6]
    assert labels(found.missed.tolist()) == [2, 3, 5]
    assert (found.missed[-1].label, labels(found.missed[1:3])) == (6, [2, 3])
    assert found.false.tolist() == []


def test_a_sliver_is_no_split():
    truth = np.ones((1, 1, 10), np.uint8)
    predicted = np.array([[[1] * 9 + [2]]], np.uint8)
    predicted = np.concatenate([predicted, np.full((1, 1, 10), 2, np.uint8)])
    truth = np.concatenate([truth, np.zeros((1, 1, 10), np.uint8)])
    assert not find_errors(*compare(truth, predicted)).split


@given(st.tuples(*[st.integers(1, 6)] * 3), st.integers(0, 2**32 - 1))
def test_splits_and_merges_equal_a_search_through_all_masks(shape, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, shape)
    predicted = np.where(rng.random(shape) < 0.8, truth * 2 + rng.integers(0, 2, shape), 0)
    predicted[truth == 1] = 4

    def holders(outer, inner):
        found = {}
        for a in np.unique(outer[outer > 0]):
            held = [
                int(b)
                for b in np.unique(inner[inner > 0])
                if 2 * ((inner == b) & (outer == a)).sum() > (inner == b).sum()
            ]
            if len(held) > 1:
                found[int(a)] = tuple(held)
        return found

    found = find_errors(*compare(truth, predicted))
    assert {o.label: o.others for o in found.split} == holders(truth, predicted)
    assert {o.label: o.others for o in found.merged} == holders(predicted, truth)
    for kind in (found.split, found.merged):
        assert labels(kind.inside) == sorted({part for o in kind for part in o.others})


def test_recall_by_size_counts_each_object_once():
    truth = np.zeros((1, 12, 100), np.uint8)
    predicted = np.zeros_like(truth)
    truth[0, 0, 0], truth[0, 2, :2], truth[0, 4, :3] = 1, 2, 3
    truth[0, 6, :9], truth[0, 8, :10] = 4, 5
    predicted[0, 4, :3], predicted[0, 8, :10] = 3, 5
    bins = recall_by_size(*compare(truth, predicted))
    assert [(b.start, b.stop, b.objects, b.matched, b.recall) for b in bins] == [
        (1, 3, 2, 0, 0.0),
        (3, 10, 2, 1, 0.5),
        (10, 30, 1, 1, 1.0),
    ]
    assert recall_by_size(*compare(np.zeros_like(truth), predicted)) == ()


def test_excused_objects_are_in_no_list_and_no_bin():
    truth = np.zeros((3, 5, 5), np.uint8)
    truth[0, 2, 2] = 1
    overlaps, matches = compare(truth, np.zeros_like(truth), cut_by=full_roi(truth.shape))
    assert not find_errors(overlaps, matches).missed
    assert recall_by_size(overlaps, matches) == ()
