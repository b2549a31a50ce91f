"""Training: straight from a volume, resumable to the bit, ready for use at the end."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file

import volseg
from toy_threads import one_thread
from toy_training import Killed, KilledAt, gradient_agreement, read_log, timeless
from volseg.engine.progress import NoProgress
from volseg.errors import (
    ConflictError,
    InputError,
    ParameterError,
    ShapeError,
    TrainingError,
    VolumeError,
    VoxelSizeError,
)
from volseg.geometry.grid import full_roi
from volseg.stages.convert.plan import ConvertOptions, plan_conversion
from volseg.stages.convert.run import convert
from volseg.stages.train import loop as train_loop
from volseg.stages.train import run as train_run
from volseg.stages.train.data import open_training_data
from volseg.stages.train.regions import Pair, choose_regions
from volseg.stages.train.run import TrainOptions, train
from volseg.stages.train.state import build_optimizer
from volseg.storage.arrays import ArraySpec
from volseg.storage.cards import load_card
from volseg.storage.checkpoints import load_checkpoint, optimizer_tensors, restore_optimizer
from volseg.storage.volumes import create_image, labels_path, register_label
from volseg.training.augmentation import Augmentation
from volseg.training.config import TrainConfig
from volseg.training.loader import draw_batch, load_batches

pytestmark = pytest.mark.usefixtures("one_thread", "quick_training")

SHAPE = (30, 64, 64)
TINY = TrainConfig(
    width=8, patch=(16, 16, 16), steps=6, validate_every=3, seed=1, hard_share=0.4, hard_every=4
)


def balls(shape=SHAPE, radius=6):
    """Bright balls on a darker, noisy ground, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.zeros(shape, np.uint16)
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    for n, centre in enumerate(np.argwhere(np.ones((3, 3, 3))) * [11, 21, 21] + [4, 10, 10], 1):
        distance = ((grid - centre - rng.integers(-3, 4, 3)) ** 2).sum(-1)
        labels[distance < radius**2] = n
    raw = 90 + 60 * (labels > 0) + rng.normal(0, 12, shape)
    return np.clip(raw, 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A volume of balls with ``labels/balls``, and beside it ``labels.tif``."""
    folder = tmp_path_factory.mktemp("volume")
    raw, labels = balls()
    tifffile.imwrite(folder / "raw.tif", raw)
    tifffile.imwrite(folder / "labels.tif", labels)
    path = folder / "vol.zarr"
    with plan_conversion(
        folder / "raw.tif", path, ConvertOptions(voxel_size=(5.0, 5.0, 5.0))
    ) as plan:
        convert(plan, NoProgress())
    spec = ArraySpec(SHAPE, "uint16", (32, 64, 64), (32, 64, 64))
    image = create_image(labels_path(path, "balls"), spec, None, label=True, attributes={})
    image.levels[0].write(full_roi(SHAPE), labels)
    register_label(path, "balls")
    return path


def options(output, config=TINY, **changes):
    return TrainOptions(output=output, config=config, workers=1, **changes)


def pair(volume, labels="balls", **changes):
    return [Pair(volume, labels, **changes)]


def sources(volume, labels="balls"):
    return open_training_data(pair(volume, labels), TINY).training


@pytest.fixture(scope="module")
def undisturbed(volume, quick_training, tmp_path_factory):
    """Tensors and log of a tiny run from the beginning to the end."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    with one_thread():
        train(pair(volume), options(folder), NoProgress())
    return folder


def assert_same_run(folder, expected):
    ours, theirs = (load_checkpoint(f / "checkpoint.safetensors") for f in (folder, expected))
    assert ours.step == theirs.step
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name, tensor in theirs.tensors.items():
        assert torch.equal(ours.tensors[name], tensor), name
    ours, theirs = (load_file(f / "run.safetensors") for f in (folder, expected))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert timeless(read_log(folder)) == timeless(read_log(expected))


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_resumed_run_is_the_undisturbed_one_to_the_bit(
    volume, undisturbed, tmp_path, monkeypatch, step
):
    monkeypatch.setattr(train_loop, "CHECKPOINT_SECONDS", 0.0)
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        train(pair(volume), options(folder), KilledAt(step))
    assert load_checkpoint(folder / "checkpoint.safetensors").step == step
    report = train(pair(volume), dataclasses.replace(options(folder), workers=3), NoProgress())
    assert (report.steps_now, report.step) == (6 - step, 6)
    assert_same_run(folder, undisturbed)


SLOW_RUN = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from volseg.stages.train import loop as train_loop
from volseg.stages.train import run as train_run
from volseg.stages.train import record as train_record
from volseg.engine.progress import NoProgress
from volseg.stages.train.run import TrainOptions, train
from volseg.stages.train.state import build_optimizer
from volseg.stages.train.regions import Pair
from volseg.training.config import TrainConfig
from volseg.training.validation import CONTEXTS
train_loop.CHECKPOINT_SECONDS = 0.0
train_record.can_draw = lambda: False
CONTEXTS.update({2: (0, 0, 0), 3: (0, 0, 0)})
class Slow(NoProgress):
    def advance(self, n):
        time.sleep(0.3)
config = TrainConfig(
    width=8, patch=(16, 16, 16), steps=6, validate_every=3, seed=1, hard_share=0.4, hard_every=4
)
options = TrainOptions(output=Path(sys.argv[2]), config=config, workers=1)
train([Pair(Path(sys.argv[1]), "balls")], options, Slow())
"""


def test_a_run_ended_by_sigkill_resumes(volume, undisturbed, tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", SLOW_RUN, str(volume), str(folder)])
    deadline = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline and not folder.exists():
        time.sleep(0.05)
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    train(pair(volume), options(folder), NoProgress())
    assert_same_run(folder, undisturbed)


HOLD = """
import sys
from pathlib import Path
from volseg.storage.ledger import locked
with locked(Path(sys.argv[1]) / ".lock"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_in_the_same_folder(volume, tmp_path):
    command, pipe = [sys.executable, "-c", HOLD, str(tmp_path)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConflictError, match=f"process {holder.pid} on .* is working on this"):
            train(pair(volume), options(tmp_path, overwrite=True), NoProgress())
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_a_row_whose_checkpoint_was_never_written_is_written_once(volume, undisturbed, tmp_path):
    folder = tmp_path / "run"

    def killed(row):
        if row["step"] == 6:
            raise Killed

    with pytest.raises(Killed):
        train(pair(volume), options(folder), NoProgress(), killed)
    assert [r["step"] for r in read_log(folder)] == ["3", "6"]
    train(pair(volume), options(folder), NoProgress())
    assert_same_run(folder, undisturbed)


def test_a_finished_run_is_left_alone(volume, undisturbed):
    before = {p.name: p.stat().st_mtime_ns for p in undisturbed.glob("[!.]*")}
    report = train(pair(volume), options(undisturbed), NoProgress())
    assert (report.steps_now, report.step) == (0, 6)
    assert report.best["jaccard"] == max(float(r["jaccard"]) for r in read_log(undisturbed))
    assert before == {p.name: p.stat().st_mtime_ns for p in undisturbed.glob("[!.]*")}


def test_another_configuration_is_refused_with_the_difference(volume, undisturbed):
    changed = dataclasses.replace(TINY, learning_rate=1e-4)
    with pytest.raises(
        ConflictError, match=r"learning rate 0\.002; you ask for .* 0\.0001.*--overw"
    ):
        train(pair(volume), options(undisturbed, changed), NoProgress())
    with pytest.raises(
        ConflictError, match=r"was begun with data 1 labels hash [0-9a-f]{12}, data 1 training "
    ):
        train(pair(volume, roi="0:20,:,:"), options(undisturbed), NoProgress())


def test_files_of_others_are_not_overwritten_and_overwrite_starts_anew(volume, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.safetensors").write_text("mine")
    short = dataclasses.replace(TINY, steps=1)
    with pytest.raises(ConflictError, match=r"run\.safetensors stands where"):
        train(pair(volume), options(folder, short), NoProgress())
    train(pair(volume), options(folder, short, overwrite=True), NoProgress())
    train(
        pair(volume),
        options(folder, dataclasses.replace(short, seed=4), overwrite=True),
        NoProgress(),
    )
    assert [r["step"] for r in read_log(folder)] == ["1"]
    assert json.loads((folder / "run.json").read_text())["training"]["seeds"] == [4]


@pytest.mark.usefixtures("pictures")
def test_a_run_killed_while_it_replaces_another_keeps_nothing_of_that(
    volume, tmp_path, monkeypatch
):
    folder, short = tmp_path / "run", dataclasses.replace(TINY, steps=1, seed=4)
    recipe, patches = folder / "recipe.toml", folder / "samples" / "step-0000000-patches.png"

    def leave_another_run():
        patches.parent.mkdir(parents=True, exist_ok=True)
        for path in (recipe, patches, folder / "run.safetensors", folder / "run.json"):
            path.write_text("of another run")

    def killed(*_given):
        raise Killed

    leave_another_run()
    with monkeypatch.context() as patch:
        patch.setattr(train_run, "open_record", killed)
        with pytest.raises(Killed):
            train(pair(volume), options(folder, short, overwrite=True), NoProgress())
    assert patches.read_bytes().startswith(b"\x89PNG")  # the new run's stay
    assert not recipe.exists()
    # as though it had been killed between its first checkpoint and the removal
    leave_another_run()
    train(pair(volume), options(folder, short), NoProgress())
    assert "seed = 4" in recipe.read_text()
    assert patches.read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "run.json").read_text())["training"]["seeds"] == [4]


def test_a_run_whose_weights_are_gone_does_not_look_finished(volume, tmp_path):
    folder = tmp_path / "run"
    short = dataclasses.replace(TINY, steps=1)
    train(pair(volume), options(folder, short), NoProgress())
    (folder / "run.safetensors").unlink()
    with pytest.raises(ConflictError, match=r"run\.safetensors are gone"):
        train(pair(volume), options(folder, short), NoProgress())


def test_the_card_says_what_the_network_is_and_what_it_learned_from(volume, undisturbed):
    card = load_card(undisturbed / "run.safetensors")
    assert (card.name, card.architecture, card.width) == ("run", "emnet", 8)
    assert card.voxel_size == (5.0, 5.0, 5.0)
    assert card.training["data"]["1"]["training"] == ["0:24,0:64,0:64"]
    assert card.training["data"]["1"]["validation"] == ["24:30,0:64,0:64"]
    assert card.training["recipe"]["cross_entropy_weight"] == 0.5
    best = max(read_log(undisturbed), key=lambda r: float(r["jaccard"]))
    assert card.threshold == float(best["threshold"])
    assert card.scores["validation Jaccard"] == float(best["jaccard"])
    precision, recall = (card.scores[f"validation {k}"] for k in ("precision", "recall"))
    assert card.scores["validation Jaccard"] == pytest.approx(
        1 / (1 / precision + 1 / recall - 1), abs=1e-4
    )


@pytest.mark.parametrize("architecture", ["emnet-paper", "emnet-single"])
def test_other_architectures_train_too(volume, tmp_path, architecture):
    config = dataclasses.replace(TINY, architecture=architecture, steps=2, batch=2)
    report = train(pair(volume), options(tmp_path / "run", config), NoProgress())
    assert load_card(report.weights).architecture == architecture


def test_a_run_limited_in_time_ends(volume, tmp_path):
    config = dataclasses.replace(TINY, steps=None, minutes=0.01)
    report = train(pair(volume), options(tmp_path / "run", config), NoProgress())
    assert report.minutes >= 0.01
    assert int(read_log(tmp_path / "run")[-1]["step"]) == report.step


def test_it_learns_balls(volume, tmp_path):
    config = TrainConfig(
        width=8,
        patch=(8, 32, 32),
        steps=40,
        learning_rate=1e-2,
        ema=0.9,
        validate_every=20,
        augmentation=Augmentation(elastic_alpha=1.0),
    )
    report = train(pair(volume), options(tmp_path / "run", config), NoProgress())
    losses = [float(r["loss"]) for r in read_log(tmp_path / "run")]
    assert losses[-1] < 0.8 * losses[0]
    _, labels = balls()
    constant_guess = (labels[24:] > 0).mean()
    assert report.best["jaccard"] > max(2 * constant_guess, 0.6)


def test_labels_by_name_path_or_tiff_give_the_same_patches(volume):
    paths = ["balls", str(volume / "labels" / "balls"), str(volume / "labels" / "balls" / "0")]
    paths.append(str(volume.parent / "labels.tif"))
    batches = [draw_batch(sources(volume, path), TINY, step=5) for path in paths]
    for other in batches[1:]:
        assert all(torch.equal(a, b) for a, b in zip(batches[0], other, strict=True))


def test_labels_that_were_corrected_by_hand_are_trained_on(volume, tmp_path):
    _, labels = balls()
    gone = 1
    volseg.apply(volume, name="balls", corrections={"delete": [gone]}, workers=1)
    path = tmp_path / "without.tif"
    tifffile.imwrite(path, np.where(labels == gone, 0, labels).astype(np.uint16))
    drawn = [
        [draw_batch(sources(volume, of), TINY, step) for step in range(8)]
        for of in ("balls-corrected", str(path), "balls")
    ]
    corrected, expected, before = ([t for batch in of for t in batch] for of in drawn)
    assert all(torch.equal(a, b) for a, b in zip(corrected, expected, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(corrected, before, strict=True))
    config = dataclasses.replace(TINY, steps=2)
    train(pair(volume, "balls-corrected"), options(tmp_path / "run", config), NoProgress())
    assert (tmp_path / "run" / "run.safetensors").exists()


def test_batches_depend_on_seed_and_step_only(volume):
    ours = sources(volume)
    for workers in (1, 4):
        loaded = load_batches(ours, TINY, 3, workers)
        for step in (3, 4, 5):
            expected = draw_batch(ours, TINY, step)
            assert all(torch.equal(a, b) for a, b in zip(next(loaded), expected, strict=True))
        loaded.close()
    other = dataclasses.replace(TINY, seed=2)
    first, second = (draw_batch(ours, config, 3)[0] for config in (TINY, other))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("depth", [4, 8, 12, 16])
def test_gradients_can_be_trusted(depth):
    config = dataclasses.replace(TINY, patch=(depth, 32, 32))
    assert gradient_agreement(config, 1, seed=depth) > 0.98


def test_norms_freeze_when_the_recipe_says(volume, tmp_path):
    never = dataclasses.replace(TINY, freeze_norms_after=1.0, steps=2)
    early = dataclasses.replace(never, freeze_norms_after=0.5)
    counts = []
    for name, config in (("never", never), ("early", early)):
        train(pair(volume), options(tmp_path / name, config), NoProgress())
        tensors = load_checkpoint(tmp_path / name / "checkpoint.safetensors").tensors
        seen = {int(v) for k, v in tensors.items() if k.endswith("num_batches_tracked")}
        counts.append(seen)
    assert counts == [{2}, {1}]


def test_a_loss_that_is_not_finite_ends_the_run(volume, tmp_path, monkeypatch):
    monkeypatch.setattr(
        train_loop, "batch_loss", lambda run, batch: torch.tensor(float("nan"), requires_grad=True)
    )
    with pytest.raises(TrainingError, match=r"step 0 is nan.*--learning-rate"):
        train(pair(volume), options(tmp_path / "run"), NoProgress())
    assert not (tmp_path / "run" / "run.safetensors").exists()


def test_regions_that_overlap_are_both_printed():
    shape = (50, 9, 9)
    with pytest.raises(
        ParameterError, match=r"--roi 0:45,0:9,0:9 overlaps --validation 40:50,0:9,0:9"
    ):
        choose_regions(full_roi(shape), shape, "0:45,:,:", None)
    with pytest.raises(ParameterError, match="leaves no slices"):
        choose_regions(full_roi(shape), shape, None, ":,0:4,:")
    labelled = (slice(10, 20), slice(0, 9), slice(0, 9))
    with pytest.raises(ParameterError, match=r"not covered by the labels, which hold 10:20"):
        choose_regions(labelled, shape, "0:15,:,:", None)
    around = choose_regions(full_roi(shape), shape, None, "20:30,:,:")
    assert [box[0] for box in around[0]] == [slice(0, 20), slice(30, 50)]


def _bad(volume, tmp_path, case):
    if case == "shape":
        tifffile.imwrite(tmp_path / "labels.tif", np.ones((30, 64, 60), np.uint8))
        return pair(volume, str(tmp_path / "labels.tif")), {}
    if case == "empty":
        tifffile.imwrite(tmp_path / "labels.tif", np.zeros(SHAPE, np.uint8))
        return pair(volume, str(tmp_path / "labels.tif")), {}
    if case == "size":
        unknown = tmp_path / "unknown.zarr"
        with plan_conversion(volume.parent / "raw.tif", unknown, ConvertOptions()) as plan:
            convert(plan, NoProgress())
        return pair(unknown, str(volume.parent / "labels.tif")), {}
    config = {"patch": {"patch": (4, 20, 16)}, "width": {"width": 12}}.get(case)
    if config:
        return pair(volume), {"config": dataclasses.replace(TINY, **config)}
    return pair(volume, "nothing" if case == "labels" else "balls"), {} if case == "labels" else {
        "name": "../x"
    }


@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        ("shape", ShapeError, r"\(30, 64, 60\).*\(30, 64, 64\)"),
        ("empty", ParameterError, r"no foreground .* in 0:24,0:64,0:64"),
        ("size", VoxelSizeError, r"--voxel-size"),
        ("patch", ParameterError, r"multiple of \(4, 8, 8\).*found \(4, 20, 16\)"),
        ("width", ParameterError, "multiple of 8, found 12"),
        ("labels", VolumeError, "no labels/nothing; it has balls"),
        ("name", ParameterError, "becomes a file's name"),
    ],
)
def test_what_cannot_be_trained_on_is_named_before_anything_is_written(
    volume, tmp_path, case, error, message
):
    chosen, changes = _bad(volume, tmp_path, case)
    bad = dataclasses.replace(options(tmp_path / "run"), **changes)
    with pytest.raises(error, match=message) as caught:
        train(chosen, bad, NoProgress())
    assert isinstance(caught.value, InputError)
    assert not Path(tmp_path / "run").exists()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_an_optimizer_takes_what_its_recipe_sets_and_is_kept(optimizer):
    rules = {"betas": (0.8, 0.99), "epsilon": 1e-4, "momentum": 0.99}
    config = TrainConfig(steps=1, optimizer=optimizer, **rules)
    network = torch.nn.Linear(2, 2)
    found = build_optimizer(config, network)
    taken = {"momentum": 0.99} if optimizer == "sgd" else {"betas": (0.8, 0.99), "eps": 1e-4}
    assert {name: found.defaults[name] for name in taken} == taken
    network(torch.ones(1, 2)).sum().backward()
    found.step()
    kept = optimizer_tensors(found)
    again = build_optimizer(config, network)
    restore_optimizer(again, kept)
    assert kept
    assert all(torch.equal(kept[k], value) for k, value in optimizer_tensors(again).items())
