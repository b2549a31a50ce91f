"""``volseg evaluate`` as a user calls it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from volseg.errors import ParameterError
from volseg.geometry.grid import full_roi
from volseg.stages.view.plan import ViewOptions, plan_view
from volseg.storage.arrays import ArraySpec
from volseg.storage.attributes import update_attributes
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


@pytest.fixture
def within(scene):
    """The truth with its slices as samples of a pixel."""
    _, truth = scene
    path = truth.with_name("within.tif")
    samples = np.ascontiguousarray(tifffile.imread(truth).transpose(1, 2, 0))
    tifffile.imwrite(path, samples, photometric="rgb", planarconfig="contig")
    return path


def test_slices_within_pixels_are_a_truth_by_their_axes(volseg, scene, within):
    volume, truth = scene
    expected = json.loads(volseg("evaluate", volume, "--truth", truth, "--json").stdout)
    refused = volseg("evaluate", volume, "--truth", within)
    assert (refused.exit_code, "--axes YXZ" in refused.stderr) == (2, True)
    done = volseg("evaluate", volume, "--truth", within, "--axes", "YXZ", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["axes"] == "YXZ"
    assert report["objects"] == expected["objects"]
    assert report["foreground"] == expected["foreground"]
    masked = volseg("evaluate", volume, "--truth", within, "--mask", within, "--axes", "YXZ")
    assert masked.exit_code == 0, masked.stderr
    told = volseg("evaluate", volume, "--truth", "mitochondria", "--axes", "YXZ")
    assert (told.exit_code, "labels in Zarr name their own" in told.stderr) == (2, True)


def test_other_readers_of_labels_heed_their_axes(volseg, scene, within):
    volume, truth = scene
    rows = []
    for flags in ([truth], [within, "--axes", "YXZ"]):
        done = volseg("stats", volume, "--name", "truth", "--labels", *flags, "--json")
        assert done.exit_code == 0, done.output
        (row,) = json.loads(done.stdout)
        rows.append((row["objects"], row["volume_fraction"]))
    part = np.count_nonzero(tifffile.imread(truth)) / np.prod(SHAPE)
    assert rows[0] == rows[1] == (5, pytest.approx(part))
    scene_of = plan_view(volume, ViewOptions(truth=str(within), axes="YXZ"))
    assert scene_of.layers["truth"].shape == SHAPE
    for command in ("stats", "report"):
        alone = volseg(command, volume, "--axes", "YXZ")
        assert (alone.exit_code, "give both" in alone.stderr) == (2, True)
    with pytest.raises(ParameterError, match="give both"):
        ViewOptions(axes="YXZ")


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


def with_min_size(volume, voxels):
    """Note in the labels that smaller objects were dropped, as `volseg segment` does."""
    noted = {"run": {"min_size": voxels}, "complete": True, "objects": 4}
    update_attributes(labels_path(volume, "mitochondria"), noted)


def test_the_smallest_size_of_the_labels_holds_on_both_sides(volseg, scene):
    volume, truth = scene
    with_min_size(volume, 65)  # of the truth, 1 and 2 have 32 and 64 voxels
    shown = volseg("evaluate", volume, "--truth", truth)
    assert "matched 2 of 3 objects" in shown.stdout
    assert "fewer than 65 voxels, so smaller ones do not count on either side" in shown.stderr
    asked = volseg("evaluate", volume, "--truth", truth, "--min-size", "65", "--json")
    default = volseg("evaluate", volume, "--truth", truth, "--json")
    reports = [json.loads(done.stdout) for done in (asked, default)]
    assert reports[0]["min_size"] == reports[1]["min_size"] == 65
    assert reports[0]["objects"] == reports[1]["objects"]
    every = volseg("evaluate", volume, "--truth", truth, "--min-size", "0")
    assert "matched 3 of 5 objects" in every.stdout
    assert "on either side" not in every.stderr
    # labels from elsewhere say nothing of a smallest size
    other = volseg("evaluate", volume, "--truth", truth, "--labels", truth)
    assert "matched 5 of 5 objects" in other.stdout
    assert f"{truth} is compared with itself" in other.stderr
    assert "itself" not in shown.stderr


def test_specks_of_the_truth_are_named(volseg, scene, tmp_path):
    volume, truth = scene
    drawn = tifffile.imread(truth)
    drawn[0, 29, 29], drawn[0, 27, 28:30], drawn[0, 25, 27:30] = 6, 7, 8
    tifffile.imwrite(tmp_path / "specks.tif", drawn, photometric="minisblack")
    shown = volseg("evaluate", volume, "--truth", tmp_path / "specks.tif")
    assert "matched 3 of 8 objects" in shown.stdout
    assert "  2 of the 8 are specks of one or two voxels in the truth; --min-size 3" in shown.stdout
    fewer = volseg("evaluate", volume, "--truth", tmp_path / "specks.tif", "--min-size", "3")
    assert "matched 3 of 6 objects" in fewer.stdout
    assert "speck" not in fewer.stdout


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
