"""Exploration of a volume: numbers as NumPy finds them in the whole, and a figure."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

import volseg
from toy_volumes import write_raw
from volseg.geometry.grid import full_roi
from volseg.stages.explore import run as stage
from volseg.storage.arrays import ArraySpec
from volseg.storage.volumes import create_image

SHAPE = (24, 90, 100)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """Write a smooth volume in which two boxes are darker objects."""
    path = tmp_path_factory.mktemp("explore") / "vol.zarr"
    smooth = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal(SHAPE), 2)
    raw = 150 + 20 * smooth / smooth.std()
    labels = np.zeros(SHAPE, np.uint32)
    labels[4:14, 10:40, 10:40], labels[12:20, 50:80, 60:90] = 1, 2
    raw[labels > 0] -= 60
    write_raw(path, np.clip(raw, 0, 255).astype(np.uint8), (8, 32, 32), (20.0, 5.0, 5.0))
    spec = ArraySpec(SHAPE, "uint32", (8, 32, 32), (8, 32, 32))
    noted = {"complete": True, "fingerprint": "test"}
    image = create_image(path / "labels/mitochondria", spec, (20.0, 5.0, 5.0), attributes=noted)
    image.levels[0].write(full_roi(SHAPE), labels)
    volseg.stats(path, workers=1)
    return path


def test_numbers_are_those_of_the_whole(volume, tmp_path):
    found = volseg.explore(volume, output=tmp_path / "a.png")
    assert json.loads(json.dumps(found)) == found
    raw, labels = volseg.open(volume).raw[:], volseg.open(volume).labels["mitochondria"][:]
    for part, mask in (("inside", labels > 0), ("outside", labels == 0)):
        told = found["intensities"][part]
        assert told["voxels"] == mask.sum()
        assert (told["mean"], told["sd"]) == pytest.approx((raw[mask].mean(), raw[mask].std()))
        assert sum(told["shares"]) == pytest.approx(1)
    assert 0 < found["intensities"]["overlap"] < 0.3
    low = (raw == 0).mean(), (raw == 255).mean()
    assert found["intensities"]["saturated"] == pytest.approx(low)
    objects = found["objects"]
    assert objects["mean_voxels"] == (9000 + 7200) / 2
    assert objects["mean_nm3"] == objects["mean_voxels"] * 500
    assert objects["mean_um3"] == objects["mean_nm3"] / 1e9
    assert (objects["mean_area_nm2"], objects["square_side_voxels"]) == (900 * 25, 30)
    z = found["correlation"]["z"]
    assert z["decay_nm"] == z["decay"] * 20
    assert all(
        low <= r <= high for low, r, high in zip(z["low"], z["correlation"], z["high"], strict=True)
    )
    picture = (tmp_path / "a.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 50_000


def test_of_a_large_volume_27_boxes_and_one_are_read(monkeypatch, volume, tmp_path):
    monkeypatch.setattr(stage, "WHOLE", 1000)
    monkeypatch.setattr(stage, "SAMPLE", (4, 10, 10))
    monkeypatch.setattr(stage, "BOX", 16)
    found = volseg.explore(volume, output=tmp_path / "a.png")
    assert len(found["intensities"]["boxes"]) == 27
    assert found["intensities"]["voxels"] == 27 * 400
    assert found["correlation"]["box"] == "4:20,37:53,42:58"


def test_a_volume_without_objects_and_voxel_size(tmp_path, monkeypatch):
    raw = np.random.default_rng(0).integers(0, 256, (1, 40, 50), dtype=np.uint8)
    path = write_raw(tmp_path / "vol.zarr", raw, (2, 32, 32), None)
    found = volseg.explore(path)
    assert (found["objects"], found["voxel_size"]) == (None, None)
    assert found["intensities"]["inside"]["voxels"] == 0
    assert found["correlation"]["z"]["decay"] is None
    assert "no labels/mitochondria" in found["notes"][0]
    assert (tmp_path / "vol-explore.png").is_file()
    monkeypatch.setattr(stage, "can_draw", lambda: False)
    assert volseg.explore(path)["figure"] is None
    with pytest.raises(volseg.InputError, match="needs matplotlib"):
        volseg.explore(path, output=tmp_path / "b.png")


def test_the_command_prints_lines_or_json(volseg, volume, tmp_path):
    done = volseg("info", volume, "--explore", "--output", tmp_path / "a.png")
    assert done.exit_code == 0, done.output
    for words in ("intensities inside objects: mean", "falls to 1/e at", "mean volume: 4,050,000"):
        assert words in done.stdout
    again = ("info", volume, "--explore", "--output", tmp_path / "a.png")
    refused = volseg(*again)
    assert refused.exit_code == 2
    assert "give --overwrite" in refused.output
    told = volseg(*again, "--overwrite", "--json")
    assert json.loads(told.stdout)["objects"]["objects"] == 2
    for wrong in (["--output", "a.png"], ["--overwrite"], ["--explore", "--output", "a.jpg"]):
        assert volseg("info", volume, *wrong).exit_code == 2
