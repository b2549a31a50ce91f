"""``volseg convert`` and ``volseg info``: the real crop in, a volume out, clear words otherwise."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from volseg.storage.volumes import open_image


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.tif"
    stack = np.random.default_rng(0).integers(0, 255, (6, 24, 20), dtype=np.uint8)
    tifffile.imwrite(path, stack, photometric="minisblack")
    return path


def test_crop_becomes_a_volume_with_its_voxel_size(volseg, crop, tmp_path):
    volume = tmp_path / "crop.zarr"
    result = volseg("convert", crop / "raw.tif", volume, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["shape"] == [32, 384, 384]
    assert report["voxel_size"] == [5, 5, 5]
    box = (slice(0, 32), slice(0, 384), slice(0, 384))
    assert (open_image(volume).levels[0][box] == tifffile.imread(crop / "raw.tif")).all()

    shown = volseg("info", volume)
    assert shown.stdout.startswith(f"{volume}: 32 x 384 x 384 uint8, voxels of 5 x 5 x 5 nm, ")
    assert json.loads(volseg("info", volume, "--json").stdout)["voxel_size"] == [5, 5, 5]


def test_unknown_voxel_size_names_the_flag(volseg, small, tmp_path):
    result = volseg("convert", small, tmp_path / "vol.zarr")
    assert result.exit_code == 0
    assert "give --voxel-size Z,Y,X" in result.stderr
    assert "voxels of unknown size" in result.stdout
    assert result.stdout.endswith(f"; next: volseg preview {tmp_path / 'vol.zarr'}\n")
    again = volseg("convert", small, tmp_path / "vol.zarr", "--overwrite", "--voxel-size", "50,4,4")
    assert "voxels of 50 x 4 x 4 nm" in again.stdout
    assert "give --voxel-size" not in again.stderr


def test_existing_target_is_kept(volseg, small, tmp_path):
    assert volseg("convert", small, tmp_path / "vol.zarr").exit_code == 0
    refused = volseg("convert", small, tmp_path / "vol.zarr")
    assert refused.exit_code == 2
    assert "exists already; give --overwrite to replace it\n" in refused.stderr
    for made in ("labels", "marks"):
        (tmp_path / "vol.zarr" / made).mkdir()
    refused = volseg("convert", small, tmp_path / "vol.zarr")
    assert "replace it together with its labels and marks, which are lost\n" in refused.stderr


def test_dry_run_writes_nothing(volseg, small, tmp_path):
    result = volseg("convert", small, tmp_path / "vol.zarr", "--dry-run")
    assert result.exit_code == 0
    assert "nothing was written" in result.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["small.tif"]


def test_no_image_is_refused_and_leaves_nothing(volseg, tmp_path):
    (tmp_path / "notes.tif").write_text("no image")
    result = volseg("convert", tmp_path / "notes.tif", tmp_path / "vol.zarr")
    assert result.exit_code == 2
    assert "notes.tif is not a TIFF file" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["notes.tif"]


def test_a_wrong_flag_is_wrong_usage(volseg, small, tmp_path):
    result = volseg("convert", small, tmp_path / "vol.zarr", "--voxel-size", "5x5x5")
    assert result.exit_code == 2
    assert "expected Z,Y,X in nm, such as 50,4,4, found '5x5x5'" in result.stderr


def test_info_of_no_volume(volseg, tmp_path):
    result = volseg("info", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
