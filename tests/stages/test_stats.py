"""Statistics of labels from anyone: volseg's, other Zarr arrays, TIFF."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow.parquet
import pytest
import tifffile
from skimage.measure import regionprops_table

from volseg.blocks import full_roi
from volseg.errors import ParameterError, ShapeError, VolumeError
from volseg.io.arrays import ArraySpec, create_array
from volseg.io.volumes import create_image, labels_path, register_label, table_path
from volseg.stages.engine import EngineOptions
from volseg.stages.progress import NoProgress
from volseg.stages.stats import StatsOptions, stats, write_objects

SHAPE = (20, 60, 70)


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


def measure(volume, workers=1, **more):
    options = StatsOptions(engine=EngineOptions(workers=workers), **more)
    return stats(volume, options, NoProgress())


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
    volume = write_volume(tmp_path / "vol.zarr", labels, complete=False)
    with pytest.raises(VolumeError, match="incomplete; finish it with `volseg segment`"):
        measure(volume)
    with pytest.raises(VolumeError, match="no labels/nuclei; it has mitochondria"):
        measure(volume, name="nuclei")
    tifffile.imwrite(tmp_path / "small.tif", labels[:, :9])
    with pytest.raises(ShapeError, match=r"\(20, 9, 70\).*\(20, 60, 70\)"):
        measure(volume, labels=tmp_path / "small.tif")
    floats = create_array(tmp_path / "f.zarr", ArraySpec(SHAPE, "float32", (8, 8, 8), (8, 8, 8)))
    with pytest.raises(VolumeError, match="float32; labels are whole numbers"):
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
    with pytest.raises(ParameterError, match=r"\.parquet or \.csv"):
        write_objects(results, tmp_path / "all.xlsx")
