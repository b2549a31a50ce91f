"""`volseg train` as users type it, and that `segment` takes what it makes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other are slow where cores are shared, and no test needs them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    """A stack and its labels."""
    folder = tmp_path_factory.mktemp("annotated")
    smooth = ndimage.gaussian_filter(np.random.default_rng(8).random((20, 48, 48)), 3)
    mask = smooth > np.quantile(smooth, 0.8)
    noise = np.random.default_rng(9).normal(0, 10, mask.shape)
    tifffile.imwrite(folder / "raw.tif", (90 + 60 * mask + noise).clip(0, 255).astype(np.uint8))
    tifffile.imwrite(folder / "labels.tif", ndimage.label(mask)[0].astype(np.uint16))
    return folder


def test_convert_train_segment(volseg, annotated, tmp_path):
    volume, labels = tmp_path / "vol.zarr", annotated / "labels.tif"
    volseg("convert", annotated / "raw.tif", volume, "--voxel-size", "5,5,5", "-q")
    command = ["train", volume, "--labels", labels, "--output", tmp_path / "run", "--name", "mine"]
    command += ["--steps", "3", "--width", "8", "--patch", "4,16,16", "--workers", "1"]
    done = volseg(*command, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["steps_now"] == report["step"] == 3
    assert "validation Jaccard" in done.stderr
    weights = tmp_path / "run" / "mine.safetensors"
    assert report["weights"] == str(weights)

    again = volseg(*command)
    assert again.exit_code == 0, again.output
    assert "finished before" in again.stderr
    assert f"--model {weights}" in again.stdout

    refused = volseg(*command, "--seed", "3")
    assert refused.exit_code == 2
    assert "seed was 0, now 3" in refused.stderr

    segmented = volseg("segment", volume, "--model", weights, "--json", "-q")
    assert segmented.exit_code == 0, segmented.output
    shown = json.loads(volseg("models", "show", weights, "--json").stdout)
    assert shown["training"]["recipe"]["steps"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "3", "--minutes", "3"], "exactly one"),
        ([], "exactly one"),
        (["--steps", "3"], "there is nothing at nowhere.zarr"),
        (["--steps", "3", "--patch", "5,16,16"], "multiple of (4, 16, 16)"),
        (["--steps", "3", "--patch", "5,16"], "three whole numbers"),
    ],
)
def test_wrong_usage_has_exit_status_2(volseg, tmp_path, arguments, message):
    given = ["--labels", "x", "--output", tmp_path / "run", *arguments]
    result = volseg("train", "nowhere.zarr", *given)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()
