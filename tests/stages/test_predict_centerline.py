"""Centerlines beside the mask: one pass, the same bytes for any cut and kill, never outdated."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from toy_kills import SLOW_PREDICTION, kill_until_done, live_longer_each_time
from toy_predictions import exact_options, read_map, slide_window
from toy_volumes import write_raw
from toy_weights import card_content
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.engine.run import same_workers
from volseg.errors import BlockError, ConflictError, ModelError
from volseg.geometry.grid import full_roi
from volseg.models.emnet import EMNet
from volseg.stages.label.source import open_guide
from volseg.stages.predict import tasks as predict_block
from volseg.stages.predict.network import note_untaught
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.stages.verify.run import VerifyOptions, verify
from volseg.storage.cards import load_card
from volseg.storage.results import fingerprint
from volseg.storage.volumes import open_image, probabilities_path, volume_tone
from volseg.storage.weights import load_weights, save_weights
from volseg.voxels.blend import FULL
from volseg.voxels.downsample import reduce_mean

SHAPE = (20, 70, 60)
TILE, OVERLAP = (12, 32, 32), (4, 8, 8)
NAME, LINES = "mitochondria", "mitochondria-centerline"


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One for all tests: to start it takes longer than to segment a small volume."""
    with same_workers(EngineOptions(workers=2)):
        yield


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)


@pytest.fixture(scope="module")
def model(lines_model):
    return str(lines_model)


@pytest.fixture
def volume(raw, tmp_path):
    return write_raw(tmp_path / "vol.zarr", raw)


def options(model, block=(8, 32, 32), workers=2, **more):
    return exact_options(model, block, workers, **{"store_centerline": True, **more})


def files(volume, name):
    folder = probabilities_path(volume, name)
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def reference(raw, model, tmp_path_factory):
    """The files of both images, from one block."""
    volume = write_raw(tmp_path_factory.mktemp("reference") / "vol.zarr", raw)
    predict(plan_prediction(volume, options(model, SHAPE, 1)), NoProgress())
    return volume


def evaluate(network, tile, averaged):
    """Average both outputs over flips and rotations, each turned back by hand."""
    looks = [()]
    if averaged.get("tta"):
        looks = [f for n in range(4) for f in itertools.combinations((0, 1, 2), n)]
    turns = (0, 1) if averaged.get("rotations") else (0,)
    found = []
    for flips, turn in itertools.product(looks, turns):
        seen = np.ascontiguousarray(np.rot90(np.flip(tile, flips), turn, (1, 2)))
        with torch.inference_mode():
            both = network.both(torch.from_numpy(seen)[None, None])
        maps = [m.sigmoid().numpy()[0, 0] for m in both]
        found.append([np.flip(np.rot90(m, -turn, (1, 2)), flips) for m in maps])
    return np.mean(found, axis=0)


def sliding_windows(raw, model, volume, averaged):
    """Slide a window over the whole volume in memory, for both maps."""
    card = load_card(model)
    network = EMNet(8).eval()
    network.load_state_dict(dict(load_weights(model, card)))
    tone = volume_tone(open_image(volume), card.preprocessing)
    (lattice,) = plan_prediction(volume, options(model)).handover.lattices
    return slide_window(lambda tile: evaluate(network, tile, averaged), tone(raw), lattice.axes)


@pytest.mark.parametrize(
    ("shape", "averaged"),
    [(SHAPE, {}), ((9, 30, 30), {"tta": True, "rotations": True})],
)
def test_both_maps_equal_a_plain_sliding_window(raw, model, tmp_path, shape, averaged):
    raw = raw[full_roi(shape)]
    volume = write_raw(tmp_path / "vol.zarr", raw)
    predict(plan_prediction(volume, options(model, **averaged)), NoProgress())
    plain = sliding_windows(raw, model, volume, averaged)
    for name, expected in zip((NAME, LINES), plain, strict=True):
        assert expected.std() > 0.02, "a constant would prove nothing"
        assert abs(expected * 255 - read_map(volume, name)).max() < 0.5 + 8 * 255 / FULL
    assert abs(plain[0] - plain[1]).max() > 0.2


@pytest.mark.parametrize(
    ("block", "workers", "shard"),
    [((8, 32, 32), 2, (8, 32, 32)), ((16, 32, 64), 1, (4, 16, 16)), ((8, 64, 32), 2, SHAPE)],
)
def test_both_are_the_same_for_any_blocks_workers_and_chunks(
    raw, model, reference, tmp_path, block, workers, shard
):
    volume = write_raw(tmp_path / "vol.zarr", raw, shard)
    predict(plan_prediction(volume, options(model, block, workers, shard=shard)), NoProgress())
    for name in (NAME, LINES):
        np.testing.assert_array_equal(read_map(volume, name), read_map(reference, name))


def test_the_mask_has_the_same_files_whether_or_not_centerlines_are_stored(raw, model, tmp_path):
    plain, both = (write_raw(tmp_path / f"{k}.zarr", raw) for k in range(2))
    predict(plan_prediction(plain, options(model, store_centerline=False)), NoProgress())
    predict(plan_prediction(both, options(model)), NoProgress())
    assert files(plain, NAME) == files(both, NAME)
    assert not probabilities_path(plain, LINES).exists()


def test_centerlines_are_an_image_of_their_own_that_splitting_accepts(reference):
    image, mask = (open_image(probabilities_path(reference, n)) for n in (LINES, NAME))
    assert image.attributes["run"] == {**mask.attributes["run"], "output": "centerline"}
    assert image.attributes["fingerprint"] == fingerprint(image.attributes["run"])
    assert image.attributes["model"] == mask.attributes["model"]
    assert image.levels[0].shard == mask.levels[0].shard
    assert [a.shape for a in image.levels] == [a.shape for a in mask.levels]
    coarse = image.levels[1][full_roi(image.levels[1].shape)]
    np.testing.assert_array_equal(coarse, reduce_mean(read_map(reference, LINES), (2, 2, 2)))
    assert open_guide(open_image(reference), NAME, "centerline", "centerline").path == image.path


def test_each_tile_is_evaluated_once_for_both(model, volume, monkeypatch):
    calls, real = [], EMNet.features

    def counting(self, x):
        calls.append(x)
        return real(self, x)

    monkeypatch.setattr(EMNet, "features", counting)
    report = predict(plan_prediction(volume, options(model)), NoProgress())
    assert len(calls) == report.tiles == plan_prediction(volume, options(model)).tiles


def test_centerlines_of_a_complete_mask_are_added_and_the_mask_is_left_alone(
    model, volume, reference
):
    predict(plan_prediction(volume, options(model, store_centerline=False)), NoProgress())
    before = files(volume, NAME)
    changed = {p: p.stat().st_mtime_ns for p in probabilities_path(volume, NAME).rglob("*")}
    tiles = plan_prediction(volume, options(model)).tiles
    assert predict(plan_prediction(volume, options(model)), NoProgress()).tiles == tiles
    assert {p: p.stat().st_mtime_ns for p in changed} == changed
    assert files(volume, NAME) == before
    np.testing.assert_array_equal(read_map(volume, LINES), read_map(reference, LINES))
    for again in (True, False):
        report = predict(
            plan_prediction(volume, options(model, store_centerline=again)), NoProgress()
        )
        assert (report.tiles, report.resumed) == (0, True)
    assert open_guide(open_image(volume), NAME, "centerline", "centerline").attributes["complete"]


@pytest.mark.parametrize("first", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_after_a_failure_between_both_writes_the_same_command_completes_them(
    model, volume, reference, monkeypatch, first
):
    if first:
        predict(plan_prediction(volume, options(model, store_centerline=False)), NoProgress())
    real, calls = predict_block.to_probabilities, []

    def broken(shares):
        calls.append(shares)
        # an even one is that of centerlines, after their mask has been written
        if len(calls) >= 6:
            raise OSError("no space left")
        return real(shares)

    with monkeypatch.context() as patch:
        patch.setattr(predict_block, "to_probabilities", broken)
        with pytest.raises(BlockError, match="no space left"):
            predict(plan_prediction(volume, options(model, workers=1)), NoProgress())
    assert not open_image(probabilities_path(volume, LINES)).attributes["complete"]
    report = predict(plan_prediction(volume, options(model)), NoProgress())
    assert (report.tiles, report.resumed) == (0, True), "the pieces were still there"
    for name in (NAME, LINES):
        np.testing.assert_array_equal(read_map(volume, name), read_map(reference, name))
        assert open_image(probabilities_path(volume, name)).attributes["complete"]


def interrupt(volume, chosen, monkeypatch):
    """Leave a run whose blocks have all failed."""
    with monkeypatch.context() as patch:
        patch.setattr(predict_block, "to_probabilities", None)
        with pytest.raises(BlockError):
            predict(plan_prediction(volume, chosen), NoProgress())


@pytest.mark.parametrize("stored", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_interrupted_run_is_not_finished_as_another(model, volume, monkeypatch, stored):
    interrupt(volume, options(model, store_centerline=stored), monkeypatch)
    with pytest.raises(ConflictError, match=r"with (no )?centerlines; you ask for"):
        predict(plan_prediction(volume, options(model, store_centerline=not stored)), NoProgress())
    other = options(model, store_centerline=not stored, overwrite=True)
    assert predict(plan_prediction(volume, other), NoProgress()).tiles > 0
    assert probabilities_path(volume, LINES).exists() is not stored


def test_centerlines_never_outlive_their_mask(model, volume, monkeypatch):
    predict(plan_prediction(volume, options(model)), NoProgress())
    with pytest.raises(ConflictError, match=r"for the region .*; you ask for the region 0:8,"):
        predict(plan_prediction(volume, options(model, roi="0:8,:,:")), NoProgress())
    plain = {"roi": "0:8,:,:", "store_centerline": False, "overwrite": True}
    predict(plan_prediction(volume, options(model, **plain)), NoProgress())
    assert not probabilities_path(volume, LINES).exists()
    part = options(model, roi="0:8,:,:")
    interrupt(volume, part, monkeypatch)
    predict(
        plan_prediction(volume, options(model, store_centerline=False, overwrite=True)),
        NoProgress(),
    )
    left = (volume / ".volseg").glob(f"*{LINES}*")
    assert not [p for p in left if p.suffix != ".lock"], "a lock stays, for others wait at it"


def test_a_mask_of_such_a_name_is_nobodys_centerlines(model, volume):
    named = options(model, name=LINES, store_centerline=False)
    predict(plan_prediction(volume, named), NoProgress())
    before = files(volume, LINES)
    with pytest.raises(ConflictError, match="was made as a class; you ask for centerlines"):
        predict(plan_prediction(volume, options(model)), NoProgress())
    predict(plan_prediction(volume, options(model, store_centerline=False)), NoProgress())
    assert files(volume, LINES) == before


def test_verification_knows_centerlines(model, reference):
    chosen = VerifyOptions(sample=2, model=model, engine=EngineOptions(workers=1))
    report = verify(reference, chosen, NoProgress())
    assert report.ok, report.findings
    assert {s.array for s in report.sampled} == {f"probabilities/{n}" for n in (NAME, LINES)}
    assert {s.largest for s in report.sampled} == {0}


def test_networks_without_centerlines_are_refused_and_those_with_are_named(
    toy_model, volume, tmp_path
):
    path = tmp_path / "single.safetensors"
    network = EMNet(8, centerline=False)
    save_weights(path, network.state_dict(), card_content(toy_model, architecture="emnet-single"))
    with pytest.raises(ModelError, match=r"emnet-single give no centerlines.* emnet, emnet-paper"):
        predict(plan_prediction(volume, options(str(path))), NoProgress())
    assert not (volume / "probabilities").exists()


def test_a_network_that_never_learned_centerlines_is_noted(toy_model, volume, tmp_path):
    card = load_card(str(toy_model))
    assert note_untaught(card) == note_untaught(load_card("emnet")) == ()
    for recipe in ({"loss": "dice"}, {"loss": "emnet", "centerline_weight": 0}):
        content = card_content(toy_model, training={"recipe": recipe})
        path = tmp_path / "untaught.safetensors"
        save_weights(path, load_weights(toy_model, card), content)
        (note,) = plan_prediction(volume, options(str(path))).notes
        assert "trained without centerlines" in note
        assert plan_prediction(volume, options(str(path), store_centerline=False)).notes == ()


@pytest.mark.slow
def test_killed_at_random_moments_both_end_with_the_same_bytes(model, volume, reference):
    program = [SLOW_PREDICTION, volume, model, "--store-centerline"]
    kill_until_done(program, live_longer_each_time(random.Random(5)))
    for name in (NAME, LINES):
        np.testing.assert_array_equal(read_map(volume, name), read_map(reference, name))
    assert open_guide(open_image(volume), NAME, "centerline", "centerline").attributes["complete"]
