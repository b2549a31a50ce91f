"""Sums over blocks equal sums over the whole, and scikit-image's."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import regionprops_table

from volseg.geometry.grid import Grid, full_roi
from volseg.measures.object_table import merge_sums, object_table
from volseg.measures.single_object import SingleObjects
from volseg.measures.tally import Readers, tally

sides = st.tuples(*[st.integers(1, 12)] * 3)


def shifted(roi, offset):
    return tuple(slice(s.start + o, s.stop + o) for s, o in zip(roi, offset, strict=True))


def measure(labels, size, order=None, raw=None, offset=(0, 0, 0), brick=(3, 4, 5)):
    """Cut into blocks and bricks, measure and merge; the last block's sums come first."""

    def reader(array):
        def read(box):
            near = shifted(box, [-o for o in offset])
            return None if min(s.start for s in near) < 0 else array[near]

        return read if array is not None else None

    low = None if raw is None else raw.astype(np.uint8)
    readers = Readers(reader(labels), reader(raw), reader(low))
    end = tuple(n + o for n, o in zip(labels.shape, offset, strict=True))
    parts = [
        tally(shifted(block.core, offset), end, brick, readers, shapes=True)[0]
        for block in Grid(labels.shape, size).blocks()
    ]
    for k in order if order is not None else []:
        parts.append(parts.pop(k % len(parts)))
    # merged in two steps, as a long run is
    half = len(parts) // 2
    return merge_sums([merge_sums(parts[half:]), *parts[:half]])


def assert_same(found, expected):
    for kind in ("moments", "crossings", "intensity", "probability"):
        one, other = getattr(found, kind), getattr(expected, kind)
        assert (one is None) == (other is None)
        if one is not None:
            for name, value in vars(one).items():
                np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


@given(
    shape=sides,
    size=sides,
    brick=sides,
    order=st.lists(st.integers(0, 50), max_size=8),
    dtype=st.sampled_from(["uint8", "uint32", "uint64", "int32"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_blocks_in_any_order_equal_scikit_image_on_the_whole(
    shape, size, brick, order, dtype, seed
):
    rng = np.random.default_rng(seed)
    labels = (rng.integers(0, 6, shape) * (rng.random(shape) < 0.7)).astype(dtype)
    found = measure(labels, size, order, brick=brick)
    expected = regionprops_table(
        labels.astype(np.int64), properties=("label", "area", "centroid", "bbox")
    )
    np.testing.assert_array_equal(found.moments.labels, expected["label"])
    np.testing.assert_array_equal(found.moments.voxels, expected["area"])
    columns, _ = object_table(found, full_roi(shape), None)
    for k, axis in enumerate("zyx"):
        np.testing.assert_allclose(columns[f"centroid_{axis}"], expected[f"centroid-{k}"])
        np.testing.assert_array_equal(columns[f"bbox_{axis}_start"], expected[f"bbox-{k}"])
        np.testing.assert_array_equal(columns[f"bbox_{axis}_stop"], expected[f"bbox-{k + 3}"])


@given(
    shape=sides,
    size=sides,
    brick=sides,
    order=st.lists(st.integers(0, 50), max_size=8),
    dtype=st.sampled_from(["uint8", "uint16", "int16"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_table_is_exactly_the_same_whatever_the_blocks(shape, size, brick, order, dtype, seed):
    rng = np.random.default_rng(seed)
    labels = (rng.integers(0, 6, shape) * (rng.random(shape) < 0.7)).astype(np.uint32)
    limits = np.iinfo(dtype)
    raw = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    cut = measure(labels, size, order, raw, brick=brick)
    whole = measure(labels, shape, None, raw, brick=shape)
    assert_same(cut, whole)
    tables = [object_table(s, full_roi(shape), (50.0, 5.0, 4.0)) for s in (cut, whole)]
    assert tables[0][1] == tables[1][1]
    for name, column in tables[0][0].items():
        np.testing.assert_array_equal(column, tables[1][0][name], err_msg=name)


@settings(max_examples=20)
@given(offset=st.tuples(*[st.integers(0, 3_000_000)] * 3), seed=st.integers(0, 2**32 - 1))
def test_far_from_the_origin_only_positions_differ(offset, seed):
    labels = np.random.default_rng(seed).integers(0, 5, (6, 7, 9)).astype(np.uint32)
    near = object_table(measure(labels, (4, 4, 4)), full_roi(labels.shape), None)[0]
    region = shifted(full_roi(labels.shape), offset)
    far = object_table(measure(labels, (4, 4, 4), offset=offset), region, None)[0]
    for name, column in near.items():
        shift = offset["zyx".index(name.split("_")[1])] if name[:4] in ("cent", "bbox") else 0
        if name.startswith("centroid"):
            np.testing.assert_allclose(far[name], column + shift, rtol=1e-15)
        else:
            np.testing.assert_array_equal(far[name], column + shift, err_msg=name)


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.random((40, 60, 70)), 2.5)
    labels = ndimage.label(smooth > np.quantile(smooth, 0.8), np.ones((3, 3, 3)))[0]
    raw = rng.integers(0, 65535, labels.shape, np.uint16)
    return labels.astype(np.uint32), raw


def test_shapes_and_intensities_are_those_of_scikit_image(blobs):
    labels, raw = blobs
    found, _ = object_table(measure(labels, (16, 32, 32), raw=raw), full_roi(labels.shape), None)
    names = ("euler_number", "axis_major_length", "axis_minor_length", "equivalent_diameter_area")
    intensity = ("intensity_mean", "intensity_std", "intensity_min", "intensity_max")
    expected = regionprops_table(labels, raw, properties=(*names, *intensity))
    assert len(expected["euler_number"]) > 20
    np.testing.assert_array_equal(found["euler_number"], expected["euler_number"])
    np.testing.assert_allclose(found["axis_major"], expected["axis_major_length"])
    # rounding of variances of 0 is cut off here
    minor = expected["axis_minor_length"]
    np.testing.assert_allclose(found["axis_minor"], minor, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(found["equivalent_diameter"], expected["equivalent_diameter_area"])
    np.testing.assert_allclose(found["intensity_mean"], expected["intensity_mean"])
    np.testing.assert_allclose(found["intensity_sd"], expected["intensity_std"])
    np.testing.assert_array_equal(found["intensity_min"], expected["intensity_min"])
    np.testing.assert_array_equal(found["intensity_max"], expected["intensity_max"])


def test_an_object_touches_the_border_of_the_region_not_of_the_volume():
    labels = np.zeros((10, 10, 10), np.uint32)
    labels[2:4, 5, 5], labels[5, 5, 5], labels[8, 5, 5] = 1, 2, 3
    sums = measure(labels, (4, 4, 4))
    region = (slice(2, 9), slice(0, 10), slice(0, 10))
    assert object_table(sums, full_roi(labels.shape), None)[0]["touches_border"].sum() == 0
    columns, _ = object_table(sums, region, None)
    assert columns["touches_border"].tolist() == [True, False, True]
    assert columns["touches_far_border"].tolist() == [False, False, True]


def test_units_stand_only_where_the_voxel_size_is_known():
    sums = measure(np.ones((2, 3, 4), np.uint8), (2, 3, 4), raw=np.ones((2, 3, 4), np.uint8))
    columns, units = object_table(sums, full_roi((2, 3, 4)), None)
    assert not [name for name in columns if "nm" in name]
    assert not [unit for unit in units.values() if "nm" in unit]
    assert set(units) == set(columns)
    columns, units = object_table(sums, full_roi((2, 3, 4)), (50.0, 4.0, 5.0))
    assert columns["volume_nm3"][0] == 24 * 1000
    assert columns["centroid_z_nm"][0] == 25.0
    assert set(units) == set(columns)
    assert units["volume_nm3"] == "nm^3"
    assert units["surface_area_nm2"] == "nm^2"
    assert units["axis_major_nm"] == "nm"
    assert columns["probability_mean"][0] == 1 / 255


def test_the_basic_set_has_no_shapes():
    labels = np.ones((2, 3, 4), np.uint8)
    basic, _ = tally(
        full_roi(labels.shape), labels.shape, (2, 2, 2), Readers(labels.__getitem__), shapes=False
    )
    columns, _ = object_table(merge_sums([basic]), full_roi(labels.shape), None)
    assert list(columns)[:2] == ["label", "voxels"]
    assert not {"surface_area", "axis_major", "intensity_mean"} & set(columns)


def test_meshes_take_the_place_of_crossings():
    labels = np.ones((2, 3, 4), np.uint8)
    singles = SingleObjects(np.array([40.0]), np.array([3.0]), np.array([1.0]))
    columns, _ = object_table(measure(labels, (2, 2, 2)), full_roi(labels.shape), None, singles)
    assert columns["surface_area"] == 40
    assert columns["complexity_index"] == pytest.approx(40**3 / (16 * math.pi**2 * 24**2))
    assert columns["centerline_length"] == 3


def test_nothing_found_has_the_same_columns():
    empty, full = (
        object_table(measure(labels, (2, 2, 2), raw=labels), full_roi((4, 4, 4)), (5.0, 5.0, 5.0))
        for labels in (np.zeros((4, 4, 4), np.uint8), np.ones((4, 4, 4), np.uint8))
    )
    assert list(empty[0]) == list(full[0])
    for name, column in empty[0].items():
        assert len(column) == 0
        assert column.dtype.kind == full[0][name].dtype.kind, name


def test_sums_are_not_changed_by_merging():
    labels = np.ones((2, 2, 4), np.uint8)
    part = measure(labels, (2, 2, 4))
    before = dataclasses.asdict(part)
    merge_sums([part, part])
    np.testing.assert_equal(dataclasses.asdict(part), before)
