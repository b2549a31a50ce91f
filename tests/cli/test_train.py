"""`volseg train` as users type it, and that `segment` takes what it makes."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import pytest

from toy_training import write_annotated
from volseg.cli import main
from volseg.stages.train import recipe as recipes
from volseg.storage.cards import update_card
from volseg.training.augmentation import Augmentation

pytestmark = pytest.mark.usefixtures("one_thread", "quick_training")


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    """A stack and its labels."""
    return write_annotated(tmp_path_factory.mktemp("annotated"), (20, 48, 48))


def test_convert_train_segment(volseg, annotated, tmp_path, pictures):
    volume, labels = tmp_path / "vol.zarr", annotated / "labels.tif"
    volseg("convert", annotated / "raw.tif", volume, "--voxel-size", "5,5,5", "-q")
    command = ["train", volume, "--labels", labels, "--output", tmp_path / "run", "--name", "mine"]
    command += ["--steps", "3", "--width", "8", "--patch", "4,16,16", "--workers", "1"]
    command += ["--equalise", "volume"]
    useless = volseg(*command, "--gamma", "0.5")
    assert useless.exit_code == 2
    assert "--gamma and gain do nothing before --equalise volume" in useless.stderr
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
    first, trained, *_, kept, last = again.stdout.splitlines()
    assert first.startswith(f"validation Jaccard {report['best']['jaccard']:.3f} (precision ")
    assert trained == f"training data: Jaccard {report['training']['jaccard']:.3f}"
    assert kept.startswith(f"weights: {weights}, after ")
    assert last == f"next: volseg segment VOLUME --model {weights}"

    refused = volseg(*command, "--seed", "3")
    assert refused.exit_code == 2
    assert "was begun with seed 0; you ask for seed 3" in refused.stderr

    segmented = volseg("segment", volume, "--model", weights, "--json", "-q")
    assert segmented.exit_code == 0, segmented.output
    shown = json.loads(volseg("models", "show", weights, "--json").stdout)
    assert shown["training"]["recipe"]["steps"] == 3
    noted = shown["training"]["objects"]
    assert "not chosen" in noted or noted["F1"] >= noted["F1 of all objects"]
    run = json.loads(volseg("info", volume, "--json").stdout)["labels"]["mitochondria"]["volseg"]
    assert run["run"]["min_size"] == shown["min_size"]
    assert shown["preprocessing"]["equalise"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "3", "--minutes", "3"], "exactly one"),
        ([], "exactly one"),
        (["--steps", "3"], "there is nothing at nowhere.zarr"),
        (["--steps", "3", "--patch", "5,16,16"], "multiple of (4, 8, 8)"),
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


def test_slices_from_recipe_with_flags_that_override(volseg, annotated, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        '[recipe]\narchitecture = "unet2d"\nwidth = 2\npatch = [1, 32, 32]\nsteps = 9\n'
        '[run]\nterms = "CC0"\nvoxel_size = [5, 5, 5]\n'
        f'[[data]]\nraw = "{annotated / "raw.tif"}"\nlabels = "{annotated / "labels.tif"}"\n'
    )
    command = ["train", "--config", recipe, "--workers", "1", "--json"]
    done = volseg(*command, "--output", tmp_path / "a", "--steps", "2", "--loss", "dice")
    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "a" / "a.json").read_text())
    assert card["training"]["terms"] == "CC0"
    assert (card["training"]["recipe"]["loss"], card["training"]["steps"]) == ("dice", 2)
    kept = ["train", "--config", tmp_path / "a" / "recipe.toml", "--output", tmp_path / "b"]
    again = volseg(*kept, "--name", "b", "--json")
    assert again.exit_code == 0, again.output
    repeated = json.loads((tmp_path / "b" / "b.json").read_text())
    assert repeated["sha256"] == card["sha256"]

    recipe.write_text("[recipe]\nwidht = 2\n")
    refused = volseg(*command, "--output", tmp_path / "c")
    assert refused.exit_code == 2
    assert "no settings called widht" in refused.stderr


@pytest.mark.filterwarnings("always:made has one class:UserWarning")
def test_a_recipe_names_labels_that_are_found_from_anywhere(
    volseg, annotated, tmp_path, monkeypatch
):
    """A folder of a run may have the name of labels in the volume; classes may have their own."""
    small = ["--architecture", "unet2d", "--width", "2", "--patch", "1,32,32", "--steps", "1"]
    volume, other = tmp_path / "vol.zarr", tmp_path / "other"
    assert volseg("convert", annotated / "raw.tif", volume, "--voxel-size", "5").exit_code == 0
    (volume / "labels").mkdir()
    assert volseg("convert", annotated / "labels.tif", volume / "labels" / "made").exit_code == 0
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    done = volseg("train", "vol.zarr", "--labels", "made", "--output", "made", *small, "-q")
    assert done.exit_code == 0, done.output
    monkeypatch.chdir(other)
    recipe = ["--config", "../made/recipe.toml", "--output", "third"]
    for words in (
        ["--foreground", "0"],
        ["--images"],
        ["--axes", "ZYX"],
        ["--slices", "3"],
        ["--validation-data", "../vol.zarr=made"],
    ):
        refused = volseg("train", *recipe, *words)
        assert (refused.exit_code, f"{words[0]} without a VOLUME" in refused.stderr) == (2, True)
    again = volseg("train", *recipe, "-q")
    assert again.exit_code == 0, again.output
    shutil.copy(annotated / "labels.tif", "cells.tif")
    start = ["--from", "third/made.safetensors", "--patch", "1,32,32", "--steps", "1"]
    own = ["--classes", "cells=cells.tif,all=made", "--output", "own", "-q"]
    done = volseg("train", volume, *own, *start)
    assert done.exit_code == 0, done.output
    card = json.loads((other / "own" / "own.json").read_text())
    assert card["training"]["recipe"]["classes"] == ["cells=cells.tif", "all=made"]
    monkeypatch.chdir(tmp_path)
    again = volseg("train", "--config", "other/own/recipe.toml", "--output", "other/own", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["steps_now"] == 0


@pytest.mark.filterwarnings("always:the images' pixel size is unknown:UserWarning")
def test_images_of_which_nobody_knows_the_size_and_weights_to_start_from(
    volseg, annotated, tmp_path
):
    pair = f"{annotated / 'raw.tif'}={annotated / 'labels.tif'}"
    command = ["train", "--data", pair, "--images", "--steps", "1", "--workers", "1"]
    small = ["--architecture", "unet2d", "--width", "2", "--patch", "1,32,32"]
    done = volseg(*command, *small, "--output", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert "the weights' card says 1 nm" in done.stderr
    start = ["--from", tmp_path / "a" / "a.safetensors", "--patch", "1,32,32"]
    more = volseg(*command, *start, "--output", tmp_path / "b")
    assert more.exit_code == 0, more.output
    card = json.loads((tmp_path / "b" / "b.json").read_text())
    assert card["training"]["from"]["name"] == "a"
    assert card["training"]["recipe"]["learning_rate"] == 2e-4
    wrong = volseg(*command, *start, "--width", "4", "--output", tmp_path / "c")
    assert wrong.exit_code == 2
    assert "leave --width out" in wrong.stderr
    wrong = volseg(*command, *start, "--gamma", "0.5", "--output", tmp_path / "c")
    assert wrong.exit_code == 2
    assert "leave --gamma, --equalise and [recipe.preprocessing] out" in wrong.stderr


def test_a_run_of_an_older_default_recipe_goes_on_with_the_one_that_it_kept(
    volseg, annotated, tmp_path, monkeypatch
):
    labels = ["--labels", annotated / "labels.tif", "--voxel-size", "5", "--workers", "1", "-q"]
    command = ["train", annotated / "raw.tif", *labels, "--patch", "1,32,32", "--steps", "1"]
    small = ["--architecture", "unet2d", "--width", "2"]
    assert volseg(*command, *small, "--output", tmp_path / "a").exit_code == 0
    start = [*command, "--from", tmp_path / "a" / "a.safetensors", "--output", tmp_path / "my run"]
    with monkeypatch.context() as before:
        before.setattr(recipes, "CALM", Augmentation())
        assert volseg(*start).exit_code == 0
    refused = volseg(*start)
    assert refused.exit_code == 2
    (words,) = re.findall(r"; `volseg (.*)` goes on with it as it was begun; else", refused.stderr)
    again = volseg(*shlex.split(words), "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["steps_now"] == 0
    for other in (["--roi", "0:10,:,:"], ["--from", "unet2d-general", "--width", "32"]):
        refused = volseg(*start, *other)
        assert (refused.exit_code, "goes on" in refused.stderr) == (2, False)


def test_pairs_that_do_not_pair_are_refused(volseg, tmp_path):
    for arguments, message in (
        (["a.zarr", "b.zarr", "--labels", "x", "--labels", "y", "--labels", "z"], "once for each"),
        (["--labels", "x"], "a VOLUME is missing"),
        (["a.zarr"], "--labels is missing"),
        (["--data", "a.zarr"], "expected VOLUME=LABELS"),
        (["a.zarr", "--labels", "x", "--slices", "one"], "expected numbers"),
        (["--roi", "0:3,:,:"], "--roi without a VOLUME: name VOLUME"),
        ([], "nothing to train on"),
    ):
        result = volseg("train", *arguments, "--steps", "1", "--output", tmp_path / "run")
        assert result.exit_code == 2, arguments
        assert message in result.stderr
        assert "Traceback" not in result.stderr


def test_the_flags_name_the_losses_there_are():
    from volseg.training.losses import LOSS_NAMES

    (flag,) = (p for p in main.commands["train"].params if p.name == "loss")
    assert sorted(flag.type.choices) == sorted(LOSS_NAMES)


def test_segment_takes_the_rules_of_the_card(volseg, annotated, toy_model, tmp_path):
    volume, model = tmp_path / "vol.zarr", tmp_path / "toy.safetensors"
    volseg("convert", annotated / "raw.tif", volume, "--voxel-size", "5,5,10", "-q")
    for suffix in (".safetensors", ".json"):
        shutil.copy(toy_model.with_suffix(suffix), model.with_suffix(suffix))
    update_card(model, {"min_size": 300})

    def smallest(*flags, command="label"):
        done = volseg(command, volume, *flags, "-q")
        assert done.exit_code == 0, done.output
        told = json.loads(volseg("info", volume, "--json").stdout)
        return told["labels"]["mitochondria"]["volseg"]["run"]["min_size"]

    # of voxels of twice the volume it is half as many
    assert smallest("--model", model, command="segment") == 150
    assert smallest("--overwrite", "--min-size", "0") == 0
    assert smallest("--overwrite", "--min-size", "12500nm3") == 50
    assert smallest("--overwrite") == 150
