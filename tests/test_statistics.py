"""Sums over blocks equal sums over the whole, and scikit-image's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import regionprops_table

from volseg.blocks import Grid, full_roi
from volseg.statistics import measure_block, merge, object_table, summarise

sides = st.tuples(*[st.integers(1, 12)] * 3)


def measure(labels, size, order=None):
    blocks = list(Grid(labels.shape, size).blocks())
    for k in order if order is not None else []:
        blocks.append(blocks.pop(k % len(blocks)))
    return merge([measure_block(labels[b.core], b.core) for b in blocks])


@given(
    shape=sides,
    size=sides,
    order=st.lists(st.integers(0, 50), max_size=8),
    dtype=st.sampled_from(["uint8", "uint32", "uint64", "int32"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_blocks_in_any_order_equal_scikit_image_on_the_whole(shape, size, order, dtype, seed):
    rng = np.random.default_rng(seed)
    labels = (rng.integers(0, 6, shape) * (rng.random(shape) < 0.7)).astype(dtype)
    found = measure(labels, size, order)
    expected = regionprops_table(
        labels.astype(np.int64), properties=("label", "area", "centroid", "bbox")
    )
    np.testing.assert_array_equal(found.labels, expected["label"])
    np.testing.assert_array_equal(found.voxels, expected["area"])
    columns, _ = object_table(found, full_roi(shape), None)
    for k, axis in enumerate("zyx"):
        np.testing.assert_allclose(columns[f"centroid_{axis}"], expected[f"centroid-{k}"])
        np.testing.assert_array_equal(columns[f"bbox_{axis}_start"], expected[f"bbox-{k}"])
        np.testing.assert_array_equal(columns[f"bbox_{axis}_stop"], expected[f"bbox-{k + 3}"])


def test_sums_are_exactly_the_same_whatever_the_blocks():
    labels = np.random.default_rng(1).integers(0, 40, (17, 30, 23), np.uint32)
    whole = measure(labels, labels.shape)
    for size in [(1, 30, 23), (5, 7, 9), (17, 1, 4)]:
        for name, value in vars(measure(labels, size)).items():
            np.testing.assert_array_equal(value, getattr(whole, name))


def test_an_object_touches_the_border_of_the_region_not_of_the_volume():
    labels = np.zeros((10, 10, 10), np.uint32)
    labels[2:4, 5, 5], labels[5, 5, 5] = 1, 2
    moments = measure(labels, (4, 4, 4))
    region = (slice(2, 10), slice(0, 10), slice(0, 10))
    assert object_table(moments, full_roi(labels.shape), None)[0]["touches_border"].sum() == 0
    assert object_table(moments, region, None)[0]["touches_border"].tolist() == [True, False]


def test_units_stand_only_where_the_voxel_size_is_known():
    moments = measure(np.ones((2, 3, 4), np.uint8), (2, 3, 4))
    columns, units = object_table(moments, full_roi((2, 3, 4)), None)
    assert not [name for name in columns if "nm" in name]
    assert set(units) == set(columns)
    columns, units = object_table(moments, full_roi((2, 3, 4)), (50.0, 4.0, 5.0))
    assert columns["volume_nm3"][0] == 24 * 1000
    assert columns["centroid_z_nm"][0] == 25.0
    assert set(units) == set(columns)
    assert units["volume_nm3"] == "nm^3"


def test_the_summary_follows_from_the_rows():
    labels = np.zeros((10, 10, 10), np.uint32)
    labels[1, 1, 1:5], labels[4, 4, 4:6], labels[7, 7, 7:9] = 1, 2, 3
    columns, _ = object_table(measure(labels, (3, 3, 3)), full_roi(labels.shape), None)
    found = summarise(columns, full_roi(labels.shape), (10.0, 100.0, 100.0))
    assert (found.objects, found.object_voxels, found.touching_border) == (3, 8, 0)
    assert found.volume_fraction == pytest.approx(0.008)
    assert found.mean_nm3 == pytest.approx(8 / 3 * 1e5)
    assert found.median_nm3 == pytest.approx(2e5)
    assert found.total_nm3 == pytest.approx(8e5)
    assert found.analysed_um3 == pytest.approx(0.1)
    assert found.density_per_um3 == pytest.approx(30)


def test_nothing_found_is_a_count_of_zero():
    moments = measure(np.zeros((4, 4, 4), np.uint32), (2, 2, 2))
    columns, _ = object_table(moments, full_roi((4, 4, 4)), (5.0, 5.0, 5.0))
    found = summarise(columns, full_roi((4, 4, 4)), (5.0, 5.0, 5.0))
    assert (found.objects, found.object_voxels, found.density_per_um3) == (0, 0, 0)
    assert math.isnan(found.mean_voxels)
