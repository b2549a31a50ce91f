"""Labels from anyone: masks of type bool, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from volseg.errors import ParameterError, SourceError
from volseg.geometry.grid import full_roi
from volseg.sources.labels import check_axes, open_label_path
from volseg.sources.stamps import find_stamp

SHAPE = (5, 13, 19)


@pytest.mark.parametrize("form", ["plain.tif", "zlib.tif", "v2.zarr", "v3.zarr"])
def test_a_mask_of_type_bool_is_read_as_0_and_1(tmp_path, form):
    mask, path = np.random.default_rng(1).random(SHAPE) < 0.3, tmp_path / form
    name, kind = form.split(".")
    if kind == "tif":
        how = {} if name == "plain" else {"compression": name}
        tifffile.imwrite(path, mask, photometric="minisblack", **how)
    else:
        zarr.create_array(path, data=mask, chunks=(2, 8, 8), zarr_format=int(name[1]))
    source = open_label_path(path)
    assert source[full_roi(SHAPE)].dtype == np.uint8
    np.testing.assert_array_equal(source[full_roi(SHAPE)], mask)


@pytest.mark.parametrize(
    ("dtype", "largest"), [("float32", 1 << 24), ("float64", 1 << 53), ("uint64", (1 << 53) + 1)]
)
@pytest.mark.parametrize("form", ["tif", "zarr", "folder"])
def test_whole_numbers_of_any_type_are_labels(tmp_path, form, dtype, largest):
    labels = np.random.default_rng(1).integers(0, 1000, SHAPE).astype(dtype)
    labels[3, 4, 5] = largest
    path = tmp_path / f"labels.{form}"
    if form == "zarr":
        zarr.create_array(path, data=labels, chunks=(2, 8, 8))
    elif form == "tif":
        tifffile.imwrite(path, labels, photometric="minisblack")
    else:
        path.mkdir()
        for z, plane in enumerate(labels):
            tifffile.imwrite(path / f"s{z}.tif", plane)
    source = open_label_path(path)
    box = (slice(2, 5), slice(1, 12), slice(3, 19))
    assert source[box].dtype.kind == "u"
    np.testing.assert_array_equal(source[box], labels[box].astype(np.uint64))


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("form", ["tif", "png"])
def test_labels_with_a_palette_are_its_numbers(tmp_path, form, bits):
    """Programs show labels in colours, or in other greys than their numbers."""
    labels = np.random.default_rng(1).integers(0, 1 << bits, SHAPE).astype(np.uint8)
    for name, colours in (("colours", [7, 0, 9]), ("greys", [255] * 3)):
        folder = tmp_path / name
        folder.mkdir()
        palette = [(255 - n if c == 255 else n * c % 256) for n in range(256) for c in colours]
        for z, plane in enumerate(labels):
            picture = Image.fromarray(plane).convert("L")
            picture.putpalette(palette)
            how = {"bits": bits} if form == "png" else {}
            picture.save(folder / f"s{z}.{form}", **how)
        np.testing.assert_array_equal(open_label_path(folder)[full_roi(SHAPE)], labels)


def test_only_labels_of_images_may_be_of_any_sizes_and_names(tmp_path):
    sizes, folder = ((7, 9), (8, 6)), tmp_path / "truth"
    folder.mkdir()
    for k, size in enumerate(sizes):
        tifffile.imwrite(folder / f"s{k}.tif", np.full(size, k + 1, np.uint8))
    with pytest.raises(SourceError, match="be equal"):
        open_label_path(folder)
    found = open_label_path(folder, images=True)
    assert found[full_roi((2, 8, 9))].sum(axis=(1, 2)).tolist() == [7 * 9, 2 * 8 * 6]
    tifffile.imwrite(folder / "s1.tif", np.zeros(sizes[0], np.uint8))
    for k in range(2):
        tifffile.imwrite(folder / f"other{k}.tif", np.zeros(sizes[0], np.uint8))
    with pytest.raises(SourceError, match="several sequences"):
        open_label_path(folder)


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_labels_in_colours_are_told_what_helps(tmp_path, name):
    """No verb that takes labels has --channel or --grey."""
    picture = np.random.default_rng(1).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / name)
    with pytest.raises(SourceError, match=r"3 channels, and labels have one: .*save them") as told:
        open_label_path(tmp_path / name)
    named = {"a.tif": ["--axes"], "a.png": []}[name]
    assert [word for word in str(told.value).split() if word.startswith("--")] == named


@pytest.mark.parametrize("count", [3, 4])
def test_slices_that_tifffile_wrote_as_planes_of_colours_are_slices(tmp_path, count):
    """Labels have no colours, also where the slices are alike, as empty ones are."""
    labels = np.random.default_rng(1).integers(0, 9, (count, 13, 19), dtype=np.uint8)
    for name, values in (("a.tif", labels), ("empty.tif", np.zeros_like(labels))):
        tifffile.imwrite(tmp_path / name, values, photometric="rgb", planarconfig="separate")
        for axes in (None, "ZYX"):
            found = open_label_path(tmp_path / name, axes=axes)
            np.testing.assert_array_equal(found[full_roi(values.shape)], values)
            box = (slice(1, count), slice(2, 9), slice(3, 4))
            np.testing.assert_array_equal(found[box], values[box])


def test_axes_of_labels_are_those_that_the_user_names(tmp_path):
    labels = np.random.default_rng(1).integers(0, 9, (4, 13, 19), dtype=np.uint8)
    within = np.ascontiguousarray(labels.transpose(1, 2, 0))
    tifffile.imwrite(tmp_path / "a.tif", within, photometric="rgb", extrasamples=[0])
    with pytest.raises(SourceError, match="if they are slices, say --axes YXZ"):
        open_label_path(tmp_path / "a.tif")
    found = open_label_path(tmp_path / "a.tif", axes="YXZ")
    np.testing.assert_array_equal(found[full_roi(labels.shape)], labels)
    masked = found.with_foreground(3)
    np.testing.assert_array_equal(masked[full_roi(labels.shape)], labels == 3)
    with pytest.raises(SourceError, match="--axes is ZYX, but"):
        open_label_path(tmp_path / "a.tif", axes="ZYX")
    zarr.create_array(tmp_path / "a.zarr", data=labels)
    other = open_label_path(tmp_path / "a.zarr", axes="YXZ")
    check_axes("YXZ", [other, found])
    with pytest.raises(ParameterError, match="labels in Zarr name their own"):
        check_axes("YXZ", [other])


@pytest.mark.parametrize(
    ("odd", "why"), [(0.5, "holds 0.5"), (-1, "negative"), (np.nan, "finite"), (3e7, "above")]
)
@pytest.mark.parametrize("form", ["tif", "zarr"])
def test_what_is_no_label_is_named(tmp_path, form, odd, why):
    values = np.zeros(SHAPE, np.float32)
    values[2, 3, 4] = odd
    path = tmp_path / f"labels.{form}"
    if form == "zarr":
        zarr.create_array(path, data=values)
    else:
        tifffile.imwrite(path, values, photometric="minisblack")
    with pytest.raises(SourceError, match=why):
        open_label_path(path)[full_roi(SHAPE)]


@pytest.mark.parametrize("form", ["folder", "glob", "tif", "zarr", "image"])
def test_labels_that_take_the_place_of_others_are_read_as_what_they_are(tmp_path, form):
    """In one session, a folder, or a description of an array, stays while its files change."""
    few = np.random.default_rng(1).integers(0, 9, SHAPE).astype(np.uint8)
    for labels in (few, few.astype(np.uint16) * 300, few.astype(np.float32) * 70_000):
        place = tmp_path / "labels" / "s*.tif" if form == "glob" else tmp_path / "labels"
        if form in ("folder", "glob"):
            (tmp_path / "labels").mkdir(exist_ok=True)
            for z, plane in enumerate(labels):
                tifffile.imwrite(tmp_path / "labels" / f"s{z}.tif", plane)
        elif form == "tif":
            tifffile.imwrite(place, labels, photometric="minisblack")
        elif form == "zarr":
            zarr.create_array(place, data=labels, chunks=(2, 8, 8), overwrite=True)
        else:
            zarr.create_array(place / "0", data=labels, chunks=(2, 8, 8), overwrite=True)
            scale = {"type": "scale", "scale": [1.0] * 3}
            dataset = {"path": "0", "coordinateTransformations": [scale]}
            axes = [{"name": a, "type": "space"} for a in "zyx"]
            ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [dataset]}]}
            if not (place / "zarr.json").exists():
                zarr.create_group(place, attributes={"ome": ome})
        found = open_label_path(place).with_foreground(None)
        np.testing.assert_array_equal(found[full_roi(SHAPE)], labels.astype(np.uint64))
        apart = open_label_path(place).as_images()[full_roi(SHAPE)]
        np.testing.assert_array_equal(apart & np.uint64((1 << 32) - 1), labels.astype(np.uint64))


def test_a_stamp_does_not_look_at_each_chunk_of_an_array(tmp_path, monkeypatch):
    """In version 2, chunks lie beside the description: a large array has millions."""
    few = np.random.default_rng(1).integers(0, 9, SHAPE).astype(np.uint8)
    zarr.create_array(tmp_path / "a", data=few, chunks=(2, 8, 8), zarr_format=2)
    first = find_stamp(tmp_path / "a")
    with monkeypatch.context() as patched:
        for name in ("iterdir", "glob"):
            patched.setattr(Path, name, lambda *_: pytest.fail("a listing of all chunks"))
        assert find_stamp(tmp_path / "a") == first
    data = few.astype(np.uint16)
    zarr.create_array(tmp_path / "a", data=data, chunks=(2, 8, 8), zarr_format=2, overwrite=True)
    assert find_stamp(tmp_path / "a") != first


def test_a_slice_that_is_replaced_by_another_kind_meanwhile_is_refused(tmp_path):
    for z in range(3):
        tifffile.imwrite(tmp_path / f"s{z}.tif", np.full((8, 9), z, np.uint8))
    source = open_label_path(tmp_path)
    tifffile.imwrite(tmp_path / "s1.tif", np.full((8, 9), 7, np.uint16))
    with pytest.raises(SourceError, match=r"s1\.tif was replaced by another file meanwhile"):
        source[full_roi((3, 8, 9))]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="lists open files as Linux does")
def test_files_of_labels_that_are_no_longer_kept_are_closed(tmp_path):
    for k in range(12):
        tifffile.imwrite(tmp_path / f"{k}.tif", np.zeros(SHAPE, np.uint8), photometric="minisblack")
        open_label_path(tmp_path / f"{k}.tif")
    held = [p.readlink() for p in Path("/proc/self/fd").iterdir() if p.is_symlink()]
    assert 0 < sum(p.parent == tmp_path for p in held) <= 4
