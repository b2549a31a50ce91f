"""One row per volume, and one per slice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2, poisson

from volseg.geometry.grid import full_roi
from volseg.measures.object_table import object_table
from volseg.measures.summary import poisson_interval, slice_table, summarise
from volseg.measures.tally import Readers, tally


def basic(labels):
    roi, readers = full_roi(labels.shape), Readers(labels.__getitem__)
    return tally(roi, labels.shape, (4, 8, 8), readers, shapes=False)


def columns_of(labels):
    return object_table(basic(labels)[0], full_roi(labels.shape), None)[0]


def test_the_summary_follows_from_the_rows():
    labels = np.zeros((10, 10, 10), np.uint32)
    labels[1, 1, 1:5], labels[4, 4, 4:6], labels[7:9, 7, 7] = 1, 2, 3
    found = summarise(columns_of(labels), full_roi(labels.shape), (10.0, 100.0, 100.0))
    assert (found.objects, found.object_voxels, found.touching_border) == (3, 8, 0)
    assert found.volume_fraction == pytest.approx(0.008)
    assert found.mean_nm3 == pytest.approx(8 / 3 * 1e5)
    assert found.median_nm3 == pytest.approx(2e5)
    assert found.total_nm3 == pytest.approx(8e5)
    assert found.analysed_um3 == pytest.approx(0.1)
    assert found.density_per_um3 == pytest.approx(30)
    assert found.mean_profile_voxels == pytest.approx(8 / 4)
    assert found.mean_profile_nm2 == pytest.approx(2e4)
    assert found.mean_slice_voxels == pytest.approx(0.8)


def test_sizes_of_unrelated_images_are_areas_whatever_their_thickness():
    labels = np.zeros((3, 10, 10), np.uint32)
    labels[0, 1, 1:5], labels[1, 4, 4:6] = 1, 2
    for thickness in (1.0, 700.0):
        size = (thickness, 100.0, 50.0)
        images = [(10, 10), (10, 8), (5, 4)]
        found = summarise(columns_of(labels), full_roi(labels.shape), size, images)
        sizes = found.sizes(areas=True)
        assert (found.images, found.analysed_um2) == (3, pytest.approx(200 * 0.005))
        assert (found.mean_nm2, found.median_nm2, found.total_nm2) == (15e3, 15e3, 30e3)
        assert (sizes.total, sizes.analysed) == (pytest.approx(0.03), found.analysed_um2)
        assert (sizes.density, sizes.unbiased) == (pytest.approx(2), pytest.approx(2))
        assert sizes.low < sizes.unbiased < sizes.high
        volumes = found.sizes(areas=False)
        assert volumes.total == pytest.approx(found.total_nm3 / 1e9)
    assert summarise(columns_of(labels), full_roi(labels.shape), size).sizes(areas=True) is None
    assert summarise(columns_of(labels), full_roi(labels.shape), None).sizes(areas=False) is None


def test_nothing_found_is_a_count_of_zero():
    found = summarise(columns_of(np.zeros((4, 4, 4), np.uint32)), full_roi((4, 4, 4)), (5.0,) * 3)
    assert (found.objects, found.object_voxels, found.density_per_um3) == (0, 0, 0)
    assert math.isnan(found.mean_voxels)
    assert found.objects_low == 0
    assert found.objects_high == pytest.approx(-math.log(0.025))


def test_neighbouring_regions_count_each_object_once():
    labels = np.zeros((8, 8, 30), np.uint32)
    for k in range(10):
        labels[3, 3 : 3 + k % 2 + 1, 3 * k : 3 * k + 2] = k + 1
    whole = summarise(columns_of(labels), full_roi(labels.shape), None)
    parts = [columns_of(labels[..., :13]), columns_of(labels[..., 13:])]
    shapes = [(8, 8, 13), (8, 8, 17)]
    found = [summarise(c, full_roi(s), None) for c, s in zip(parts, shapes, strict=True)]
    assert sum(f.objects for f in found) == whole.objects + 1
    assert sum(f.objects_unbiased for f in found) == whole.objects_unbiased


@pytest.mark.parametrize("count", [0, 1, 5, 58, 3000])
def test_intervals_are_the_exact_ones(count):
    low, high = poisson_interval(count)
    assert high == pytest.approx(chi2.ppf(0.975, 2 * count + 2) / 2)
    assert poisson.cdf(count, high) == pytest.approx(0.025)
    if count:
        assert low == pytest.approx(chi2.ppf(0.025, 2 * count) / 2)
        assert poisson.sf(count - 1, low) == pytest.approx(0.025)


def test_slices_add_up_to_the_volume():
    labels = np.zeros((6, 8, 8), np.uint32)
    labels[1:4, 2:4, 2:4], labels[3:6, 5, 5] = 1, 2
    columns = columns_of(labels)
    areas = np.concatenate([basic(labels[k : k + 2])[1] for k in (0, 2, 4)])
    np.testing.assert_array_equal(areas, (labels > 0).sum(axis=(1, 2)))
    region = (slice(1, 6), slice(0, 8), slice(0, 8))
    rows, units = slice_table(columns, areas, region, (50.0, 4.0, 5.0))
    assert rows["z"].tolist() == [1, 2, 3, 4, 5]
    assert rows["objects"].tolist() == [1, 1, 2, 1, 1]
    assert rows["area"].tolist() == [4, 4, 5, 1, 1]
    assert rows["area_nm2"].tolist() == [80, 80, 100, 20, 20]
    assert set(units) == set(rows)
    assert "area_nm2" not in slice_table(columns, areas, region, None)[0]
