"""The folder of a training run: whose the files in it are."""

from __future__ import annotations

from volseg.stages.train.folder import RECIPE, open_folder, replacing_run

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
