"""Statistics of labels from anyone: volseg's, other Zarr arrays, TIFF."""

from __future__ import annotations

import dataclasses
import math

import imagecodecs
import numpy as np
import pyarrow.parquet
import pytest
import tifffile
import zarr
from scipy import ndimage
from skimage.measure import regionprops_table

from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import ParameterError, ShapeError, VolumeError
from volseg.geometry.grid import Grid, full_roi, roi_size
from volseg.measures.surface import surface_areas
from volseg.measures.tally import Readers, tally
from volseg.sources.labels import open_label_path, open_labels
from volseg.stages.convert.plan import ConvertOptions, plan_conversion
from volseg.stages.convert.run import convert
from volseg.stages.stats import contacts
from volseg.stages.stats import tasks as stats_block
from volseg.stages.stats.contacts import find_contacts
from volseg.stages.stats.plan import StatsOptions, plan_stats
from volseg.stages.stats.run import stats, write_objects
from volseg.stages.stats.tasks import order_blocks
from volseg.storage.arrays import ArraySpec, create_array, fit_spec
from volseg.storage.volumes import (
    create_image,
    labels_path,
    open_image,
    probabilities_path,
    register_label,
    table_path,
)

SHAPE = (20, 60, 70)
INTENSITIES = ("intensity_mean", "intensity_std", "intensity_min", "intensity_max")


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 30, (5, 6, 7), dtype=np.uint32) * (rng.random((5, 6, 7)) < 0.6)
    return np.kron(coarse, np.ones((4, 10, 10), np.uint32)).astype(np.uint32)


def write_volume(path, labels, voxel_size=(50.0, 5.0, 4.0), shard=(8, 32, 32), **noted):
    spec = ArraySpec(SHAPE, "uint8", shard, shard)
    create_image(path, spec, voxel_size, attributes={})
    output = labels_path(path, "mitochondria")
    spec = dataclasses.replace(spec, dtype=labels.dtype.name)
    image = create_image(output, spec, voxel_size, label=True, attributes=noted)
    image.levels[0].write(full_roi(SHAPE), labels)
    register_label(path, "mitochondria")
    return path


def write_raw(path, raw, complete=True):
    """Fill in the raw voxels, and probabilities that are half of them."""
    spec = ArraySpec(SHAPE, "uint8", (8, 32, 32), (8, 32, 32))
    for folder, values in ((path, raw), (probabilities_path(path, "mitochondria"), raw // 2)):
        noted = {"complete": complete, "run": {}} if folder != path else {}
        if folder != path:
            create_image(folder, spec, None, attributes=noted)
        open_image(folder).levels[0].write(full_roi(SHAPE), values)


def measure(volume, workers=1, **more):
    options = StatsOptions(engine=EngineOptions(workers=workers), **more)
    return stats(plan_stats(volume, options), NoProgress())


@pytest.mark.parametrize(("shard", "workers"), [((8, 32, 32), 2), ((4, 64, 16), 1)])
def test_rows_equal_scikit_image_whatever_the_shards(tmp_path, labels, shard, workers):
    volume = write_volume(tmp_path / "vol.zarr", labels, shard=shard)
    found = measure(volume, workers)
    want = regionprops_table(labels, properties=("label", "area", "centroid"))
    np.testing.assert_array_equal(found.columns["label"], want["label"])
    np.testing.assert_array_equal(found.columns["voxels"], want["area"])
    np.testing.assert_allclose(found.columns["centroid_x_nm"], want["centroid-2"] * 4)
    assert found.summary.objects == len(want["label"])
    assert found.summary.total_nm3 == pytest.approx(want["area"].sum() * 1000)


def test_the_table_reads_with_units(tmp_path, labels):
    volume = write_volume(tmp_path / "vol.zarr", labels, fingerprint="abc")
    found = measure(volume)
    table = pyarrow.parquet.read_table(table_path(volume, "mitochondria"))
    assert found.table == table_path(volume, "mitochondria")
    assert table.schema.field("volume_nm3").metadata == {b"unit": b"nm^3"}
    assert table.schema.metadata[b"labels"] == b"abc"
    rows = table.to_pydict()
    assert rows["volume_nm3"] == [v * 1000 for v in rows["voxels"]]
    assert set(rows["touches_border"]) <= {True, False}


def test_without_a_voxel_size_there_is_no_nm_and_it_says_why(tmp_path, labels):
    found = measure(write_volume(tmp_path / "vol.zarr", labels, voxel_size=None))
    assert not [c for c in found.columns if "nm" in c]
    assert found.summary.total_nm3 is None
    assert "voxel size" in found.notes[0]
    assert "--voxel-size" in found.notes[0]


@pytest.mark.parametrize("dtype", ["uint16", "int32", "uint32", "int64"])
def test_labels_from_elsewhere(tmp_path, labels, dtype):
    volume = write_volume(tmp_path / "vol.zarr", np.zeros_like(labels))
    array = create_array(tmp_path / "other.zarr", ArraySpec(SHAPE, dtype, (8, 8, 8), (8, 16, 16)))
    array.write(full_roi(SHAPE), labels.astype(dtype))
    tifffile.imwrite(tmp_path / "other.tif", labels.astype(dtype), compression="zlib")
    own = measure(write_volume(tmp_path / "own.zarr", labels)).columns
    for path in (tmp_path / "other.zarr", tmp_path / "other.tif"):
        found = measure(volume, labels=path)
        assert found.table == table_path(volume, "other")
        for name, column in own.items():
            np.testing.assert_array_equal(found.columns[name], column)


@pytest.mark.parametrize("form", ["bool.tif", "255.tif", "1.zarr", "float.tif", "255.png"])
def test_the_objects_of_a_mask_are_its_components(tmp_path, form):
    """Whatever says foreground, and in whatever blocks it is read."""
    mask = np.random.default_rng(5).random(SHAPE) < 0.02
    expected, count = ndimage.label(mask, np.ones((3, 3, 3)))
    kind, suffix = form.split(".")
    written = (
        mask
        if kind == "bool"
        else mask * {"255": np.uint8(255), "1": np.uint8(1)}.get(kind, np.float32(1))
    )
    path, volume = tmp_path / form, write_volume(tmp_path / "v.zarr", np.zeros(SHAPE, np.uint8))
    if suffix == "zarr":
        zarr.create_array(path, data=written, chunks=(8, 16, 16))
    elif suffix == "tif":
        tifffile.imwrite(path, written, compression="zlib", photometric="minisblack")
    else:
        path.mkdir()
        for z, plane in enumerate(written):
            (path / f"m{z}.png").write_bytes(imagecodecs.png_encode(plane))
    found = measure(volume, labels=path, name="m")
    sizes = np.sort(np.bincount(expected.ravel())[1:])
    np.testing.assert_array_equal(np.sort(found.columns["voxels"]), sizes)
    assert found.summary.objects == count > 100
    assert f"its {count} connected components (26 neighbours) as objects" in found.notes[0]
    assert not list(volume.glob(".volseg/stats*"))
    assert measure(volume, labels=path, name="m", instances=True).summary.objects == 1


def test_labels_of_voxels_of_another_size_are_told_of(tmp_path, labels):
    volume = write_volume(tmp_path / "v.zarr", labels)
    for z, told in ((50, 0), (60, 1)):
        metadata = {"unit": "nm", "spacing": z, "axes": "ZYX"}
        form = {"imagej": True, "resolution": (1 / 4, 1 / 5), "metadata": metadata}
        tifffile.imwrite(tmp_path / "l.tif", labels.astype(np.uint16), **form)
        notes = [n for n in measure(volume, labels=tmp_path / "l.tif").notes if "measure" in n]
        assert len(notes) == told
    assert "voxels measure 60,5,4 nm (z,y,x), " in notes[0]
    assert notes[0].endswith("50,5,4 nm, which is taken")


def test_few_voxels_have_no_sphericity_and_it_says_why(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 5, 5] = 1
    labels[2:18, 20:36, 20:36] = 2
    found = measure(write_volume(tmp_path / "v.zarr", labels, voxel_size=(5.0, 5.0, 5.0)))
    for name in ("sphericity", "complexity_index"):
        assert np.isnan(found.columns[name]).tolist() == [True, False]
    assert found.columns["sphericity"][1] < 1
    assert "1 object(s) have too few voxels, or too few along an axis, for spher" in found.notes[0]


def test_labels_from_elsewhere_never_take_the_table_of_others(tmp_path, labels):
    volume = write_volume(tmp_path / "vol.zarr", labels)
    own = measure(volume).table.read_bytes()
    tifffile.imwrite(tmp_path / "mitochondria.tif", (labels > 5).astype(np.uint8))
    for name in (None, "mitochondria"):
        with pytest.raises(ParameterError, match=r"mitochondria\.parquet is for the objects of"):
            measure(volume, labels=tmp_path / "mitochondria.tif", name=name)
    found = measure(volume, labels=tmp_path / "mitochondria.tif", name="mine")
    assert found.table == table_path(volume, "mine")
    assert table_path(volume, "mitochondria").read_bytes() == own
    again = measure(volume, labels=labels_path(volume, "mitochondria"))
    assert again.table.read_bytes() == own
    sliced = (tmp_path / "mitochondria.tif").rename(tmp_path / "mitochondria-slices.tif")
    for name in (None, ""):
        with pytest.raises(ParameterError, match="give another --name"):
            measure(volume, labels=sliced, name=name, measure="basic")


def test_only_what_was_segmented_is_analysed(tmp_path, labels):
    inside = labels.copy()
    inside[:4], inside[16:] = 0, 0
    roi = [[4, 16], [0, 60], [0, 70]]
    found = measure(write_volume(tmp_path / "vol.zarr", inside, roi=roi))
    assert found.summary.analysed_voxels == 12 * 60 * 70
    assert found.summary.volume_fraction == pytest.approx((inside[4:16] > 0).mean())
    at_border = found.columns["touches_border"]
    starts = found.columns["bbox_z_start"]
    assert at_border[starts == 4].all()


def test_what_does_not_fit_is_refused(tmp_path, labels):
    volume = write_volume(tmp_path / "vol.zarr", labels, complete=False, run={})
    with pytest.raises(VolumeError, match="incomplete; run the command that began it again"):
        measure(volume)
    with pytest.raises(VolumeError, match="no labels/nuclei; it has mitochondria"):
        measure(volume, name="nuclei")
    tifffile.imwrite(tmp_path / "small.tif", labels[:, :9])
    with pytest.raises(ShapeError, match=r"\(20, 9, 70\).*\(20, 60, 70\)"):
        measure(volume, labels=tmp_path / "small.tif")
    floats = create_array(tmp_path / "f.zarr", ArraySpec(SHAPE, "float16", (8, 8, 8), (8, 8, 8)))
    with pytest.raises(VolumeError, match="float16; labels are whole numbers"):
        measure(volume, labels=floats.path)


def test_several_volumes_in_one_table(tmp_path, labels):
    results = [measure(write_volume(tmp_path / f"{n}.zarr", labels)) for n in "ab"]
    write_objects(results, tmp_path / "all.csv")
    lines = (tmp_path / "all.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * results[0].summary.objects
    assert lines[0].startswith('"volume","label","voxels","volume_nm3"')
    unknown = measure(write_volume(tmp_path / "c.zarr", labels, voxel_size=None))
    with pytest.raises(ParameterError, match=r"c\.zarr"):
        write_objects([*results, unknown], tmp_path / "all.csv")
    with pytest.raises(ParameterError, match=r"\.csv or \.tsv"):
        write_objects(results, tmp_path / "all.xlsx")


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(4).integers(0, 256, SHAPE).astype(np.uint8)


@pytest.mark.parametrize(("shard", "workers"), [((8, 32, 32), 2), ((4, 16, 64), 1)])
def test_small_blocks_with_halos_give_the_same_table(tmp_path, labels, raw, shard, workers):
    whole = write_volume(tmp_path / "whole.zarr", labels, shard=(32, 64, 96))
    cut = write_volume(tmp_path / "cut.zarr", labels, shard=shard)
    for volume in (whole, cut):
        write_raw(volume, raw)
    expected = measure(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats_block, "LARGEST_BLOCK", (12, 32, 32))
        found = measure(cut, workers)
    assert list(found.columns) == list(expected.columns)
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], column, err_msg=name)
    slices = [pyarrow.parquet.read_table(r.slices).to_pydict() for r in (found, expected)]
    assert slices[0] == slices[1]
    assert repr(found.summary) == repr(expected.summary)


def test_the_full_set_is_that_of_the_arrays(tmp_path, labels, raw):
    volume = write_volume(tmp_path / "vol.zarr", labels)
    write_raw(volume, raw)
    found = measure(volume)
    want = regionprops_table(labels, raw, properties=("euler_number", "intensity_mean"))
    np.testing.assert_array_equal(found.columns["euler_number"], want["euler_number"])
    np.testing.assert_allclose(found.columns["intensity_mean"], want["intensity_mean"])
    half = regionprops_table(labels, raw // 2, properties=("intensity_mean",))
    np.testing.assert_allclose(found.columns["probability_mean"], half["intensity_mean"] / 255)
    roi, read = full_roi(labels.shape), Readers(labels.__getitem__)
    sums, _ = tally(roi, labels.shape, labels.shape, read, shapes=True)
    area = surface_areas(sums.crossings, (50.0, 5.0, 4.0))
    np.testing.assert_array_equal(found.columns["surface_area_nm2"], area)
    assert found.units["surface_area_nm2"] == "nm^2"


def test_less_can_be_asked_for(tmp_path, labels):
    volume = write_volume(tmp_path / "vol.zarr", labels)
    full, shapes, basic = (measure(volume, measure=m) for m in ("full", "shapes", "basic"))
    assert "intensity_mean" in full.columns
    assert "intensity_mean" not in shapes.columns
    assert "surface_area_nm2" in shapes.columns
    assert "surface_area_nm2" not in basic.columns
    for name, column in basic.columns.items():
        np.testing.assert_array_equal(full.columns[name], column)
    assert repr(basic.summary) == repr(full.summary)
    with pytest.raises(ParameterError, match=r"full, shapes, basic, found 'all'"):
        measure(volume, measure="all")
    with pytest.raises(ParameterError, match="neither surfaces nor centerlines"):
        measure(volume, measure="basic", centerline=True)


def test_marching_cubes_and_centerlines(tmp_path, monkeypatch):
    labels = np.zeros(SHAPE, np.uint32)
    labels[4:9, 10:15, 5:65], labels[10:18, 30:50, 20:50] = 3, 9
    volume = write_volume(tmp_path / "vol.zarr", labels, voxel_size=(5.0, 5.0, 5.0))
    plain = measure(volume).columns
    found = measure(volume, surface="marching-cubes", centerline=True).columns
    assert (found["surface_area_nm2"] > plain["surface_area_nm2"]).all()
    assert found["centerline_length_nm"][0] == pytest.approx(57 * 5, rel=0.05)
    assert found["centerline_branches"][0] == 1
    monkeypatch.setattr(stats_block, "LARGEST_BOX", 2000)
    partly = measure(volume, centerline=True)
    assert np.isnan(partly.columns["centerline_length_nm"]).tolist() == [False, True]
    np.testing.assert_array_equal(partly.columns["surface_area_nm2"], plain["surface_area_nm2"])


def test_outlines(tmp_path, monkeypatch):
    labels = np.zeros(SHAPE, np.uint32)
    labels[4:9, 10:15, 5:65], labels[10:18, 30:50, 20:50] = 3, 9
    volume = write_volume(tmp_path / "vol.zarr", labels, voxel_size=(20.0, 5.0, 4.0))
    found = measure(volume, outline=True)
    # between the middles of faces: half a voxel longer at both ends, along one axis
    first, second = (80, 20, 59 * 4), (140, 95, 29 * 4)
    longest = [
        max(np.linalg.norm(np.add(sides, np.eye(3)[k] * (20, 5, 4))) for k in range(3))
        for sides in (first, second)
    ]
    np.testing.assert_allclose(found.columns["feret_diameter_nm"], longest)
    np.testing.assert_array_equal(found.columns["solidity"], 1)
    np.testing.assert_array_equal(found.columns["section_area_nm2"], [300 * 20, 600 * 20])
    np.testing.assert_array_equal(found.columns["largest_section_nm2"], [300 * 20, 600 * 20])
    assert np.isnan(found.columns["darkness"]).all(), "around it all is the same"
    outlines = [2 * (25 + 240), 2 * (100 + 120)]
    np.testing.assert_allclose(found.columns["section_perimeter_nm"], outlines, rtol=0.1)
    assert (found.columns["section_circularity"] < 0.9).all()
    assert found.units["feret_diameter_nm"] == "nm"
    assert "solidity" not in measure(volume).columns
    monkeypatch.setattr(stats_block, "LARGEST_BOX", 2000)
    partly = measure(volume, outline=True)
    assert np.isnan(partly.columns["solidity"]).tolist() == [False, True]


def test_what_cannot_be_summed_is_left_out_and_it_says_why(tmp_path, labels, raw):
    volume = write_volume(tmp_path / "vol.zarr", labels)
    write_raw(volume, raw, complete=False)
    found = measure(volume)
    assert "probability_mean" not in found.columns
    assert "incomplete" in found.notes[0]
    floats = tmp_path / "floats.zarr"
    create_image(floats, ArraySpec(SHAPE, "float32", (8, 8, 8), (8, 8, 8)), None, attributes={})
    found = measure(floats, labels=labels_path(volume, "mitochondria"))
    assert "intensity_mean" not in found.columns
    assert "float32" in found.notes[0]


def test_intensities_that_are_fractions_have_columns_too(tmp_path, labels, raw):
    source = tmp_path / "raw.tif"
    values = (raw.astype(np.float32) - 90) * np.float32(0.37)
    tifffile.imwrite(source, values)
    volume = tmp_path / "vol.zarr"
    with plan_conversion(source, volume, ConvertOptions()) as plan:
        convert(plan, NoProgress())
    named = labels_path(write_volume(tmp_path / "labels.zarr", labels), "mitochondria")
    found = measure(volume, labels=named)
    want = regionprops_table(labels, values, properties=INTENSITIES)
    for name in INTENSITIES:
        column = found.columns[name.replace("std", "sd")]
        np.testing.assert_allclose(column, want[name], atol=1e-3, err_msg=name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats_block, "LARGEST_BLOCK", (12, 32, 32))
        again = measure(volume, labels=named)
    for name, column in found.columns.items():
        np.testing.assert_array_equal(again.columns[name], column, err_msg=name)


def convert_raw(folder, raw, **options):
    tifffile.imwrite(folder / "raw.tif", raw)
    asked = ConvertOptions(**options)
    with plan_conversion(folder / "raw.tif", folder / "raw.zarr", asked) as plan:
        convert(plan, NoProgress())
    return folder / "raw.zarr"


@pytest.mark.parametrize(("kind", "factor", "offset"), [("uint8", 1, 0), ("float32", 0.25, -7)])
def test_brightness_is_a_part_of_the_range_of_the_tissue(
    tmp_path, labels, raw, kind, factor, offset
):
    padded = raw.copy()
    padded[:, :9] = 255  # which is no tissue
    volume = convert_raw(tmp_path, (padded * factor + offset).astype(kind))
    named = labels_path(write_volume(tmp_path / "labels.zarr", labels), "mitochondria")
    found = measure(volume, labels=named)
    low, high = np.percentile(raw[:, 9:], [1, 99])
    want = regionprops_table(labels, (padded - low) / (high - low), properties=("intensity_mean",))
    np.testing.assert_allclose(found.columns["brightness"], want["intensity_mean"], atol=0.01)
    assert found.units["brightness"] == "1"
    assert "brightness" not in measure(volume, labels=named, measure="shapes").columns


def test_volumes_of_one_large_value_have_no_brightness(tmp_path, labels):
    volume = convert_raw(tmp_path, np.full(SHAPE, 1e20, np.float32))
    named = labels_path(write_volume(tmp_path / "labels.zarr", labels), "mitochondria")
    assert "brightness" not in measure(volume, labels=named).columns


def test_unrelated_images_and_volumes_without_a_histogram_have_no_brightness(tmp_path, labels, raw):
    volume = write_volume(tmp_path / "vol.zarr", labels)
    write_raw(volume, raw)
    assert "brightness" not in measure(volume).columns
    images = convert_raw(tmp_path, raw, images=True)
    found = measure(images, labels=labels_path(volume, "mitochondria"))
    assert "intensity_mean" in found.columns
    assert "brightness" not in found.columns


@pytest.mark.parametrize(
    ("likeness", "dark", "told"),
    [("unlike", 40, 1), ("very unlike", 40, 1), ("like", 40, 0), ("unlike", 210, 0)],
)
def test_what_is_bright_in_unlike_tissue_is_told(tmp_path, likeness, dark, told):
    raw = np.full(SHAPE, 128, np.uint8)
    raw[:, ::2, ::2], raw[:, 1::2, 1::2] = 0, 255
    labels = np.zeros(SHAPE, np.uint32)
    labels[2:9, 5:25, 5:25], labels[2:9, 40:50, 40:50] = 1, 2
    raw[labels == 1], raw[labels == 2] = dark, 140
    volume = convert_raw(tmp_path, raw)
    noted = {"fingerprint": "abc", "tissue": {"likeness": likeness}}
    source = write_volume(tmp_path / "labels.zarr", labels, **noted)
    labels_path(volume, "mitochondria").parent.mkdir(exist_ok=True)
    labels_path(source, "mitochondria").rename(labels_path(volume, "mitochondria"))
    notes = [n for n in measure(volume).notes if "brighter" in n]
    assert len(notes) == told
    if told:
        assert "1 object(s), 20.00% of the foreground" in notes[0]
        assert "look at some, such as 2; to drop all" in notes[0]
        assert "--keep 'brightness<0.45'" in notes[0]


def test_where_a_name_has_no_labels_others_may_be_given(tmp_path, labels, raw):
    write_raw(volume := write_volume(tmp_path / "vol.zarr", labels), raw)
    with pytest.raises(VolumeError, match=r"no labels/none.* first, or give --labels"):
        plan_stats(volume, StatsOptions(name="none"))


def test_one_table_for_volumes_with_and_without_probabilities(tmp_path, labels, raw):
    volumes = [write_volume(tmp_path / f"{n}.zarr", labels) for n in "ab"]
    write_raw(volumes[0], raw)
    results = [measure(v) for v in volumes]
    write_objects(results, tmp_path / "all.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "all.parquet")
    count = results[0].summary.objects
    column = rows.column("probability_mean").to_numpy()
    assert np.isfinite(column[:count]).all()
    assert np.isnan(column[count:]).all()
    assert rows.schema.field("surface_area_nm2").metadata == {b"unit": b"nm^2"}


def test_slices_have_a_table(tmp_path, labels):
    found = measure(write_volume(tmp_path / "vol.zarr", labels), measure="basic")
    rows = pyarrow.parquet.read_table(found.slices).to_pydict()
    assert found.slices.name == "mitochondria-slices.parquet"
    assert rows["z"] == list(range(SHAPE[0]))
    assert rows["area"] == (labels > 0).sum(axis=(1, 2)).tolist()
    assert rows["area_nm2"] == [a * 20 for a in rows["area"]]


def test_pandas_reads_the_tables(tmp_path, labels):
    pandas = pytest.importorskip("pandas")
    found = measure(write_volume(tmp_path / "vol.zarr", labels))
    frame = pandas.read_parquet(found.table)
    assert list(frame.columns) == list(found.columns)
    write_objects([found], tmp_path / "all.csv")
    read = pandas.read_csv(tmp_path / "all.csv")
    np.testing.assert_allclose(read["surface_area_nm2"], frame["surface_area_nm2"])


def test_the_heaviest_of_few_blocks_come_first(tmp_path):
    # noise takes more room than nothing, and than one object
    labels = np.zeros((16, 32, 64), np.uint32)
    labels[8:, :, :32] = 7
    labels[8:, :, 32:] = np.random.default_rng(0).integers(1, 99, (8, 32, 32))
    spec = ArraySpec(labels.shape, "uint32", (8, 32, 32), (8, 32, 32))
    create_array(tmp_path / "labels", spec).write(full_roi(labels.shape), labels)
    source, grid = open_label_path(tmp_path / "labels"), Grid(labels.shape, (8, 32, 32))
    found = [block.index for block in order_blocks(source, grid, 2)]
    assert found == [(1, 0, 1), (1, 0, 0), (0, 0, 0), (0, 0, 1)]
    many = Grid(labels.shape, (1, 8, 8))
    assert list(order_blocks(source, many, 1)) == list(many.blocks())


def test_contacts_read_small_blocks_of_large_volumes(tmp_path, monkeypatch):
    """Of both results blocks are whole in memory, unlike where one is measured slab by slab."""
    shape, sizes = (1024, 2048, 2048), list[int]()
    for name in ("a", "b"):
        noted = {"complete": True, "fingerprint": name}
        create_image(labels_path(tmp_path, name), fit_spec(shape, "uint32"), None, attributes=noted)

    def look(_, blocks, *__, **___):
        sizes.extend(roi_size(b.core) for b in blocks)

    monkeypatch.setattr(contacts, "run_blocks", look)
    pair = open_labels(tmp_path, "a"), open_labels(tmp_path, "b")
    table = tmp_path / "a.parquet"
    find_contacts(table, pair, None, EngineOptions(), NoProgress(), planar=False)
    assert sum(sizes) == math.prod(shape)
    assert max(sizes) <= 1 << 24
