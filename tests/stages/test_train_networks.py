"""Networks of slices and of volumes: trained, killed and resumed, fine-tuned, stopped early."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tifffile
import torch

from toy_training import Killed, KilledAt, gradient_agreement, read_log, timeless, write_annotated
from volseg.engine.progress import NoProgress
from volseg.errors import ConflictError, ParameterError, StorageError
from volseg.models.registry import ARCHITECTURES, find_architecture
from volseg.stages.train import loop as train_loop
from volseg.stages.train import record as train_record
from volseg.stages.train.export import choose_tiles
from volseg.stages.train.recipe import build_config, load_recipe
from volseg.stages.train.regions import Pair
from volseg.stages.train.run import TrainOptions, train
from volseg.stages.train.state import start_run
from volseg.storage.cards import load_card
from volseg.storage.checkpoints import load_checkpoint
from volseg.storage.checkpoints import read_log as read_numbers
from volseg.storage.weights import load_weights
from volseg.training.augmentation import CALM, Augmentation
from volseg.training.config import TrainConfig
from volseg.training.losses import LOSS_NAMES
from volseg.training.network import as_input, as_patches, check_network

pytestmark = pytest.mark.usefixtures("one_thread", "quick_training")

SIZE = (5.0, 5.0, 5.0)
FLAT = {"patch": (1, 32, 32), "width": 2, "batch": 2}
DEEP = {"patch": (8, 16, 16), "width": 2, "batch": 1}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A stack and its labels, as TIFF."""
    return write_annotated(tmp_path_factory.mktemp("stack"))


def pair(stack, **changes):
    return Pair(stack / "raw.tif", str(stack / "labels.tif"), **changes)


def recipe(architecture, **changes):
    two = find_architecture(architecture).dimensions == 2
    small = {**(FLAT if two else DEEP), "steps": 4, "validate_every": 2, "learning_rate": 1e-2}
    return build_config({"architecture": architecture, **small, **changes})


def run(stack, folder, config, progress=None, pairs=None, **changes):
    options = TrainOptions(
        output=folder, config=config, **{"voxel_size": SIZE, "workers": 1, **changes}
    )
    return train(pairs or [pair(stack)], options, progress or NoProgress())


RESUMED = {
    "slices": ("unet2d", {}),
    "attention, Adam, steps, epochs": (
        "attention-unet",
        {"optimizer": "adam", "schedule": "step", "epochs": 1, "steps": None, "batch": 4},
    ),
    "volumes": ("unet3d", {}),
    "no average, constant rate": ("unet3d", {"ema": 0.0, "schedule": "constant", "clip": 0.0}),
    "a part of the slices": ("unet2d", {"fraction": 0.3, "loss": "square-dice"}),
}


@pytest.mark.parametrize("case", RESUMED)
def test_killed_and_resumed_is_undisturbed_to_the_bit(stack, tmp_path, monkeypatch, case):
    monkeypatch.setattr(train_loop, "CHECKPOINT_SECONDS", 0.0)
    architecture, changes = RESUMED[case]
    config = recipe(architecture, **changes)
    run(stack, tmp_path / "a" / "run", config)
    with pytest.raises(Killed):
        run(stack, tmp_path / "b" / "run", config, KilledAt(3))
    run(stack, tmp_path / "b" / "run", config, workers=3)
    ours, theirs = (
        load_checkpoint(tmp_path / f / "run" / "checkpoint.safetensors") for f in ("b", "a")
    )
    assert ours.step == theirs.step
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours.tensors[k], v) for k, v in theirs.tensors.items())
    logs = [timeless(read_log(tmp_path / f / "run")) for f in ("b", "a")]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("architecture", ["unet2d-plain", "unet2d-valid", "attention-unet3d"])
def test_other_networks_train_and_say_how_they_are_tiled(stack, tmp_path, architecture):
    changes = {"patch": (1, 188, 188)} if architecture == "unet2d-valid" else {}
    if architecture == "attention-unet3d":
        changes = {"patch": (16, 16, 32)}
    config = recipe(architecture, steps=1, **changes)
    report = run(stack, tmp_path / "run", config)
    card = load_card(report.weights)
    assert (card.architecture, card.width) == (architecture, config.width)
    assert card.training["recipe"]["loss"] == "bce-dice"


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_defaults_suit_every_network(architecture):
    config = build_config({"architecture": architecture, "steps": 1})
    form = check_network(config)
    tile, overlap = choose_tiles(form, config.patch)
    form.input_shape(tile)
    for n, shared, stride in zip(tile, overlap, form.stride, strict=True):
        assert (n - shared) % stride == 0
        assert 0 <= 2 * shared <= n


@pytest.mark.parametrize(
    ("architecture", "tile", "overlap"),
    [
        ("emnet", (112, 160, 160), (16, 16, 16)),
        ("unet3d", (112, 160, 160), (16, 16, 16)),
        ("unet2d", (8, 576, 576), (0, 48, 48)),
        ("unet2d-valid", (8, 564, 564), (0, 52, 52)),
        ("unet2d-depth5", (8, 576, 576), (0, 64, 64)),
        # its margin holds what it sees of other slices; in a slice it needs what unet2d does
        ("unet2d-neighbours", (8, 576, 576), (0, 48, 48)),
    ],
)
def test_tiles_overlap_by_what_a_network_sees(architecture, tile, overlap):
    form = find_architecture(architecture)
    assert choose_tiles(form, (32, 96, 96)) == (tile, overlap)
    assert form.find_misfit(tile, overlap) is None
    if form.stride[0] == 1:
        assert choose_tiles(form, (3, 16, 16)) == (tile, overlap)


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_every_loss_trains(loss):
    config = recipe("unet2d", loss=loss)
    cpu = torch.device("cpu")
    run = start_run(config, None, cpu, torch.float32)
    raw = torch.randn(2, 1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    batch = raw, (raw > 0.5).float(), torch.zeros_like(raw)
    found = [train_loop.take_step(run, batch) for _ in range(12)]
    assert found[-1] < found[1]


def test_what_nobody_annotated_has_no_say():
    config = recipe("unet3d", loss="bce")
    run = start_run(config, None, torch.device("cpu"), torch.float32)
    run.network.eval()
    generator = torch.Generator().manual_seed(1)
    raw = torch.randn(1, 1, 8, 16, 16, generator=generator)
    target = (raw > 0).float()
    target[:, :, 3:] = -1
    loss = train_loop.batch_loss(run, (raw, target, torch.zeros_like(raw)))
    logits = run.network(raw)[:, :, :3]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target[:, :, :3])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_batch_of_which_nothing_is_known_moves_nothing():
    config = recipe("unet3d", loss="bce", weight_decay=0.0)
    run = start_run(config, None, torch.device("cpu"), torch.float32)
    before = [p.clone() for p in run.network.parameters()]
    raw = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    batch = raw, torch.full_like(raw, -1), torch.zeros_like(raw)
    assert train_loop.take_step(run, batch) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, run.network.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changes", "difference"),
    [({"share": 2.0}, "share"), ({"voxel_size": (20.0, 5.0, 5.0)}, "voxel size")],
)
def test_a_run_goes_on_only_with_the_same_shares_and_sizes(stack, tmp_path, changes, difference):
    config = recipe("unet2d", resample_to=(10.0, 10.0, 10.0), steps=2)
    first = {"share": 1.0, "voxel_size": SIZE}
    run(stack, tmp_path / "run", config, pairs=[pair(stack, **first)], voxel_size=None)
    with pytest.raises(ConflictError, match=difference):
        run(stack, tmp_path / "run", config, pairs=[pair(stack, **{**first, **changes})],
            voxel_size=None)  # fmt: skip


def test_a_recipe_repeats_shares_and_sizes_of_each_pair(stack, tmp_path):
    config = recipe("unet2d", resample_to=(10.0, 10.0, 10.0), steps=2)
    pairs = [
        pair(stack, share=3.0, voxel_size=SIZE),
        pair(stack, share=1.0, voxel_size=(40.0, 10.0, 10.0)),
    ]
    report = run(stack, tmp_path / "run", config, pairs=pairs, voxel_size=None)
    again = load_recipe(tmp_path / "run" / "recipe.toml")
    assert [(p.share, p.voxel_size) for p in again.pairs] == [
        (3.0, SIZE),
        (1.0, (40.0, 10.0, 10.0)),
    ]
    repeated = run(stack, tmp_path / "b" / "run", build_config(again.config),
                   pairs=again.pairs, voxel_size=None)  # fmt: skip
    assert load_card(repeated.weights).sha256 == load_card(report.weights).sha256


def test_patches_too_small_for_batch_norm_are_refused():
    with pytest.raises(ParameterError, match=r"a single voxel .* --patch or a larger --batch"):
        check_network(recipe("attention-unet3d", patch=(16, 16, 16)))
    check_network(recipe("attention-unet3d", patch=(16, 16, 16), batch=2))
    with pytest.raises(ParameterError, match="a single voxel at its deepest level"):
        check_network(recipe("unet2d-neighbours", patch=(3, 16, 16)))
    check_network(recipe("unet2d-neighbours", patch=(4, 16, 16)))
    check_network(recipe("unet2d-plain", patch=(1, 16, 16), batch=1))


def test_slices_are_fed_as_a_batch_and_come_back_in_place():
    form = find_architecture("unet2d")
    raw = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 1, 3, 4, 5)
    fed = as_input(raw, form)
    assert fed.shape == (6, 1, 4, 5)
    assert torch.equal(fed[4, 0], raw[1, 0, 1])
    assert torch.equal(as_patches(fed, 2, form), raw)


@pytest.mark.parametrize("architecture", ["unet2d", "unet3d"])
def test_gradients_can_be_trusted_at_the_precision_that_is_chosen(architecture):
    shape = {"patch": (1, 64, 64)} if architecture == "unet2d" else {"patch": (24, 32, 32)}
    config = recipe(architecture, **{**shape, "width": 4})
    assert gradient_agreement(config, 2, seed=2) > 0.97


def test_a_run_starts_from_weights_and_notes_them(stack, tmp_path):
    first = run(stack, tmp_path / "first", recipe("unet2d"))
    config = build_config({**FLAT, "steps": 1}, str(first.weights))
    assert (config.architecture, config.width, config.learning_rate) == ("unet2d", 2, 2e-4)
    assert config.augmentation == CALM
    other = {**FLAT, "steps": 1, "augmentation": Augmentation()}
    assert build_config(other, str(first.weights)).augmentation == Augmentation()
    frozen = dataclasses.replace(config, learning_rate=1e-12, ema=0.0)  # norms are, already
    report = run(stack, tmp_path / "second", frozen, start=str(first.weights))
    ours, theirs = (
        load_checkpoint(f / "checkpoint.safetensors")
        for f in (tmp_path / "second", tmp_path / "first")
    )
    del theirs

    start = load_weights(first.weights, load_card(first.weights))
    for name, tensor in start.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(
                ours.tensors[f"network.{name}"], tensor, atol=1e-8, rtol=1e-5
            )
    origin = load_card(report.weights).training["from"]
    assert origin["sha256"] == load_card(first.weights).sha256
    wider = dataclasses.replace(config, width=4)
    with pytest.raises(ParameterError, match="has the width 2, the recipe says 4"):
        run(stack, tmp_path / "third", wider, start=str(first.weights))
    other = TrainOptions(
        output=tmp_path / "fourth",
        config=config,
        start=str(first.weights),
        voxel_size=(9.0, 9.0, 9.0),
    )
    with pytest.warns(UserWarning, match=r"was trained on voxels of 5 x 5 x 5 nm, "):
        train([pair(stack)], other, NoProgress())


def test_a_run_that_no_longer_improves_stops_and_stays_stopped(stack, tmp_path, monkeypatch):
    config = recipe("unet2d", steps=40, validate_every=1, patience=2)
    worse = iter(np.linspace(0.9, 0.1, 100))
    result = train_loop.validate

    def falling(*arguments):
        first, *others = result(*arguments)
        return [dataclasses.replace(first, jaccard=float(next(worse))), *others]

    monkeypatch.setattr(train_loop, "validate", falling)
    report = run(stack, tmp_path / "run", config)
    assert (report.step, report.stopped_early, report.best["step"]) == (3, True, 1)
    again = run(stack, tmp_path / "run", config)
    assert (again.steps_now, again.stopped_early) == (0, True)


def test_a_recipe_repeats_a_run_to_the_bit_and_refuses_other_data(stack, tmp_path):
    first = run(stack, tmp_path / "first", recipe("unet2d", fraction=0.5), name="mine")
    found = load_recipe(tmp_path / "first" / "recipe.toml")
    assert found.run["name"] == "mine"
    config = TrainConfig(**found.config)
    assert config == recipe("unet2d", fraction=0.5)
    again = train(
        found.pairs,
        TrainOptions(output=tmp_path / "again", config=config, **found.run),
        NoProgress(),
    )
    assert load_card(again.weights).sha256 == load_card(first.weights).sha256
    other = dataclasses.replace(found.pairs[0], labels_fingerprint="0" * 64)
    with pytest.raises(Exception, match="is not what the recipe was made with"):
        train(
            [other], TrainOptions(output=tmp_path / "x", config=config, **found.run), NoProgress()
        )


def test_a_full_disk_leaves_the_checkpoint_before_intact(stack, tmp_path, monkeypatch):
    from volseg.storage import checkpoints

    config, save = recipe("unet2d"), checkpoints.save_file
    calls = []

    def full(tensors, path, metadata=None):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"part of a checkpoint")
            raise OSError(28, "No space left on device")
        save(tensors, path, metadata)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(StorageError, match="No space left on device; the one before it stands"):
        run(stack, tmp_path / "run", config)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").step == 0
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_every_validation_is_drawn(stack, tmp_path, pictures):
    run(stack, tmp_path / "run", recipe("unet2d"))
    curves = tmp_path / "run" / "curves.png"
    samples = sorted((tmp_path / "run" / "samples").iterdir())
    names = ["step-0000000-patches.png", "step-0000002.png", "step-0000004.png"]
    assert [s.name for s in samples] == names
    for path in (curves, *samples):
        assert path.read_bytes().startswith(b"\x89PNG")
    logged = read_numbers(tmp_path / "run" / "log.csv")
    assert [row["step"] for row in logged] == [2, 4]
    assert logged[0]["dice"] == pytest.approx(
        2 * logged[0]["jaccard"] / (1 + logged[0]["jaccard"]), abs=1e-5
    )


def test_without_matplotlib_a_note_is_given_once_and_the_run_goes_on(stack, tmp_path, monkeypatch):
    monkeypatch.setattr(train_record, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="matplotlib and tensorboard are not installed") as caught:
        run(stack, tmp_path / "run", recipe("unet2d", steps=2, validate_every=1))
    assert len(caught) == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["architecture"] == "unet2d"


class Writer:
    """Stands for TensorBoard's."""

    def __init__(self):
        self.scalars, self.images, self.closed = [], [], False

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def add_image(self, name, image, step, dataformats):
        assert image.shape[2] == 3
        assert dataformats == "HWC"
        self.images.append((name, step))

    def flush(self):
        pass

    def close(self):
        self.closed = True


def test_tensorboard_is_told_where_it_is_installed(stack, tmp_path, monkeypatch):
    from volseg.stages.train import run as stage

    writer = Writer()
    monkeypatch.setattr(
        stage,
        "open_record",
        lambda folder, sources, step: train_record.Record(folder, sources, writer),
    )
    run(stack, tmp_path / "run", recipe("unet2d"))
    assert ("jaccard", 4) in [(name, step) for name, _, step in writer.scalars]
    assert writer.images == [("labels", 2), ("found", 2), ("labels", 4), ("found", 4)]
    assert writer.closed


def test_a_network_of_several_maps_is_trained_validated_and_written_in_its_card(stack, tmp_path):
    classes = {"classes": ("cells", "bright=bright.tif"), "auxiliary": ("contour", "distance")}
    config = recipe("unet2d", **classes, map_weights={"cells-contour": 2.0}, steps=2)
    data = [Pair(stack / "raw.tif", str(stack / "labels.tif"))]
    with pytest.raises(ParameterError, match="class cells has no labels"):
        train(
            data, TrainOptions(output=tmp_path / "a", config=config, voxel_size=SIZE), NoProgress()
        )
    config = dataclasses.replace(config, classes=("cells=labels.tif", "bright=bright.tif"))
    labels = tifffile.imread(stack / "labels.tif")
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    tifffile.imwrite(tmp_path / "bright.tif", (labels > 3).astype(np.uint8))
    data = [Pair(stack / "raw.tif", str(tmp_path))]
    options = TrainOptions(output=tmp_path / "b", config=config, voxel_size=SIZE)
    report = train(data, options, NoProgress())
    card = load_card(report.weights)
    names = ["cells", "bright", "cells-contour", "cells-distance"]
    assert [m.name for m in card.maps] == names
    assert [m.threshold for m in card.maps[:2]] == [
        pytest.approx(report.best[f"threshold {name}"]) for name in names[:2]
    ]
    mean = np.mean([report.best[f"jaccard {name}"] for name in names[:2]])
    assert report.best["jaccard"] == pytest.approx(mean, abs=1e-5)
    assert load_weights(report.weights, card)["head.bias"].shape == (4,)
    again = load_recipe(tmp_path / "b" / "recipe.toml")
    assert build_config(again.config).maps == config.maps
    # from such weights, the same maps are learned
    assert build_config({"steps": 1}, str(report.weights)).auxiliary == tuple(names[2:])


def test_em_net_learns_centerlines_beside_other_maps(stack, tmp_path):
    config = recipe("emnet", width=8, patch=(8, 16, 16), auxiliary=("contour",), steps=1)
    assert [m.kind for m in config.maps] == ["class", "contour", "centerline"]
    report = train(
        [pair(stack)],
        TrainOptions(output=tmp_path / "a", config=config, voxel_size=SIZE),
        NoProgress(),
    )
    assert load_card(report.weights).outputs == 2
    with pytest.raises(ParameterError, match="gives no centerlines"):
        recipe("unet2d", auxiliary=("centerline",))


@pytest.mark.parametrize(
    ("name", "patch"), [("unet2d", None), ("unet3d", (8, 16, 16)), ("emnet", (8, 16, 16))]
)
def test_offsets_are_learned_validated_and_kept_in_the_card(stack, tmp_path, name, patch):
    told = {} if patch is None else {"width": 8, "patch": patch}
    config = recipe(name, **told, auxiliary=("offset",), steps=2, offset_reach=16.0)
    options = TrainOptions(output=tmp_path / "a", config=config, voxel_size=SIZE)
    report = train([pair(stack)], options, NoProgress())
    card = load_card(report.weights)
    vectors = [m for m in card.maps if m.kind.startswith("offset")]
    assert [m.name for m in vectors] == [f"mitochondria-offset-{axis}" for axis in "zyx"]
    assert {m.reach_nm for m in vectors} == {16.0 * min(SIZE[1:] if patch is None else SIZE)}
    assert all(0 <= report.best[f"error_nm {m.name}"] < 2 * m.reach_nm for m in vectors)
    assert not [k for k in report.best if k.startswith("jaccard mitochondria-offset")]
    assert card.splitting["mitochondria"]["votes"] > 0
    again = build_config({"steps": 1}, str(report.weights))
    assert again.maps == config.maps
