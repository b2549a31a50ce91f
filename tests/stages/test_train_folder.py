"""The folder of a training run: whose the files in it are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from volseg.errors import ConflictError
from volseg.stages.train import folder
from volseg.stages.train.folder import RECIPE, open_folder, replacing_run
from volseg.stages.train.recipe import RunSettings, build_config, load_recipe, save_recipe
from volseg.stages.train.regions import Pair
from volseg.storage.locations import parse_location

USERS = ("samples/mine.png", "samples/step-7.tif", "tensorboard/notes.txt")
RUNS = ("curves.png", "samples/step-0000250.png", "tensorboard/events.out.tfevents.17.host.1.0")


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def left_of(folder):
    weights = folder / "run.safetensors"
    assert open_folder(weights, {}, overwrite=True) is None
    with replacing_run(weights):
        pass  # where a new run writes its checkpoint
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_a_folder_that_holds_no_run_loses_nothing(tmp_path):
    write(tmp_path, *USERS, *RUNS)
    before = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))
    assert left_of(tmp_path) == before


def test_of_a_run_goes_what_it_wrote(tmp_path):
    write(tmp_path, RECIPE, *RUNS)
    assert left_of(tmp_path) == []
    write(tmp_path, RECIPE, *RUNS, *USERS)
    assert left_of(tmp_path) == sorted([*USERS, "samples", "tensorboard"])


@pytest.mark.parametrize("architecture", ["unet2d", "emnet"])
def test_a_run_that_an_earlier_version_began_is_gone_on_with(tmp_path, monkeypatch, architecture):
    config = build_config({"architecture": architecture, "steps": 3})
    ours = json.loads(json.dumps(dataclasses.asdict(config)))
    theirs = {k: v for k, v in ours.items() if k not in folder.SINCE}
    theirs["preprocessing"] = {k: v for k, v in ours["preprocessing"].items() if k != "each"}
    painted = theirs["augmentation"] = dict(ours["augmentation"])
    del painted["nucleus_probability"], painted["crowd_probability"]
    theirs |= {"centerline_weight": 1.0, "centerline_reach": 15.0}
    saved = SimpleNamespace(config=json.dumps(theirs), best=None)
    monkeypatch.setattr(folder, "load_checkpoint", lambda _path: saved)
    weights = tmp_path / "a.safetensors"
    if architecture == "emnet":  # which would learn otherwise from here on
        with pytest.raises(ConflictError, match="centerline weight"):
            open_folder(weights, ours, overwrite=False)
    else:
        assert open_folder(weights, ours, overwrite=False) is saved
        assert open_folder(weights, {**ours, "images": True}, overwrite=False) is saved
        saved.config = json.dumps({**theirs, "images": False})
        with pytest.raises(ConflictError, match="are unrelated images: False; you ask for"):
            open_folder(weights, {**ours, "images": True}, overwrite=False)
        saved.config = json.dumps(theirs)
        with pytest.raises(ConflictError, match="classes"):
            open_folder(weights, {**ours, "classes": ["a=1"]}, overwrite=False)
        painted["edge_probability"] = ours["augmentation"]["edge_probability"] = 0.1
        saved.config = json.dumps(theirs)
        with pytest.raises(ConflictError, match="with augmentation nucleus probability none; you"):
            open_folder(weights, ours, overwrite=False)


def test_a_recipe_names_data_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raws = ("s3://bucket/vol.zarr", "stack/*.tif", "raw.h5:/volume")
    names = ("s3://bucket/labels.zarr", "labels/*.tif", "labels.h5:/labels")
    pairs = [Pair(parse_location(r), n) for r, n in zip(raws, names, strict=True)]
    told = {"raw": None, "labels hash": None}
    save_recipe(Path("r.toml"), build_config({"steps": 1}), RunSettings(), pairs, [told] * 3)
    found = load_recipe(Path("r.toml")).pairs
    assert [p.raw for p in found] == [p.raw.resolve() for p in pairs]
    assert [p.labels for p in found] == [names[0], *(f"{tmp_path}/{n}" for n in names[1:])]


def test_a_recipe_names_links_and_not_what_they_lead_to(tmp_path, monkeypatch):
    """Stores of versioned data keep files by their hashes, and names and cards beside links."""
    monkeypatch.chdir(tmp_path)
    links = ["raw.tif", "labels.tif", "weights.safetensors", "axons.tif"]
    for number, name in enumerate(links):
        Path(f"blob{number}").touch()
        Path(name).symlink_to(f"blob{number}")
    config = build_config({"steps": 1, "classes": ("axons=axons.tif",)})
    pairs, told = [Pair(Path("raw.tif"), "labels.tif")], {"raw": None, "labels hash": None}
    settings = RunSettings(start="weights.safetensors")
    save_recipe(Path("r.toml"), config, settings, pairs, [told])
    found = load_recipe(Path("r.toml"))
    (pair,) = found.pairs
    said = [str(pair.raw), pair.labels, found.run["start"], found.config["classes"][0][6:]]
    assert said == [f"{tmp_path}/{name}" for name in links]
