"""Every command takes a path as the shell's users write it, and finds the same place."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from toy_training import write_annotated
from volseg import convert, segment, stats
from volseg.storage import volumes
from volseg.storage.locations import parse_path
from volseg.storage.volumes import open_image

# a chain of commands, and what they compile on a machine where nobody has yet
pytestmark = [pytest.mark.usefixtures("one_thread", "quick_training"), pytest.mark.timeout(900)]
NAME = "mitochondria"


@pytest.fixture(scope="module")
def stand(tmp_path_factory, toy_model):
    """A folder of all that the commands are given, below the home folder."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "work"
    (folder / "sub").mkdir(parents=True)
    write_annotated(folder, (12, 40, 40))
    for suffix in (".safetensors", ".json"):
        shutil.copy(toy_model.with_suffix(suffix), folder / f"toy{suffix}")
    return folder


def _spell_up(folder: Path, name: str) -> str:
    os.chdir(folder / "sub")
    return f"../{name}"


def _spell_down_and_up(folder: Path, name: str) -> str:
    os.chdir(folder)
    return f"sub/.././{name}"


def _spell_here(folder: Path, name: str) -> str:
    os.chdir(folder)
    return f"./{name}"


def _spell_home(folder: Path, name: str) -> str:
    os.chdir("/")
    os.environ["HOME"] = str(folder.parent)
    return f"~/work/{name}"


def _spell_slash(folder: Path, name: str) -> str:
    os.chdir(folder)
    return f"{name}/" if not Path(name).suffix or name.endswith(".zarr") else name


def _spell_link(folder: Path, name: str) -> str:
    os.chdir("/")
    link = folder.parent / "linked"
    if not link.exists():
        link.symlink_to(folder, target_is_directory=True)
    return f"{link}/{name}"


def _spell_link_and_up(folder: Path, name: str) -> str:
    # `..` of a link is the folder above what it points to, as for every program
    os.chdir("/")
    link = folder.parent / "inner"
    if not link.exists():
        link.symlink_to(folder / "sub", target_is_directory=True)
    return f"{link}/../{name}"


def _spell_space(folder: Path, name: str) -> str:
    os.chdir("/")
    spaced = folder.parent / "a folder with spaces"
    if not spaced.exists():
        shutil.copytree(folder, spaced)
    return f"{spaced}/{name}"


def _spell_whole(folder: Path, name: str) -> str:
    os.chdir("/")
    return f"{folder}/{name}"


SPELLINGS = [
    _spell_up,
    _spell_down_and_up,
    _spell_here,
    _spell_home,
    _spell_slash,
    _spell_link,
    _spell_link_and_up,
    _spell_space,
    _spell_whole,
]


@pytest.fixture(scope="module")
def measured(stand):
    """A volume of the stand, segmented and measured."""
    made = stand.parent / "v.zarr"
    convert(stand / "raw.tif", made, voxel_size=(5, 5, 5))
    shutil.copytree(made, stand.parent / "measured.zarr")
    segment(stand.parent / "measured.zarr", model=stand / "toy.safetensors")
    stats(stand.parent / "measured.zarr")
    return stand.parent / "measured.zarr"


@pytest.fixture
def found(stand, tmp_path, monkeypatch):
    """What the commands should make, from whole paths, in a copy of the stand."""
    home = tmp_path / "home"
    home.mkdir()
    folder = home / "work"
    shutil.copytree(stand, folder)
    monkeypatch.chdir(tmp_path)  # and back afterwards
    monkeypatch.setenv("HOME", os.environ["HOME"])
    return folder


@pytest.fixture
def segmented(measured, found):
    """A copy of the stand with the volume in it; the working directory."""
    os.chdir(found)
    return shutil.copytree(measured, found / "v.zarr")


@pytest.fixture
def converted(measured, found):
    """A copy of the stand with a volume without results in it; the working directory."""
    os.chdir(found)
    return shutil.copytree(measured.with_name("v.zarr"), found / "v.zarr")


@pytest.mark.parametrize("spell", SPELLINGS, ids=lambda f: f.__name__.removeprefix("_spell_"))
def test_every_command_finds_the_place(volseg, found, spell):
    def run(*arguments):
        done = volseg(*arguments, "-q")
        assert done.exit_code == 0, done.output
        return done.stdout

    def at(name):
        return spell(found, name)

    run("convert", at("raw.tif"), at("v.zarr"), "--voxel-size", "5")
    volume = parse_path(at("v.zarr")).resolve()
    assert (volume / "zarr.json").is_file()
    run("segment", at("v.zarr"), "--model", at("toy.safetensors"))
    run("segment", at("v.zarr"), "--model", at("toy.safetensors"), "--dry-run")
    run("label", "--overwrite", at("v.zarr"), "--threshold", "0.6")
    run("stats", at("v.zarr"), "--output", at("objects.csv"))
    run("stats", at("v.zarr"), "--labels", at("labels.tif"), "--name", "theirs")
    run("evaluate", at("v.zarr"), "--truth", at("labels.tif"), "--output", at("evaluation"))
    run("evaluate", at("v.zarr"), "--truth", at("labels.tif"), "--labels", at("labels.tif"))
    run("evaluate", at("v.zarr"), "--truth", NAME, "--mask", at("labels.tif"))
    run("verify", at("v.zarr"), "--model", at("toy.safetensors"), "--sample", "1")
    told = json.loads(run("info", at("v.zarr"), "--json"))
    assert sorted(told["labels"]) == [NAME]
    assert told["tables"] == [NAME, f"{NAME}-slices", "theirs", "theirs-slices"]
    assert open_image(volume / "labels" / NAME).attributes["complete"]
    assert (volume.parent / "objects.csv").is_file()
    assert (volume.parent / "evaluation" / "evaluation.json").is_file()


TINY = ["--width", "8", "--patch", "4,16,16", "--workers", "1"]


# the same functions read the paths of these, so a few spellings do
@pytest.mark.parametrize("spell", [_spell_up, _spell_home, _spell_space])
def test_training_finds_the_place(volseg, found, spell):
    def at(name):
        return spell(found, name)

    command = ["train", at("raw.tif"), "--labels", at("labels.tif"), "--output", at("run"), *TINY]
    command += ["--voxel-size", "5", "--steps", "1", "--from", at("toy.safetensors")]
    done = volseg(*command, "-q")
    assert done.exit_code == 0, done.output
    folder = parse_path(at("run")).resolve()
    assert (folder / "run.safetensors").is_file()
    recipe = at("run/recipe.toml")
    again = volseg("train", "--config", recipe, "--output", at("again"), "--workers", "1", "-q")
    assert again.exit_code == 0, again.output
    shown = volseg("models", "show", at("run/run.safetensors"), "-q")
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize("spell", [_spell_up, _spell_home, _spell_space])
def test_models_find_the_place(volseg, found, spell, monkeypatch):
    pytest.importorskip("bioimageio.spec")

    def at(name):
        return spell(found, name)

    package = ["--format", "bioimageio", "--output", at("toy.zip")]
    done = volseg("models", "export", at("toy.safetensors"), *package, "-q")
    assert done.exit_code == 0, done.output
    done = volseg("models", "import", at("toy.zip"), "--output", at("in"), "-q")
    assert done.exit_code == 0, done.output
    assert (parse_path(at("in")).resolve() / "toy.safetensors").is_file()


@pytest.mark.parametrize("command", [["info"], ["verify", "--sample", "0"], ["stats"]])
def test_a_volume_may_be_the_working_directory(volseg, converted, command):
    os.chdir(converted)
    more = ["--labels", "../labels.tif"] if command == ["stats"] else []
    done = volseg(*command, ".", *more)
    assert done.exit_code == 0, done.output


def test_an_empty_path_is_refused(volseg):
    refused = volseg("info", "")
    assert refused.exit_code == 2
    assert "a path is empty" in refused.stderr


MISSING = [
    (["convert", "no.tif", "w.zarr"], "there is nothing at no.tif"),
    (["convert", "no", "w.zarr"], "there is nothing at no"),
    (["convert", "raw.tif", "no/w.zarr"], "there is no folder"),
    (["segment", "no.zarr"], "there is nothing at no.zarr"),
    (["segment", "v.zarr", "--model", "no.safetensors"], "there are no weights at no.safetensors"),
    (["label", "no.zarr"], "no.zarr"),
    (["verify", "no.zarr"], "there is nothing at no.zarr"),
    (["info", "no.zarr"], "there is nothing at no.zarr"),
    (["stats", "v.zarr", "--labels", "no.tif"], "there is nothing at no.tif"),
    (["stats", "v.zarr", "--labels", "no.zarr"], "there is nothing at no.zarr"),
    (["stats", "v.zarr", "--labels", "labels.tif", "--output", "no/a.csv"], "there is no folder"),
    (
        ["evaluate", "v.zarr", "--labels", "labels.tif", "--truth", "no.tif"],
        "there is nothing at no.tif, and v.zarr has no labels/no.tif",
    ),
    (
        ["evaluate", "v.zarr", "--labels", "labels.tif", "--truth", "a/no.tif"],
        "there is nothing at a/no.tif",
    ),
    (
        ["evaluate", "v.zarr", "--truth", "labels.tif", "--labels", "no.tif"],
        "there is nothing at no.tif",
    ),
    (
        ["evaluate", "v.zarr", "--truth", "labels.tif", "--labels", "labels.tif", "--mask", "no"],
        "there is nothing at no",
    ),
    (
        ["evaluate", "v.zarr", "--truth", "labels.tif", "--output", "no/a"],
        "there is no folder",
    ),
    (["train", "no.tif", "--labels", "labels.tif", "--steps", "1", "--output", "r"], "no.tif"),
    (
        ["train", "raw.tif", "--labels", "no.tif", "--steps", "1", "--output", "r"],
        "there is nothing at no.tif",
    ),
    (
        ["train", "v.zarr", "--labels", "no.tif", "--steps", "1", "--output", "r"],
        "there is nothing at no.tif",
    ),
    (["train", "--config", "no.toml", "--output", "r"], "there is no file no.toml"),
    (
        ["train", "raw.tif", "--labels", "labels.tif", "--output", "r", "--from", "no.safetensors"],
        "there are no weights at no.safetensors",
    ),
    (
        ["stats", "v.zarr", "--cluster", "local", "--cluster-config", "no.toml"],
        "there is no file no.toml",
    ),
    (["models", "show", "no.safetensors"], "there are no weights at no.safetensors"),
    (["models", "import", "no.zip", "--output", "r"], "there is nothing at no.zip"),
]


@pytest.mark.parametrize(
    ("command", "said"), MISSING, ids=lambda v: "-".join(v) if isinstance(v, list) else ""
)
@pytest.mark.usefixtures("converted")
def test_it_says_that_a_file_is_missing_and_which(volseg, found, command, said):
    before = sorted(p.relative_to(found) for p in found.rglob("*"))
    refused = volseg(*command)
    assert refused.exit_code == 2, refused.output
    assert said in refused.stderr
    assert sorted(p.relative_to(found) for p in found.rglob("*")) == before


def _contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and ".volseg" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


AGAIN = [
    ["label", "v.zarr", "--overwrite", "--threshold", "0.7"],
    ["segment", "v.zarr", "--overwrite", "--model", "toy.safetensors", "--tta"],
]


@pytest.mark.parametrize("command", AGAIN, ids=lambda c: c[0])
@pytest.mark.parametrize("name", [NAME, "new"])
def test_what_cannot_be_created_removes_nothing(volseg, segmented, monkeypatch, command, name):
    before = _contents(segmented)

    def full(path, spec):
        raise volumes.StorageError(f"cannot create {path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(volumes, "create_array", full)
        refused = volseg(*command, *([] if name == NAME else ["--name", name]))
    assert refused.exit_code in {1, 2}, refused.output
    assert _contents(segmented) == before
    assert not [p for p in segmented.rglob("*") if p.name.endswith((".new", ".old"))]
    if name == NAME:
        done = volseg(*command)
        assert done.exit_code == 0, done.output
        assert _contents(segmented) != before
        assert not (segmented / "tables" / f"{NAME}.parquet").exists()


@pytest.mark.usefixtures("converted")
def test_a_command_that_failed_leaves_no_empty_folders(volseg, monkeypatch):
    before = _contents(Path("v.zarr"))

    def full(*_):
        raise volumes.StorageError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(volumes, "create_array", full)
        assert volseg("segment", "v.zarr", "--model", "toy.safetensors").exit_code == 1
    assert _contents(Path("v.zarr")) == before
    assert not Path("v.zarr/probabilities").exists()
    with monkeypatch.context() as patch:
        patch.setattr("volseg.stages.stats.run.write_table", full)
        assert volseg("stats", "v.zarr", "--labels", "labels.tif").exit_code == 1
    assert not Path("v.zarr/tables").exists()


def test_an_old_run_stands_until_the_new_one_begins(volseg, found, monkeypatch):
    os.chdir(found)
    command = ["train", "raw.tif", "--labels", "labels.tif", "--output", "run", *TINY]
    command += ["--voxel-size", "5", "--steps", "1"]
    assert volseg(*command).exit_code == 0
    before = _contents(Path("run"))

    def full(path, *_):
        raise volumes.StorageError(f"cannot write the checkpoint {path}")

    with monkeypatch.context() as patch:
        patch.setattr("volseg.stages.train.run.save_checkpoint", full)
        assert volseg(*command, "--seed", "2", "--overwrite").exit_code == 1
    assert _contents(Path("run")) == before
    done = volseg(*command, "--seed", "2", "--overwrite")
    assert done.exit_code == 0, done.output
    assert json.loads(Path("run/run.json").read_text())["training"]["seeds"] == [2]


def test_labels_of_a_stack_may_be_named_from_elsewhere(found):
    os.chdir(found / "sub")
    assert parse_path("../labels.tif") == found.resolve() / "labels.tif"
    assert tifffile.imread(parse_path("../labels.tif")).shape == (12, 40, 40)


@pytest.mark.parametrize("which", ["source", "target", "slices"])
def test_names_that_are_not_text_are_refused_and_nothing_is_written(volseg, tmp_path, which):
    odd = os.fsdecode(b"caf\xe9.tif")
    folder = tmp_path / "slices"
    folder.mkdir()
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 16, 16), np.uint8), photometric="minisblack")
    for name in ("1.tif", odd):
        tifffile.imwrite(tmp_path / "1.tif", np.zeros((16, 16), np.uint8))
        (tmp_path / "1.tif").rename(folder / name)
    source = {"source": folder / odd, "target": tmp_path / "a.tif", "slices": folder}[which]
    target = tmp_path / (odd if which == "target" else "v.zarr")
    refused = volseg("convert", source, target)
    assert refused.exit_code == 2
    assert r"caf\xe9.tif is not UTF-8; rename the file or folder" in refused.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "slices"]
