"""Tables of blocks add up to the table of the whole, and to scikit-image's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import regionprops_table
from skimage.metrics import contingency_table

from volseg.errors import ShapeError
from volseg.geometry.grid import Grid, full_roi
from volseg.scores import contingency
from volseg.scores.contingency import (
    add_table,
    count_pairs,
    merge_tables,
    predicted_objects,
    truth_objects,
    without_small,
)

sides = st.tuples(*[st.integers(1, 9)] * 3)
kinds = st.sampled_from(["uint8", "uint16", "int32", "uint32", "int64", "uint64"])
FIELDS = ("truth", "predicted", "voxels", "sums", "starts", "stops")


def whole(truth, predicted, counted=None):
    return count_pairs(truth, predicted, full_roi(truth.shape), counted)


def as_dict(table):
    pairs = zip(table.truth.tolist(), table.predicted.tolist(), strict=True)
    found = dict(zip(pairs, table.voxels.tolist(), strict=True))
    return {**found, (0, 0): table.background} if table.background else found


def draw(shape, seed, kind="uint32", labels=5):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, labels, shape) * (rng.random(shape) < rng.random())).astype(kind)


def counted_one_by_one(truth, predicted):
    found = {}
    for pair in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        found[pair] = found.get(pair, 0) + 1
    return found


@given(sides, kinds, kinds, st.integers(0, 2**32 - 1))
def test_the_whole_equals_scikit_image_and_counting_one_by_one(shape, kind, other, seed):
    truth, predicted = draw(shape, seed, kind), draw(shape, seed + 1, other)
    found = as_dict(whole(truth, predicted))
    assert found == counted_one_by_one(truth, predicted)
    dense = contingency_table(truth.astype(np.int64), predicted.astype(np.int64)).toarray()
    assert found == {(t, p): int(dense[t, p]) for t, p in np.argwhere(dense)}


@given(sides, sides, st.lists(st.integers(0, 50), max_size=6), st.integers(0, 2**32 - 1))
def test_any_blocks_in_any_order_equal_the_whole(shape, size, order, seed):
    truth, predicted = draw(shape, seed), draw(shape, seed + 1)
    counted = draw(shape, seed + 2, "uint8", 3)
    blocks = list(Grid(shape, size).blocks())
    for k in order:
        blocks.append(blocks.pop(k % len(blocks)))
    for mask in (None, counted):
        parts = [
            count_pairs(
                truth[b.core], predicted[b.core], b.core, None if mask is None else mask[b.core]
            )
            for b in blocks
        ]
        found, want = merge_tables(parts), whole(truth, predicted, mask)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(found, name), getattr(want, name))
        assert found.background == want.background
        assert found.total == (truth.size if mask is None else np.count_nonzero(mask))


@pytest.mark.parametrize(("rows", "parts"), [(20, 1000), (1 << 18, 3), (0, 1000)])
def test_however_tables_are_kept_the_sum_is_the_same(monkeypatch, rows, parts):
    monkeypatch.setattr(contingency, "MERGED_ROWS", rows)
    monkeypatch.setattr(contingency, "MERGED_PARTS", parts)
    truth, predicted = draw((30, 6, 6), 1), draw((30, 6, 6), 2)
    kept = []
    for block in Grid(truth.shape, (1, 6, 6)).blocks():
        add_table(kept, count_pairs(truth[block.core], predicted[block.core], block.core))
        assert len(kept) <= parts
        assert sum(len(k.truth) for k in kept[1:]) <= max(rows, len(kept[0].truth))
    merged, want = merge_tables(kept), whole(truth, predicted)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(merged, field), getattr(want, field))
    assert merged.background == want.background


@given(sides, st.integers(0, 2**32 - 1))
def test_objects_are_where_scikit_image_finds_them(shape, seed):
    truth, predicted = draw(shape, seed), draw(shape, seed + 1)
    table = whole(truth, predicted)
    for labels, found in ((truth, truth_objects(table)), (predicted, predicted_objects(table))):
        want = regionprops_table(labels, properties=("label", "area", "centroid", "bbox"))
        np.testing.assert_array_equal(found.labels, want["label"])
        np.testing.assert_array_equal(found.voxels, want["area"])
        for k in range(3):
            np.testing.assert_allclose(found.sums[:, k] / found.voxels, want[f"centroid-{k}"])
            np.testing.assert_array_equal(found.starts[:, k], want[f"bbox-{k}"])
            np.testing.assert_array_equal(found.stops[:, k], want[f"bbox-{k + 3}"])


@given(sides, st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_small_objects_are_as_if_they_had_never_been_labelled(shape, min_size, seed):
    truth, predicted = draw(shape, seed), draw(shape, seed + 1)
    found = without_small(whole(truth, predicted), min_size)
    for labels in (truth, predicted):
        sizes = np.bincount(labels.ravel())
        labels[sizes[labels] < min_size] = 0
    want = whole(truth, predicted)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(want, name))
    assert found.background == want.background


def test_what_is_not_counted_is_not_there():
    truth = np.array([[[1, 1, 1, 2]]], np.uint16)
    predicted = np.array([[[3, 3, 0, 0]]], np.uint16)
    table = whole(truth, predicted, np.array([[[0, 1, 1, 0]]], np.uint8))
    assert as_dict(table) == {(1, 3): 1, (1, 0): 1}
    assert table.total == 2


def test_labels_beyond_32_bits_and_below_0():
    large = 2**63 + 5
    truth = np.array([[[large, large, 7, 0]]], np.uint64)
    predicted = np.array([[[-4, 9, 9, -1]]], np.int64)
    assert as_dict(whole(truth, predicted)) == {
        (7, 9): 1,
        (large, 0): 1,
        (large, 9): 1,
        (0, 0): 1,
    }


@pytest.mark.parametrize("shape", [(2, 3, 0), (2, 0, 3), (1, 0, 0)])
def test_a_block_of_nothing_has_no_pairs(shape):
    nothing = np.zeros(shape, np.uint8)
    for counted in (None, nothing):
        found = contingency.count_pairs(nothing, nothing, full_roi(shape), counted)
        assert (len(found.voxels), found.background) == (0, 0)


def test_shapes_must_match():
    with pytest.raises(ShapeError, match=r"\(2, 2, 2\), \(2, 2, 3\)"):
        whole(np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8))
