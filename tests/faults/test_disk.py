"""Disks that are full at any stage, or not to be written to."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system is needed, and may not be mounted: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MiB, of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=16m", "volseg-test", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill(folder: Path, left: int) -> Path:
    """Leave so many bytes free."""
    free = os.statvfs(folder)
    size = free.f_bavail * free.f_frsize - left
    path = folder / "filling"
    with path.open("wb") as file:
        file.write(bytes(max(size, 0)))
    return path


def full(errors: str) -> bool:
    return any(sign in errors for sign in ("No space left", "RESOURCE_EXHAUSTED"))


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(0, marks=pytest.mark.slow),
        40_000,
        pytest.param(150_000, marks=pytest.mark.slow),
        pytest.param(300_000, marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_stops_a_segmentation_which_goes_on_later(
    faults, check_result, small_disk, left
):
    volume = faults.volume(small_disk)
    filling = fill(small_disk, left)
    status, _, errors = faults.run(faults.segment(volume))
    assert status == 1, errors
    assert full(errors)
    assert "unexpected" not in errors
    filling.unlink()
    status, _, errors = faults.run(faults.segment(volume))
    assert status == 0, errors
    check_result(volume)


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 20_000])
def test_a_full_disk_while_labelling(faults, check_result, small_disk, left):
    volume = faults.volume(small_disk)
    assert faults.run(faults.segment(volume), faults.fault("label", "error"))[0] == 1
    filling = fill(small_disk, left)
    rules = ["--min-size", "4", "--threshold", "0.75", "--block", "8,32,32", "--json"]
    status, _, errors = faults.run(["label", str(volume), *rules])
    assert status == 1, errors
    assert full(errors)
    filling.unlink()
    status, _, errors = faults.run(["label", str(volume), *rules])
    assert status == 0, errors
    check_result(volume)


@pytest.mark.slow
def test_a_full_disk_while_measuring_leaves_no_table_behind(faults, check_result, small_disk):
    volume = faults.volume(small_disk)
    assert faults.run(faults.segment(volume))[0] == 0
    filling = fill(small_disk, 0)
    status, _, errors = faults.run(["stats", str(volume), "--json"])
    assert status == 1, errors
    assert full(errors)
    assert [p for p in (volume / "tables").glob("*") if p.is_file()] == []
    filling.unlink()
    assert faults.run(["stats", str(volume), "--json"])[0] == 0
    check_result(volume)
    assert len(list((volume / "tables").glob("*.parquet"))) == 2


@pytest.mark.parametrize("left", [pytest.param(0, marks=pytest.mark.slow), 50_000])
def test_a_full_disk_while_converting_leaves_nothing_behind(faults, small_disk, left):
    raw = np.random.default_rng(1).integers(0, 256, (20, 70, 60), dtype=np.uint8)
    tifffile.imwrite(faults.folder / "raw.tif", raw)
    command = ["convert", str(faults.folder / "raw.tif"), "--voxel-size", "5", "--json"]
    elsewhere, here = faults.folder / "expected.zarr", small_disk / "vol.zarr"
    assert faults.run([*command[:2], str(elsewhere), *command[2:]])[0] == 0
    filling = fill(small_disk, left)
    status, _, errors = faults.run([*command[:2], str(here), *command[2:]])
    assert status == 1, errors
    assert full(errors)
    assert list(small_disk.iterdir()) == [filling]
    filling.unlink()
    assert faults.run([*command[:2], str(here), *command[2:]])[0] == 0
    arrays = [
        {str(p.relative_to(v)): hashlib.sha256(p.read_bytes()).digest() for p in v.rglob("c/*/*/*")}
        for v in (elsewhere, here)
    ]
    assert arrays[0] == arrays[1]


def test_a_volume_that_may_not_be_written_to(faults, check_result, small_disk):
    volume = faults.volume(small_disk)
    assert faults.run(faults.segment(volume), faults.fault("label", "error"))[0] == 1
    mount("-o", "remount,ro", str(small_disk))
    for command in (
        faults.segment(volume),
        faults.segment(volume, "--name", "other"),
        ["label", str(volume), "--json"],
        ["stats", str(volume), "--json"],
        ["convert", str(faults.folder / "raw.tif"), str(small_disk / "new.zarr"), "--json"],
    ):
        status, report, errors = faults.run(command)
        assert status in (1, 2)
        assert "unexpected" not in errors
        assert report["error"]
        if command[0] in {"segment", "label"}:
            assert "Read-only file system" in errors
    mount("-o", "remount,rw", str(small_disk))
    assert faults.run(faults.segment(volume))[0] == 0
    check_result(volume)
