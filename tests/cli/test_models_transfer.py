"""``volseg models export`` and ``import``, as users type them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from volseg.storage.volumes import open_image


def segmented(volseg, tmp_path, model, name):
    """Segment the same small volume with a model; return probabilities and labels."""
    volume = tmp_path / "vol.zarr"
    if not volume.exists():
        noise = np.random.default_rng(4).integers(0, 255, (14, 40, 40), np.uint8)
        tifffile.imwrite(tmp_path / "stack.tif", noise)
        made = volseg("convert", tmp_path / "stack.tif", volume, "--voxel-size", "5,5,5", "-q")
        assert made.exit_code == 0, made.output
    done = volseg("segment", volume, "--model", model, "--name", name, "-q")
    assert done.exit_code == 0, done.output
    results = (volume / "probabilities" / name, volume / "labels" / name)
    return [open_image(path).levels[0][:, :, :] for path in results]


def test_a_model_that_went_round_segments_the_same(volseg, toy_model, tmp_path):
    pytest.importorskip("bioimageio.spec")
    package = tmp_path / "toy.zip"
    done = volseg("models", "export", toy_model, "--format", "bioimageio", "--output", package)
    assert done.exit_code == 0, done.output
    assert "probabilities differ by" in done.stdout
    assert "it expects voxels of 5, 5, 5 nm" in done.stderr
    again = volseg("models", "import", package, "--output", tmp_path / "in", "--json")
    assert again.exit_code == 0, again.output
    weights = json.loads(again.stdout)["output"]
    mine = segmented(volseg, tmp_path, toy_model, "mine")
    theirs = segmented(volseg, tmp_path, weights, "theirs")
    assert all((a == b).all() for a, b in zip(mine, theirs, strict=True))
    assert mine[0].max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "none", "--format", "onnx", "--output", "a.onnx"), "no model is called"),
        (("export", "emnet", "--format", "onnx", "--output", "a.pt"), "written to a .onnx file"),
        (("import", "none.zip", "--output", "out"), "there is nothing at none.zip"),
        (("import", "none.zip", "--output", "out", "--overlap", "1,x,2"), "three whole numbers"),
    ],
)
def test_bad_input_ends_with_status_2(volseg, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = volseg("models", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_scores_are_listed(volseg):
    listed = volseg("models", "list").stdout
    for card in json.loads(volseg("models", "list", "--json").stdout):
        assert f"{card['name']}: {card['architecture']}, " in listed
        assert all(f"  {score}: " in listed for score in card["scores"])
