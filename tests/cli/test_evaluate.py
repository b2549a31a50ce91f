"""``volseg evaluate`` as a user calls it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from volseg.geometry.grid import full_roi
from volseg.storage.arrays import ArraySpec
from volseg.storage.plots import can_draw
from volseg.storage.volumes import create_image, labels_path, register_label

SHAPE = (6, 30, 30)


@pytest.fixture
def scene(tmp_path):
    """A volume with a prediction, and a truth of four objects: right, missed, split, merged."""
    truth, found = np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.uint16)
    truth[1:3, 1:5, 1:5], found[1:3, 1:5, 1:5] = 1, 11
    truth[1:3, 8:12, 1:9] = 2
    truth[1:5, 14:18, 0:10], found[1:5, 14:18, 0:5], found[1:5, 14:18, 5:10] = 3, 12, 13
    truth[1:5, 22:26, 0:6], truth[1:5, 22:26, 6:12], found[1:5, 22:26, 0:12] = 4, 5, 14
    volume = tmp_path / "vol.zarr"
    spec = ArraySpec(SHAPE, "uint16", SHAPE, SHAPE)
    create_image(volume, spec, (5.0, 5.0, 5.0), attributes={})
    image = create_image(labels_path(volume, "mitochondria"), spec, None, label=True, attributes={})
    image.levels[0].write(full_roi(SHAPE), found)
    register_label(volume, "mitochondria")
    tifffile.imwrite(tmp_path / "truth.tif", truth, photometric="minisblack")
    return volume, tmp_path / "truth.tif"


def test_the_line_that_counts(volseg, scene):
    volume, truth = scene
    shown = volseg("evaluate", volume, "--truth", truth, "--iou", "0.6")
    assert shown.exit_code == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("compared 5.4 k voxels of 6 x 30 x 30, after ")
    line = "matched 1 of 5 objects (recall 0.20, precision 0.25) at IoU 0.6; 4 missed, 3 false"
    assert line in lines
    assert "  3 at 2,16,4: 160 voxels, holds 12, 13" in lines
    assert "  14 at 2,24,6: 192 voxels, holds 4, 5" in lines
    assert "missed: 4" in lines


def test_json_has_everything_and_nothing_else(volseg, scene, tmp_path):
    volume, truth = scene
    done = volseg("evaluate", volume, "--truth", truth, "--json", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["objects"]["matched"] == 3
    assert report["region"] == [[0, 6], [0, 30], [0, 30]]
    assert report["mean"]["at"][0]["threshold"] == 0.5
    assert [e["label"] for e in report["errors"]["split"]] == [3]
    assert report["errors"]["merged"][0]["others"] == [4, 5]
    assert report["curves"] is None
    assert report["voxel_size"] == [5, 5, 5]
    saved = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert saved == report
    assert (tmp_path / "out" / "curves.png").exists() == can_draw()


def test_what_cannot_be_written_is_the_one_object_of_json(volseg, scene, tmp_path):
    volume, truth = scene
    (tmp_path / "out" / "evaluation.json").mkdir(parents=True)
    failed = volseg("evaluate", volume, "--truth", truth, "--json", "--output", tmp_path / "out")
    assert failed.exit_code == 1
    assert "evaluation.json" in json.loads(failed.stdout)["error"]


def test_scores_that_are_not_defined_are_null_and_na(volseg, scene, tmp_path):
    volume, _ = scene
    tifffile.imwrite(tmp_path / "none.tif", np.zeros(SHAPE, np.uint8))
    done = volseg("evaluate", volume, "--truth", tmp_path / "none.tif", "--json")
    report = json.loads(done.stdout)
    assert report["objects"]["recall"] is None
    assert report["objects"]["precision"] == 0
    shown = volseg("evaluate", volume, "--truth", tmp_path / "none.tif").stdout
    assert "matched 0 of 0 objects (recall n/a, precision 0.00) at IoU 0.5" in shown


def test_a_mask_is_told(volseg, scene, tmp_path):
    volume, truth = scene
    mask = (tifffile.imread(truth) > 0).astype(np.uint8) * 255
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    shown = volseg("evaluate", volume, "--truth", tmp_path / "mask.tif")
    assert "has one value only" in shown.stderr
    assert "its 4 connected components (26 neighbours) as objects" in shown.stderr


def test_wrong_usage_says_what_to_do(volseg, scene, tmp_path):
    volume, truth = scene
    assert "Missing option '--truth'" in volseg("evaluate", volume).stderr
    refused = volseg("evaluate", volume, "--truth", "nuclei")
    assert refused.exit_code == 2
    assert "no labels/nuclei; it has mitochondria" in refused.stderr
    refused = volseg("evaluate", volume, "--truth", truth, "--output", tmp_path / "no" / "out")
    assert refused.exit_code == 2
    assert "there is no folder" in refused.stderr
    refused = volseg("evaluate", volume, "--truth", truth, "--output", truth)
    assert "is a file; give a folder to write evaluation.json in" in refused.stderr
    assert volseg("evaluate", volume, "--truth", truth, "--iou", "0").exit_code == 2
