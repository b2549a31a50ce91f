"""A folder of slices is one stack, a folder of stacks is several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from volseg.errors import SourceError
from volseg.sources.open import anchor_of, list_stacks, name_volumes


def write(path, pages=1):
    path.parent.mkdir(exist_ok=True)
    shape = (8, 8) if pages == 1 else (pages, 8, 8)
    tifffile.imwrite(path, np.zeros(shape, np.uint8), photometric="minisblack")


def test_a_file_is_one_stack(tmp_path):
    write(tmp_path / "a.tif", 3)
    found = list_stacks(str(tmp_path / "a.tif"))
    assert (found.places, found.folder) == ((str(tmp_path / "a.tif"),), False)


def test_slices_are_one_stack_whatever_lies_beside_them(tmp_path):
    for k in (10, 9):
        write(tmp_path / f"s{k}.tif")
    write(tmp_path / "more" / "s1.tif")
    for source in (tmp_path, tmp_path / "*.tif"):
        found = list_stacks(str(source))
        assert (found.places, found.folder) == ((str(source),), False)


def test_files_of_several_pages_are_several_stacks(tmp_path):
    for name, pages in (("b.tif", 4), ("a10.tif", 3), ("a9.tif", 2)):
        write(tmp_path / name, pages)
    for source in (tmp_path, tmp_path / "*.tif"):
        found = list_stacks(str(source))
        assert [p.rpartition("/")[2] for p in found.places] == ["a9.tif", "a10.tif", "b.tif"]
        assert found.folder
        assert anchor_of(str(source)) == tmp_path


def test_a_glob_in_this_folder_lies_in_it(tmp_path, monkeypatch):
    write(tmp_path / "a.tif", 3)
    monkeypatch.chdir(tmp_path)
    assert list_stacks("*.tif").places == ("a.tif",)
    assert anchor_of("*.tif") == tmp_path


def test_a_folder_without_images_holds_folders_of_slices_and_zarr_images(tmp_path, volseg):
    write(tmp_path / "slices" / "1.tif")
    write(tmp_path / "slices" / "2.tif")
    (tmp_path / "empty").mkdir()
    assert volseg("convert", tmp_path / "slices", tmp_path / "vol.zarr", "-q").exit_code == 0
    (tmp_path / "vol-preview.png").touch()
    found = list_stacks(str(tmp_path))
    assert [p.rpartition("/")[2] for p in found.places] == ["slices", "vol.zarr"]
    assert found.folder


def test_a_folder_of_nothing_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(SourceError, match="none of them of a kind that is read"):
        list_stacks(str(tmp_path))


def test_two_stacks_of_one_name_are_refused():
    assert name_volumes(["a.ome.tif", "b.tif", "c.zarr", "v1.2"])[:3] == [
        "a.zarr",
        "b.zarr",
        "c.zarr",
    ]
    with pytest.raises(SourceError, match=r"would both become a\.zarr"):
        name_volumes(["a.tif", "a.tiff"])


@pytest.mark.parametrize("slices", [False, True])
def test_a_volume_beside_the_stack_that_became_it_is_no_other_stack(tmp_path, volseg, slices):
    folder = tmp_path / "data"
    stack = folder / ("a" if slices else "a.tif")
    folder.mkdir()
    if slices:
        write(stack / "1.tif")
        write(stack / "2.tif")
    else:
        write(stack, 3)
    assert volseg("convert", stack, folder / "a.zarr", "-q").exit_code == 0
    assert list_stacks(str(folder)).places == (str(stack),)
    (folder / "a.zarr").rename(folder / "b.zarr")
    places = list_stacks(str(folder)).places
    assert places == (str(stack), str(folder / "b.zarr"))
    write(folder / "b.tif", 3)
    if not slices:
        with pytest.raises(SourceError, match=r"would both become b\.zarr; rename one"):
            name_volumes(list_stacks(str(folder)).places)


CROP = Path(__file__).parents[2] / "examples/crop"
RAW = tifffile.imread(CROP / "raw.tif")[:6]
OBJECTS = tifffile.imread(CROP / "labels.tif")[:6]
MARKED = {
    "objects": OBJECTS.astype(np.uint16),
    "wide": OBJECTS.astype(np.uint32),
    "mask": np.where(OBJECTS > 0, 255, 0).astype(np.uint8),
    "touching": 1 + np.arange(400 * 400).reshape(400, 400) // 20 % 20 + np.zeros((3, 1, 1), int),
}


def saturated(part):
    """Stretch contrast so that this part of the voxels is white."""
    return np.minimum(RAW / np.quantile(RAW, 1 - part) * 255, 255).astype(np.uint8)


IMAGES = {
    "raw": RAW,
    "dark": np.where(np.quantile(RAW, 0.9) > RAW, 0, RAW),
    "white": saturated(0.9),
    "enlarged": RAW[:, :96, :96].repeat(4, 1).repeat(4, 2),
    "coarse": RAW // 32 * 32,
    "padded": np.pad(RAW, ((0, 0), (300, 300), (300, 300)), constant_values=255),
    "nothing": np.zeros_like(RAW),
}


def test_labels_beside_images_are_no_stacks_and_images_of_any_kind_are(tmp_path):
    for name, voxels in (MARKED | IMAGES).items():
        tifffile.imwrite(tmp_path / f"{name}.tif", voxels, photometric="minisblack")
    (tmp_path / "damaged.tif").write_bytes(b"no image")
    found = list_stacks(str(tmp_path / "*.tif"))
    assert {Path(p).stem for p in found.left_out} == set(MARKED)
    assert {Path(p).stem for p in found.places} == {*IMAGES, "damaged"}
    for name in (*IMAGES, "damaged"):
        (tmp_path / f"{name}.tif").unlink()
    with pytest.raises(SourceError, match="holds no image, it seems, but labels or masks"):
        list_stacks(str(tmp_path))
    alone = str(tmp_path / "mask.tif")
    assert list_stacks(alone).places == (alone,)
