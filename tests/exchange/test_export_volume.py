"""Exports are read back by programs that volseg has no part in, value by value."""

from __future__ import annotations

import csv
import json
import struct

import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage

import volseg as front
from toy_volumes import write_labels, write_raw
from volseg.errors import ConflictError, ParameterError, StorageError
from volseg.exchange.volumes import plan as plans
from volseg.exchange.volumes import precomputed, tiff, zarr_v2
from volseg.exchange.volumes.sheets import write_sheet
from volseg.geometry.grid import full_roi
from volseg.storage.ome import Space
from volseg.storage.tables import write_table
from volseg.storage.volumes import labels_path, open_image

SHAPE = (44, 150, 170)
SIZE, ORIGIN = (30.0, 5.0, 4.6), (600.0, 50.0, 92.0)
SPACE = Space(SIZE, ORIGIN, ("nanometer",) * 3)
BALLS = {1: (10, 40, 50), 2: (30, 100, 120), 3: (22, 75, 20)}
RADII = (6, 22, 18)


def draw_labels():
    """Draw ellipsoids, as large in voxels as `RADII`."""
    z, y, x = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.uint32)
    for label, at in BALLS.items():
        near = sum(((p - a) / r) ** 2 for p, a, r in zip((z, y, x), at, RADII, strict=True))
        labels[near <= 1] = label
    return labels


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    rng = np.random.default_rng(1)
    raw = (ndimage.gaussian_filter(rng.random(SHAPE), 2) * 500).astype(np.uint8)
    path = write_raw(tmp_path_factory.mktemp("vol") / "vol.zarr", raw, (32, 64, 64), SPACE)
    write_labels(path, draw_labels(), SPACE)
    front.stats(path)
    return path


def stored(volume, *place):
    return open_image(volume.joinpath(*place)).levels[0][full_roi(SHAPE)]


@pytest.mark.parametrize("what", ["raw", "labels"])
def test_imagej_reads_values_sizes_and_place(what, volseg, volume, tmp_path):
    path = tmp_path / "out.tif"
    done = volseg("export", volume, what, "--output", path)
    assert done.exit_code == 0, done.output
    expected = stored(volume, *(() if what == "raw" else ("labels", "mitochondria")))
    with tifffile.TiffFile(path) as file:
        assert file.is_imagej
        assert not file.is_bigtiff
        np.testing.assert_array_equal(file.asarray(), expected)
        assert file.series[0].axes == "ZYX"
        assert file.pages[0].dtype == ("uint8" if what == "raw" else "uint16")
        words, page = file.imagej_metadata, file.pages[0]
        assert (words["unit"], words["spacing"], words["images"]) == ("nm", 30, 44)
        found = [words[f"{axis}origin"] for axis in "zyx"]
        np.testing.assert_allclose(found, np.divide(ORIGIN, SIZE) * -1)
        y, x = (page.tags[name].value for name in ("YResolution", "XResolution"))
        np.testing.assert_allclose((y[1] / y[0], x[1] / x[0]), SIZE[1:], rtol=1e-8)


@pytest.mark.parametrize("shape", [(8, 5, 1), (8, 1, 7), (1, 9, 7), (8, 9, 3), (1, 1, 1)])
def test_flat_volumes_are_read_back(tmp_path, shape):
    raw = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) + 1
    path = write_raw(tmp_path / "v.zarr", raw, (8, 16, 16), SPACE)
    front.export(path, "raw", output=tmp_path / "a.tif")
    assert tifffile.imread(tmp_path / "a.tif").size == raw.size
    front.convert(tmp_path / "a.tif", tmp_path / "b.zarr")
    np.testing.assert_array_equal(front.open(tmp_path / "b.zarr").raw[...], raw)


def test_volseg_reads_what_it_writes(volseg, volume, tmp_path):
    for name in ("a.tif", "a.ome.tif", "a.h5", "a.zarr"):
        front.export(volume, "raw", output=tmp_path / name)
        front.convert(tmp_path / name, tmp_path / f"back-{name}.zarr")
        back = front.open(tmp_path / f"back-{name}.zarr")
        np.testing.assert_array_equal(back.raw[...], stored(volume))
        np.testing.assert_allclose(back.voxel_size, SIZE, rtol=1e-6)


def test_ome_tiff(volume, tmp_path):
    path = tmp_path / "out.ome.tif"
    front.export(volume, output=path, dtype="uint32")
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        np.testing.assert_array_equal(file.asarray(), draw_labels())
        assert file.pages[0].dtype == "uint32"
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"] == list(SIZE)
    assert pixels["PhysicalSizeXUnit"] == "nm"
    third = pixels["Plane"][2]
    assert [third[f"Position{axis}"] for axis in "ZYX"] == [660, 50, 92]


def test_what_imagej_cannot_hold(volume, tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "CLASSIC", 1000)
    done = front.export(volume, output=tmp_path / "large.tif")
    assert "Fiji opens it by Bio-Formats" in done.notes[-1]
    with tifffile.TiffFile(tmp_path / "large.tif") as file:
        assert (file.is_bigtiff, file.is_ome, file.is_imagej) == (True, True, False)
        np.testing.assert_array_equal(file.asarray(), draw_labels())


@pytest.mark.parametrize(
    ("highest", "kind", "imagej"),
    [(65535, "uint16", True), (65536, "float32", True), ((1 << 24) + 1, "uint32", False)],
)
def test_all_labels_are_told_apart(highest, kind, imagej, volume, tmp_path):
    labels = np.zeros((4, 40, 40), np.uint32)
    labels[1, 2, 3], labels[2, 3, 4] = highest - 1, highest
    other = write_raw(tmp_path / "v.zarr", np.zeros(labels.shape, np.uint8))
    write_labels(other, labels, SPACE)
    done = front.export(other, output=tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert (file.pages[0].dtype, bool(file.is_imagej)) == (kind, imagej)
        np.testing.assert_array_equal(file.asarray().astype(np.uint32), labels)
    assert any("float32" in note for note in done.notes) == (kind == "float32")
    if kind == "float32":
        with pytest.raises(ParameterError, match="tells those up to 65535 apart"):
            front.export(other, output=tmp_path / "b.tif", dtype="uint16")


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.ply"])
def test_labels_of_64_bits_are_refused_where_they_do_not_fit(name, volseg, tmp_path):
    pytest.importorskip("skimage")
    labels = np.zeros((4, 40, 40), np.uint64)
    labels[1:3, 5:15, 5:15] = 1 << 40
    other = write_raw(tmp_path / "v.zarr", np.zeros(labels.shape, np.uint8))
    write_labels(other, labels, SPACE, objects=None)
    front.stats(other)
    done = volseg("export", other, "--output", tmp_path / name)
    assert done.exit_code in (1, 2)
    assert "hold" in done.output
    assert "unexpected" not in done.output
    assert not (tmp_path / name).exists()
    front.export(other, output=tmp_path / "a.glb")


def test_labels_above_the_number_of_objects_are_told_apart(volume, tmp_path):
    labels = np.zeros((4, 40, 40), np.uint32)
    labels[0, 0, :3] = 1, 2, 70_000
    other = write_raw(tmp_path / "v.zarr", np.zeros(labels.shape, np.uint8))
    write_labels(other, labels, SPACE, objects=3)
    front.apply(other, corrections={"delete": [1]}, workers=1)
    name = "mitochondria-corrected"
    front.export(other, output=tmp_path / "a.tif", name=name)
    np.testing.assert_array_equal(np.unique(tifffile.imread(tmp_path / "a.tif")), [0, 2, 70_000])
    with pytest.raises(ParameterError, match="labels go up to 70000"):
        front.export(other, output=tmp_path / "b.tif", name=name, dtype="uint8")


def test_labels_below_0_are_background(tmp_path):
    labels = np.full((4, 40, 40), -1, np.int32)
    labels[1, 5:9, 5:9] = 3
    other = write_raw(tmp_path / "v.zarr", np.zeros(labels.shape, np.uint8))
    write_labels(other, labels, SPACE, objects=None)
    front.export(other, output=tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), np.maximum(labels, 0))


def test_a_region_and_a_level(volume, tmp_path):
    front.export(volume, output=tmp_path / "a.tif", roi="5:20,30:80,:")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), draw_labels()[5:20, 30:80])
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.imagej_metadata["zorigin"] == pytest.approx(-(600 + 5 * 30) / 30)
    front.export(volume, "raw", output=tmp_path / "b.tif", level=1)
    image = open_image(volume)
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "b.tif"), image.levels[1][full_roi(image.levels[1].shape)]
    )
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        words, page = file.imagej_metadata, file.pages[0]
        step = np.multiply(SIZE, image.factors[1])
        assert words["spacing"] == step[0]
        over, under = page.tags["XResolution"].value
        assert under / over == pytest.approx(step[2])
        # the middle of a voxel is that of those which it stands for
        middle = ORIGIN[2] + SIZE[2] * (image.factors[1][2] - 1) / 2
        assert words["xorigin"] == pytest.approx(-middle / step[2])


def test_hdf5(volume, tmp_path):
    h5py = pytest.importorskip("h5py")
    front.export(volume, output=tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        dataset = file["labels"]
        np.testing.assert_array_equal(dataset[...], draw_labels())
        assert dataset.dtype == np.uint32
        np.testing.assert_allclose(dataset.attrs["element_size_um"], np.divide(SIZE, 1000))
        np.testing.assert_allclose(dataset.attrs["origin_nm"], ORIGIN)
        assert [d.label for d in dataset.dims] == ["z", "y", "x"]


@pytest.mark.parametrize("what", ["raw", "labels"])
def test_ome_zarr_of_version_0_4(what, volume, tmp_path):
    front.export(volume, what, output=tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r", zarr_format=2)
    assert not (tmp_path / "a.zarr" / "zarr.json").exists()
    (multiscale,) = group.attrs["multiscales"]
    assert multiscale["version"] == "0.4"
    assert [a["unit"] for a in multiscale["axes"]] == ["nanometer"] * 3
    source = open_image(volume if what == "raw" else labels_path(volume, "mitochondria"))
    assert len(multiscale["datasets"]) == len(source.levels) > 1
    for dataset, level, factor in zip(
        multiscale["datasets"], source.levels, source.factors, strict=True
    ):
        np.testing.assert_array_equal(group[dataset["path"]][...], level[full_roi(level.shape)])
        scale, shift = dataset["coordinateTransformations"]
        np.testing.assert_allclose(scale["scale"], np.multiply(SIZE, factor))
        expected = ORIGIN + np.multiply(SIZE, np.subtract(factor, 1)) / 2
        np.testing.assert_allclose(shift["translation"], expected)
    assert ("image-label" in group.attrs) == (what == "labels")
    back = open_image(tmp_path / "a.zarr")
    assert (back.space, back.factors) == (source.space, source.factors)


def test_levels_that_others_reduced_by_a_half_more_keep_their_size(tmp_path):
    axes = [{"name": a, "type": "space", "unit": "nanometer"} for a in "zyx"]
    sizes = [[30.0, 5.0, 4.0], [30.0, 7.5, 6.0]]
    group = zarr.create_group(tmp_path / "v.zarr", zarr_format=3)
    datasets = []
    for k, (size, side) in enumerate(zip(sizes, (12, 8), strict=True)):
        group.create_array(str(k), data=np.ones((4, side, side), np.uint8))
        steps = [{"type": "scale", "scale": size}]
        datasets.append({"path": str(k), "coordinateTransformations": steps})
    multiscale = {"axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    front.export(tmp_path / "v.zarr", "raw", output=tmp_path / "a.zarr")
    (written,) = zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["multiscales"]
    found = [d["coordinateTransformations"][0]["scale"] for d in written["datasets"]]
    np.testing.assert_allclose(found, sizes)


def test_a_model_of_the_specification_accepts_it(volume, tmp_path):
    models = pytest.importorskip("ome_zarr_models.v04")
    front.export(volume, output=tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r", zarr_format=2)
    assert models.Image.from_zarr(group).attributes.multiscales[0].datasets[0].path == "0"


def decode_segments(content, shape):
    """Decode neuroglancer's compressed segmentation of uint32, from its description."""
    words = np.frombuffer(content, "<u4")
    words = words[words[0] :]
    grid = [-(-n // 8) for n in shape]
    out = np.zeros(shape, np.uint32)
    for k in range(int(np.prod(grid))):
        bx, by, bz = k % grid[0], k // grid[0] % grid[1], k // (grid[0] * grid[1])
        table, bits = int(words[2 * k] & 0xFFFFFF), int(words[2 * k] >> 24)
        values = int(words[2 * k + 1])
        for z, y, x in np.ndindex(8, 8, 8):
            at = (x + bx * 8, y + by * 8, z + bz * 8)
            if any(a >= n for a, n in zip(at, shape, strict=True)):
                continue
            bit = (x + 8 * (y + 8 * z)) * bits
            word = int(words[values + bit // 32]) if bits else 0
            out[at] = words[table + ((word >> bit % 32) & ((1 << bits) - 1))]
    return out


def test_precomputed(volume, tmp_path):
    pytest.importorskip("tensorstore")
    place = tmp_path / "a.precomputed"
    front.export(volume, output=place)
    info = json.loads((place / "info").read_text())
    assert (info["type"], info["data_type"], info["num_channels"]) == ("segmentation", "uint32", 1)
    image = open_image(labels_path(volume, "mitochondria"))
    assert len(info["scales"]) == len(image.levels)
    first = info["scales"][0]
    assert (first["resolution"], first["size"]) == ([4.6, 5, 30], [170, 150, 44])
    assert first["voxel_offset"] == [20, 10, 20]
    file = place / first["key"] / "20-84_74-138_20-64"
    # x from 0, y from 64, z from 0 of the volume
    found = decode_segments(file.read_bytes(), (64, 64, 44)).transpose(2, 1, 0)
    np.testing.assert_array_equal(found, draw_labels()[:44, 64:128, :64])
    properties = json.loads((place / info["segment_properties"] / "info").read_text())
    assert properties["@type"] == "neuroglancer_segment_properties"
    assert properties["inline"]["ids"] == ["1", "2", "3"]
    listed = {p["id"]: p for p in properties["inline"]["properties"]}
    assert listed["voxels"]["values"] == np.bincount(draw_labels().ravel())[1:].tolist()
    assert listed["volume_nm3"]["description"] == "nm^3"


def test_precomputed_images_lie_where_the_volume_does(volume, tmp_path):
    pytest.importorskip("tensorstore")
    front.export(volume, "raw", output=tmp_path / "a.precomputed", roi="10:30,:,20:90")
    info = json.loads((tmp_path / "a.precomputed" / "info").read_text())
    (scale,) = info["scales"]
    assert scale["voxel_offset"] == [20 + 20, 10, 20 + 10]
    content = (tmp_path / "a.precomputed" / scale["key"] / "40-104_10-74_30-50").read_bytes()
    found = np.frombuffer(content, np.uint8).reshape(20, 64, 64)
    np.testing.assert_array_equal(found, stored(volume)[10:30, :64, 20:84])


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_tables_of_text(suffix, separator, volume, tmp_path):
    front.export(volume, "table", output=tmp_path / f"a.{suffix}")
    with (tmp_path / f"a.{suffix}").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=separator))
    assert [int(row["label"]) for row in rows] == [1, 2, 3]
    assert [int(row["voxels"]) for row in rows] == np.bincount(draw_labels().ravel())[1:].tolist()


@pytest.mark.parametrize("what", ["table", "slices"])
def test_a_workbook(what, volume, tmp_path):
    pytest.importorskip("xlsxwriter")
    openpyxl = pytest.importorskip("openpyxl")
    front.export(volume, what, output=tmp_path / "a.xlsx")
    book = openpyxl.load_workbook(tmp_path / "a.xlsx")
    head, *rows = book["objects" if what == "table" else "slices"].iter_rows(values_only=True)
    name = "mitochondria" if what == "table" else "mitochondria-slices"
    table = front.open(volume).tables[name]
    assert list(head) == table.column_names
    for column, values in zip(head, zip(*rows, strict=True), strict=True):
        expected = [None if v != v else v for v in table.column(column).to_pylist()]
        assert list(values) == pytest.approx(expected)
    units = dict(row[:2] for row in book["units"].iter_rows(values_only=True))
    assert units["volume_nm3" if what == "table" else "z"] in ("nm^3", "voxel")


@pytest.mark.parametrize(
    ("column", "kind", "values"),
    [
        (np.array([2**24 + 1, 2**32 - 1]), "uint32", [2**24 + 1, 2**32 - 1]),
        (np.array([3, 2**33]), "float32", [3.0, 2.0**33]),
        (np.array([-1, 3]), "float32", [-1.0, 3.0]),
        (np.array([True, False]), "float32", [1.0, 0.0]),
        (np.array([0.5, np.nan]), "float32", [0.5, -1.0]),
    ],
)
def test_counts_of_segments_are_exact(column, kind, values):
    described = precomputed._property("voxels", column, {})
    assert (described["data_type"], described["values"]) == (kind, values)


@pytest.mark.parametrize("largest", [10**15 - 1, 10**15 + 1, 720_575_940_621_039_145, 2**64 - 1])
def test_a_workbook_keeps_every_digit_of_a_label(largest, tmp_path):
    pytest.importorskip("xlsxwriter")
    openpyxl = pytest.importorskip("openpyxl")
    labels = np.array([7, largest], np.uint64)
    table = tmp_path / "a.parquet"
    write_table(table, {"label": labels, "voxels": np.array([3, 4])}, {}, {})
    write_sheet(table, tmp_path / "a.xlsx", "objects")
    _, *rows = openpyxl.load_workbook(tmp_path / "a.xlsx")["objects"].values
    assert [int(label) for label, _ in rows] == [7, largest]
    assert [type(label) for label, _ in rows] == [int if largest < 10**15 else str] * 2
    assert [voxels for _, voxels in rows] == [3, 4]


def test_a_table_is_too_long_for_a_sheet(volume, tmp_path, monkeypatch):
    from volseg.exchange.volumes import sheets

    monkeypatch.setattr(sheets, "MOST_ROWS", 2)
    with pytest.raises(ParameterError, match=r"has 3 rows, a sheet of Excel 2"):
        front.export(volume, "table", output=tmp_path / "a.xlsx")


def read_stl(path):
    content = path.read_bytes()
    (count,) = struct.unpack("<I", content[80:84])
    kind = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("none", "<u2")])
    assert len(content) == 84 + 50 * count
    return np.frombuffer(content[84:], kind)


def signed_volume(corners):
    corners = corners.astype(float)
    return float(np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))) / 6


def true_volume():
    return 4 / 3 * np.pi * np.prod(np.multiply(RADII, SIZE))


def test_stl(volume, tmp_path):
    done = front.export(volume, output=tmp_path / "{label}.stl")
    assert done.rows == 3
    for label, at in BALLS.items():
        triangles = read_stl(tmp_path / f"{label}.stl")
        assert signed_volume(triangles["corners"]) == pytest.approx(true_volume(), rel=0.04)
        middle = (ORIGIN + np.multiply(at, SIZE))[::-1]
        found = triangles["corners"].reshape(-1, 3)
        np.testing.assert_allclose((found.min(axis=0) + found.max(axis=0)) / 2, middle, atol=4)
        outward = (triangles["corners"].mean(axis=1) - middle) * triangles["normal"]
        assert (outward.sum(axis=1) > 0).mean() > 0.99


def test_ply_and_glb_are_read_by_trimesh(volume, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    front.export(volume, output=tmp_path / "a.ply", objects=[1, 3])
    whole = trimesh.load(tmp_path / "a.ply", process=False)
    assert whole.volume == pytest.approx(2 * true_volume(), rel=0.04)
    assert whole.is_watertight
    front.export(volume, output=tmp_path / "a.glb")
    scene = trimesh.load(tmp_path / "a.glb")
    assert sorted(scene.geometry) == ["1", "2", "3"]
    for label, at in BALLS.items():
        (name,) = scene.graph.geometry_nodes[str(label)]
        place, _ = scene.graph[name]
        mesh = scene.geometry[str(label)].copy().apply_transform(place)
        assert mesh.volume == pytest.approx(true_volume(), rel=0.04)
        np.testing.assert_allclose(
            mesh.bounds.mean(axis=0), (ORIGIN + np.multiply(at, SIZE))[::-1], atol=4
        )


def test_ply_bears_labels(volume, tmp_path):
    front.export(volume, output=tmp_path / "a.ply")
    content = (tmp_path / "a.ply").read_bytes()
    head, body = content.split(b"end_header\n", 1)
    count = int(head.split(b"element vertex ")[1].split()[0])
    kind = np.dtype([("place", "<f4", 3), ("label", "<u4")])
    vertices = np.frombuffer(body[: count * kind.itemsize], kind)
    for label, at in BALLS.items():
        own = vertices["place"][vertices["label"] == label]
        middle = (ORIGIN + np.multiply(at, SIZE))[::-1]
        np.testing.assert_allclose((own.min(axis=0) + own.max(axis=0)) / 2, middle, atol=4)


def test_labels_of_others_in_a_volume_are_meshed_and_explored(tmp_path):
    pytest.importorskip("skimage")
    labels = np.zeros((4, 40, 40), np.uint32)
    labels[1:3, 5:15, 5:15], labels[1:3, 25:35, 5:15] = 1, 2
    other = write_raw(tmp_path / "v.zarr", np.zeros(labels.shape, np.uint8))
    write_labels(other, labels, SPACE, "theirs", fingerprint=None)
    front.stats(other, name="theirs")
    assert front.export(other, output=tmp_path / "a.ply", name="theirs").rows == 2
    assert front.explore(other, name="theirs")["objects"]["objects"] == 2
    write_labels(other, labels.astype(bool).astype(np.uint8), SPACE, "mask", fingerprint=None)
    front.stats(other, name="mask")
    with pytest.raises(ParameterError, match="is a mask, whose objects have no labels"):
        front.export(other, output=tmp_path / "b.ply", name="mask")


def test_a_large_object_is_meshed_from_a_coarser_level(volume, tmp_path, monkeypatch):
    from volseg.exchange.volumes import meshes

    monkeypatch.setattr(meshes, "LARGEST_BOX", 10_000)
    done = front.export(volume, output=tmp_path / "1.stl", objects=[1])
    assert "a coarser level" in done.notes[0]
    triangles = read_stl(tmp_path / "1.stl")
    assert signed_volume(triangles["corners"]) == pytest.approx(true_volume(), rel=0.15)
    found = triangles["corners"].reshape(-1, 3)
    middle = (ORIGIN + np.multiply(BALLS[1], SIZE))[::-1]
    np.testing.assert_allclose((found.min(axis=0) + found.max(axis=0)) / 2, middle, atol=12)


def test_volumes_of_unknown_voxel_size_state_none(tmp_path):
    path = write_raw(tmp_path / "v.zarr", np.zeros((4, 40, 40), np.uint8), voxel_size=None)
    done = front.export(path, "raw", output=tmp_path / "a.tif")
    assert "voxel size of" in done.notes[0]
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert "unit" not in file.imagej_metadata
        assert "spacing" not in file.imagej_metadata
    front.export(path, "raw", output=tmp_path / "a.zarr")
    (multiscale,) = zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["multiscales"]
    assert "unit" not in multiscale["axes"][0]
    with pytest.raises(ParameterError, match="precomputed volumes are in nm"):
        front.export(path, "raw", output=tmp_path / "a.precomputed")


@pytest.mark.parametrize("ending", ["ply", "stl", "glb"])
@pytest.mark.parametrize("size", [None, SIZE])
def test_meshes_say_their_unit(tmp_path, ending, size):
    path = write_raw(tmp_path / "v.zarr", np.zeros((8, 40, 40), np.uint8), voxel_size=size)
    mask = np.zeros((8, 40, 40), np.float32)
    mask[2:6, 9:20, 9:20] = 1
    tifffile.imwrite(tmp_path / "p.tif", mask)
    front.label(path, probabilities=tmp_path / "p.tif", threshold=0.5)
    front.stats(path)
    front.export(path, output=tmp_path / f"a.{ending}")
    told = (tmp_path / f"a.{ending}").read_bytes()
    units = (b", in nm", b'"unit": "nm"'), (b", in voxels", b'"unit": "voxels"')
    own, other = units if size else units[::-1]
    assert any(words in told for words in own)
    assert not any(words in told for words in other)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["raw", "--output", "a.png"], "go to a path that ends in .ome.tif"),
        (["raw", "--output", "a.glb"], "raw go to a path"),
        (["--output", "a.xlsx"], "goes there by `volseg export VOLUME table --output a.xlsx`"),
        (["table", "--output", "a.tif"], "ends in .csv, .tsv, .xlsx"),
        (["labels", "--output", "a.tif", "--name", "no"], "has no labels/no"),
        (["probabilities", "--output", "a.tif"], "there is nothing in probabilities"),
        (["labels", "--output", "no/a.tif"], "there is no folder"),
        (["labels", "--output", "a.tif", "--level", "9"], "has the levels 0 to"),
        (["labels", "--output", "a.tif", "--roi", "0:99,:,:"], "leaves the volume"),
        (["raw", "--output", "a.tif", "--dtype", "uint16"], "--dtype is for labels"),
        (["labels", "--output", "a.tif", "--object", "1"], "objects of meshes"),
        (["labels", "--output", "{label}.tif"], "is for meshes"),
        (["labels", "--output", "a.glb", "--dtype", "uint8"], "a mesh has none"),
        (["raw", "--output", "a.tif", "--name", "other"], "raw has no --name, found other"),
        (["labels", "--output", "a.stl", "--object", "7"], "there is no object 7"),
        (["table", "--output", "a.csv", "--level", "1"], "a table is written whole"),
    ],
)
def test_wrong_usage_is_named(arguments, said, volseg, volume, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = volseg("export", volume, *arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.tif", "a.h5", "a.zarr", "a.precomputed", "a.ply", "a.csv"])
def test_what_stands_there_stays_until_its_successor_stands(
    name, volseg, volume, tmp_path, monkeypatch
):
    what = "table" if name == "a.csv" else "labels"
    front.export(volume, what, output=tmp_path / name)

    def content():
        files = sorted(p for p in tmp_path.rglob("[!.]*") if p.is_file() and ".part" not in str(p))
        return {p: p.read_bytes() for p in files}

    before = content()
    with pytest.raises(ConflictError, match="exists already"):
        front.export(volume, what, output=tmp_path / name)

    def fail(*_args, **_more):
        raise StorageError("the disk is away")

    from volseg.exchange.volumes import cut, mesh_files, sheets

    monkeypatch.setattr(cut.Cut, "read", fail)
    monkeypatch.setattr(mesh_files.np, "empty", fail) if name == "a.ply" else None
    monkeypatch.setattr(sheets, "write_table", fail)
    with pytest.raises(StorageError, match="the disk is away"):
        front.export(volume, what, output=tmp_path / name, overwrite=True)
    monkeypatch.undo()
    assert content() == before
    front.export(volume, what, output=tmp_path / name, overwrite=True)
    assert set(content()) == set(before)


@pytest.mark.parametrize("name", ["a.tif", "a.h5", "a.csv"])
def test_a_link_stays_and_what_it_points_to_is_replaced(name, volume, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / "elsewhere" / name
    (tmp_path / name).symlink_to(place)
    front.export(volume, "table" if name == "a.csv" else "labels", output=tmp_path / name)
    assert (tmp_path / name).is_symlink()
    assert [p.name for p in place.parent.iterdir()] == [name]


def test_a_full_disk_ends_an_hdf5_file_in_an_error(volume, tmp_path, monkeypatch):
    from volseg.exchange.volumes import hdf5

    class Full:
        """A file on a disk that fills up."""

        def __init__(self, file):
            self.file, self.left = file, 20_000

        def write(self, content):
            self.left -= len(content)
            if self.left < 0:
                raise OSError(28, "No space left on device")
            return self.file.write(content)

        def __getattr__(self, name):
            return getattr(self.file, name)

    held = hdf5.HeldFile
    monkeypatch.setattr(hdf5, "HeldFile", lambda file: held(Full(file)))
    with pytest.raises(StorageError, match="No space left on device"):
        front.export(volume, "raw", output=tmp_path / "a.h5")
    assert all(p.name.startswith(".a.h5.part") for p in tmp_path.iterdir())
    monkeypatch.undo()
    front.export(volume, "raw", output=tmp_path / "a.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("name", ["a.zarr", "a.precomputed"])
def test_what_failed_goes_on_where_it_was(name, volume, tmp_path, monkeypatch):
    module = zarr_v2 if name == "a.zarr" else precomputed
    monkeypatch.setattr(module, "BLOCK", (64, 128, 128))
    real, done, broken = module.CopyBlock.__call__, [], False

    def copy(task, block):
        done.append((task.cut.shape, block.index))
        if broken and block.index == (0, 1, 1):
            raise OSError(28, "No space left on device")
        real(task, block)

    monkeypatch.setattr(module.CopyBlock, "__call__", copy)
    front.export(volume, output=tmp_path / f"whole-{name}", workers=1)
    everything, broken = set(done), True
    assert len(everything) > 4
    done.clear()
    with pytest.raises(StorageError, match="the same command does what is missing: No space"):
        front.export(volume, output=tmp_path / name, workers=1)
    assert not (tmp_path / name).exists()
    with pytest.raises(ConflictError, match="of an unfinished run"):
        front.export(volume, "raw", output=tmp_path / name)
    broken = False
    done.clear()
    front.export(volume, output=tmp_path / name, workers=1)
    assert set(done) == {(s, k) for s, k in everything if s != SHAPE or k == (0, 1, 1)}
    names = [f"whole-{name}", name]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    found = [
        {
            str(p.relative_to(tmp_path / n)): p.read_bytes()
            for p in (tmp_path / n).rglob("*")
            if p.is_file() and p.name != ".zattrs"  # which holds its name
        }
        for n in names
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("name", "what"), [("a.tif", "raw"), ("a.tif", "labels"), ("a.ome.tif", "raw"), ("a.h5", "raw")]
)
def test_a_file_that_failed_goes_on_where_it_was(name, what, volume, tmp_path, monkeypatch):
    from volseg.exchange.volumes import cut

    real, read, broken = cut.Cut.read, [], True

    def fail(self, box):
        if broken and box[0].start >= 32:
            raise StorageError("the disk is away")
        read.append(box)
        return real(self, box)

    front.export(volume, what, output=tmp_path / f"whole-{name}", workers=1)
    monkeypatch.setattr(cut.Cut, "read", fail)
    with pytest.raises(StorageError, match="the disk is away"):
        front.export(volume, what, output=tmp_path / name, workers=1)
    (kept,) = tmp_path.glob(".*.part")
    assert not (tmp_path / name).exists()
    with pytest.raises(ConflictError, match="of an unfinished run"):
        front.export(volume, what, output=tmp_path / name, level=1)
    if what == "labels" or name == "a.h5":  # a kill tears what it was about to write
        with kept.open("ab") as file:
            file.write(b"torn")
    broken, first = False, len(read)
    front.export(volume, what, output=tmp_path / name, workers=1)
    assert first > 0
    assert all(box[0].start >= 32 for box in read[first:])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, f"whole-{name}"])
    found, whole = ((tmp_path / n).read_bytes() for n in (name, f"whole-{name}"))
    if name == "a.ome.tif":  # which has an identity, and its own name
        found, whole = (tifffile.imread(tmp_path / n) for n in (name, f"whole-{name}"))
        np.testing.assert_array_equal(found, whole)
    else:
        assert found == whole


@pytest.mark.parametrize("name", ["a.glb", "{label}.stl"])
def test_meshes_that_failed_go_on_where_they_were(name, volume, tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    from volseg.exchange.volumes import meshes

    real, made, broken = meshes.make_mesh, [], True

    def make(image, found, level):
        if broken and found.label == 3:
            raise StorageError("the disk is away")
        made.append(found.label)
        return real(image, found, level)

    monkeypatch.setattr(meshes, "make_mesh", make)
    with pytest.raises(StorageError, match="the disk is away"):
        front.export(volume, output=tmp_path / name, workers=1)
    there = sorted(p.name for p in tmp_path.glob("[!.]*"))
    assert there == (["1.stl", "2.stl"] if "{" in name else [])
    with pytest.raises(ConflictError, match="of an unfinished run"):
        front.export(volume, output=tmp_path / name, objects=[3])
    broken = False
    assert front.export(volume, output=tmp_path / name, workers=1).rows == 3
    assert made == [1, 2, 3]
    (tmp_path / "whole").mkdir()
    front.export(volume, output=tmp_path / "whole" / name)
    found, whole = (
        {p.name: p.read_bytes() for p in place.iterdir() if p.is_file()}
        for place in (tmp_path, tmp_path / "whole")
    )
    assert found == whole
    with pytest.raises(ConflictError, match="exists already"):
        front.export(volume, output=tmp_path / name)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("name", "what"), [("a.tif", "labels"), ("a.h5", "raw")])
def test_parts_that_were_interrupted_or_damaged_are_made_again(
    name, what, volume, tmp_path, monkeypatch
):
    from volseg.exchange.volumes import resumed

    real, place = resumed.Pieces.add, tmp_path / name

    def interrupted(parts):
        yield parts[0]
        raise KeyboardInterrupt

    def add(kept, parts):
        real(kept, interrupted(parts) if kept.count == 1 else parts)

    front.export(volume, what, output=tmp_path / f"whole-{name}", workers=1)
    for damaged in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(resumed.Pieces, "add", add)
            with pytest.raises(KeyboardInterrupt):
                front.export(volume, what, output=place, workers=1, overwrite=True)
        if damaged:
            (kept,) = tmp_path.glob(".*.part")
            kept.write_bytes(b"\xff" * kept.stat().st_size)
            with pytest.raises(StorageError, match="is damaged; the same command begins anew"):
                front.export(volume, what, output=place, workers=1, overwrite=True)
        front.export(volume, what, output=place, workers=1, overwrite=True)
        assert place.read_bytes() == (tmp_path / f"whole-{name}").read_bytes()


@pytest.mark.parametrize(
    ("name", "lost"), [("a.zarr", "0/.zarray"), ("a.precomputed", "info"), ("a.tif", None)]
)
def test_what_was_begun_and_lost_begins_anew(name, lost, volume, tmp_path, monkeypatch):
    from volseg.exchange.volumes import cut

    def fail(*_):
        raise StorageError("the power is away")

    with monkeypatch.context() as patch:
        patch.setattr(cut.Cut, "read", fail)
        with pytest.raises(StorageError, match="the power is away"):
            front.export(volume, output=tmp_path / name)
    (kept,) = tmp_path.glob(".*.part")
    (kept / lost if lost else kept).unlink()
    front.export(volume, output=tmp_path / name)
    front.export(volume, output=tmp_path / f"whole-{name}")
    found, whole = (
        [p.read_bytes() for p in sorted((place, *place.rglob("[0-9]*"))) if p.is_file()]
        for place in (tmp_path / name, tmp_path / f"whole-{name}")
    )
    assert found == whole


def test_what_another_export_began_is_discarded_on_request(volume, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zarr_v2.CopyBlock, "__call__", fail)
        with pytest.raises(StorageError, match="incomplete"):
            front.export(volume, output=tmp_path / "a.zarr")
    front.export(volume, "raw", output=tmp_path / "a.zarr", overwrite=True)
    np.testing.assert_array_equal(zarr.open(tmp_path / "a.zarr/0")[...], stored(volume))
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_folder_with_some_other_info_is_not_replaced(volume, tmp_path):
    (tmp_path / "a.precomputed").mkdir()
    (tmp_path / "a.precomputed" / "info").write_text("of my holidays")
    with pytest.raises(ConflictError, match="is no volume, so it is not replaced"):
        front.export(volume, output=tmp_path / "a.precomputed", overwrite=True)


def test_the_volume_itself_is_never_replaced(volume, tmp_path):
    for place in (volume, volume / "labels" / "other.zarr"):
        with pytest.raises(ConflictError, match=" lies in "):
            front.export(volume, output=place, overwrite=True)
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "notes.txt").write_text("mine")
    with pytest.raises(ConflictError, match="is not replaced"):
        front.export(volume, output=tmp_path / "mine.zarr", overwrite=True)


def test_slabs_are_those_of_chunks_wherever_the_region_begins(volume, monkeypatch):
    from volseg.engine.progress import NoProgress

    options = plans.ExportOptions(volume.parent / "x.tif", "raw", roi="7:44,3:40,:")
    cut = plans.plan_export(volume, options).cut
    slabs = list(cut.slabs(NoProgress(), ""))
    assert [start for start, _ in slabs] == [0, 9, 25]
    np.testing.assert_array_equal(np.concatenate([s for _, s in slabs]), stored(volume)[7:, 3:40])


def test_chunks_of_version_2_have_one_writer():
    assert all(b % c == 0 for b, c in zip(zarr_v2.BLOCK, zarr_v2.CHUNK, strict=True))


@pytest.mark.parametrize("form", ["a.tif", "a.h5", "a.zarr", "a.precomputed"])
@pytest.mark.parametrize("dtype", ["int8", "int64"])
def test_labels_with_signs_are_written_without(tmp_path, dtype, form):
    """Most arrays of labels are of int64, and of some programs -1 is what nobody looked at."""
    highest = min(np.iinfo(dtype).max, 1 << 40 if form != "a.tif" else 1 << 20)
    labels = np.random.default_rng(1).choice([-1, 0, 3, highest], (4, 33, 40)).astype(dtype)
    path = write_raw(tmp_path / "v.zarr", np.zeros(labels.shape, np.uint8), (4, 32, 32), SPACE)
    zarr.create_array(path / "labels" / "theirs", data=labels, chunks=(3, 20, 40))
    out = tmp_path / form
    front.export(path, name="theirs", output=out)
    if form.endswith("tif"):
        found = tifffile.imread(out)
        with tifffile.TiffFile(out) as file:  # the array itself states no size
            assert (file.imagej_metadata["unit"], file.imagej_metadata["spacing"]) == ("nm", 30)
    elif form.endswith("h5"):
        with pytest.importorskip("h5py").File(out) as file:
            found = file["labels"][:]
    elif form.endswith("zarr"):
        found = zarr.open_group(out, mode="r")["0"][:]
    else:
        store = {"driver": "file", "path": str(out)}
        driver = {"driver": "neuroglancer_precomputed", "kvstore": store}
        opened = pytest.importorskip("tensorstore").open(driver, read=True).result()
        found = np.asarray(opened.read().result())[..., 0].T
    assert found.dtype.kind in "uf"
    np.testing.assert_array_equal(found.astype(np.int64), np.maximum(labels, 0))
