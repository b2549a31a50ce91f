"""Prediction: the same bytes whatever the blocks, workers, chunks and kills; each tile once."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from toy_kills import SLOW_PREDICTION, kill_until_done, live_longer_each_time
from toy_predictions import exact_options, fail_in_a_block, read_map, slide_window
from toy_volumes import write_raw
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import BlockError, ConflictError, ParameterError, WorkError
from volseg.models.emnet import EMNet
from volseg.models.inference import build_predictor
from volseg.stages.predict import tasks as predict_block
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.storage.attributes import update_attributes
from volseg.storage.cards import load_card
from volseg.storage.volumes import open_image, probabilities_path, volume_tone
from volseg.storage.weights import load_weights
from volseg.voxels.blend import FULL, to_probabilities
from volseg.voxels.downsample import reduce_mean

SHAPE = (20, 70, 60)
TILE, OVERLAP = (12, 32, 32), (4, 8, 8)


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)


@pytest.fixture(scope="module")
def model(toy_model):
    return str(toy_model)


@pytest.fixture(scope="module")
def reference(raw, model, tmp_path_factory):
    volume = write_raw(tmp_path_factory.mktemp("reference") / "vol.zarr", raw)
    report = predict(plan_prediction(volume, exact_options(model)), NoProgress())
    assert report.tiles == plan_prediction(volume, exact_options(model)).tiles
    return read_map(volume)


def sliding_window(raw, model, volume, tile=None):
    """Slide a window over the whole volume in memory."""
    card = load_card(model)
    predictor = build_predictor(
        EMNet(8), load_weights(model, card), torch.device("cpu"), torch.float32
    )
    tone = volume_tone(open_image(volume), card.preprocessing)
    (lattice,) = plan_prediction(volume, exact_options(model, tile=tile)).handover.lattices
    return slide_window(predictor, tone(raw), lattice.axes)


def test_equals_a_plain_sliding_window(raw, model, reference, tmp_path):
    plain = sliding_window(raw, model, write_raw(tmp_path / "vol.zarr", raw))
    assert plain.std() > 0.05, "a constant would prove nothing"
    assert abs(plain * 255 - reference).max() < 0.5 + 8 * 255 / FULL
    rounded = to_probabilities(np.rint(plain * FULL).astype(np.uint16))
    assert (rounded != reference).mean() < 0.01, "only exact halves may round otherwise"


def test_tiles_may_be_smaller_where_memory_is_short(raw, model, tmp_path):
    raw, tile = raw[:12, :36, :30], (8, 16, 16)
    volume = write_raw(tmp_path / "vol.zarr", raw)
    predict(plan_prediction(volume, exact_options(model)), NoProgress())
    usual = read_map(volume)
    with pytest.raises(ConflictError, match=r"was made in tiles of .*; you ask for tiles of"):
        predict(plan_prediction(volume, exact_options(model, tile=tile)), NoProgress())
    predict(plan_prediction(volume, exact_options(model, tile=tile, overwrite=True)), NoProgress())
    found = read_map(volume)
    assert abs(sliding_window(raw, model, volume, tile) * 255 - found).max() < 1
    assert (found != usual).any(), "tiles decide the result, so another one is refused"
    with pytest.raises(ParameterError, match=r"multiples of .4, 8, 8.*found --tile .8, 20, 16"):
        predict(
            plan_prediction(volume, exact_options(model, tile=(8, 20, 16), overwrite=True)),
            NoProgress(),
        )
    assert (read_map(volume) == found).all()


@pytest.mark.parametrize(
    ("block", "workers", "shard"),
    [
        ((24, 96, 64), 1, (8, 32, 32)),
        ((8, 32, 32), 3, (8, 32, 32)),
        ((16, 32, 64), 2, (4, 16, 16)),
        ((8, 64, 32), 2, (20, 70, 60)),
    ],
)
def test_same_bytes_for_any_blocks_workers_and_chunks(
    raw, model, reference, tmp_path, block, workers, shard
):
    volume = write_raw(tmp_path / "vol.zarr", raw, shard=shard)
    predict(plan_prediction(volume, exact_options(model, block, workers)), NoProgress())
    assert (read_map(volume) == reference).all()


def test_progress_moves_within_a_block(raw, model, tmp_path):
    class Counted(NoProgress):
        def __init__(self):
            self.jobs = []

        def start(self, total, unit, title):
            self.jobs.append([total])

        def advance(self, n):
            self.jobs[-1].append(n)

    progress = Counted()
    plan = plan_prediction(write_raw(tmp_path / "vol.zarr", raw), exact_options(model, SHAPE))
    assert len(list(plan.handover.targets())) == 1 < plan.tiles
    predict(plan, progress)
    total, *steps = progress.jobs[0]
    assert len([n for n in steps if n]) >= plan.tiles
    assert sum(steps) == total == raw.size


def test_each_tile_is_evaluated_exactly_once(raw, model, tmp_path, monkeypatch):
    calls = []
    original = predict_block.predictor_for

    def counting(*arguments):
        predictor = original(*arguments)

        def evaluate(tile, needed, axis):
            calls.append(hash(tile.numpy().tobytes()))
            return predictor.evaluate(tile, needed, axis)

        return SimpleNamespace(evaluate=evaluate)

    monkeypatch.setattr(predict_block, "predictor_for", counting)
    volume = write_raw(tmp_path / "vol.zarr", raw)
    report = predict(plan_prediction(volume, exact_options(model, workers=3)), NoProgress())
    planned = plan_prediction(volume, exact_options(model)).tiles
    assert len(calls) == len(set(calls)) == report.tiles == planned


def test_a_roi_gives_the_same_voxels_and_zero_elsewhere(raw, model, reference, tmp_path):
    volume = write_raw(tmp_path / "vol.zarr", raw)
    predict(plan_prediction(volume, exact_options(model, roi="3:13,10:41,:50")), NoProgress())
    expected = np.zeros_like(reference)
    box = (slice(3, 13), slice(10, 41), slice(0, 50))
    expected[box] = reference[box]
    assert (read_map(volume) == expected).all()


def test_a_second_run_evaluates_nothing_and_another_model_is_refused(raw, model, tmp_path):
    volume = write_raw(tmp_path / "vol.zarr", raw)
    predict(plan_prediction(volume, exact_options(model)), NoProgress())
    assert predict(plan_prediction(volume, exact_options(model)), NoProgress()).tiles == 0
    with pytest.raises(ConflictError, match=r"for the region .*; you ask for the region 0:8,"):
        predict(plan_prediction(volume, exact_options(model, roi="0:8,:,:")), NoProgress())
    report = predict(
        plan_prediction(volume, exact_options(model, roi="0:8,:,:", overwrite=True)), NoProgress()
    )
    assert report.tiles > 0


def test_a_failed_block_is_reported_and_only_the_missing_is_done_again(
    raw, model, reference, tmp_path, monkeypatch
):
    volume = write_raw(tmp_path / "vol.zarr", raw)
    fail_in_a_block(volume, exact_options(model), monkeypatch)
    assert open_image(probabilities_path(volume, "mitochondria")).attributes["complete"] is False
    report = predict(plan_prediction(volume, exact_options(model)), NoProgress())
    assert report.tiles == 0, "the pieces were still there"
    assert (read_map(volume) == reference).all()


def test_lost_pieces_are_evaluated_again_and_no_more(raw, model, reference, tmp_path, monkeypatch):
    volume = write_raw(tmp_path / "vol.zarr", raw)
    fail_in_a_block(volume, exact_options(model), monkeypatch)
    for piece in (volume / ".volseg").glob("predict-*/to-1-1-1/*"):
        piece.unlink()
    total = plan_prediction(volume, exact_options(model)).tiles
    assert 0 < predict(plan_prediction(volume, exact_options(model)), NoProgress()).tiles < total
    assert (read_map(volume) == reference).all()


@pytest.mark.parametrize("when", ["complete", "unfinished"])
def test_what_was_removed_is_made_again_whatever_is_on_record(
    raw, model, reference, tmp_path, monkeypatch, when
):
    volume = write_raw(tmp_path / "vol.zarr", raw)
    if when == "complete":
        predict(plan_prediction(volume, exact_options(model)), NoProgress())
    else:
        monkeypatch.setattr("volseg.stages.predict.run.build_pyramid", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict(plan_prediction(volume, exact_options(model)), NoProgress())
        monkeypatch.undo()
    shutil.rmtree(probabilities_path(volume, "mitochondria"))
    assert predict(plan_prediction(volume, exact_options(model)), NoProgress()).tiles > 0
    assert (read_map(volume) == reference).all()


def test_an_image_that_was_begun_anew_meanwhile_is_not_called_complete(
    raw, model, tmp_path, monkeypatch
):
    volume = write_raw(tmp_path / "vol.zarr", raw)
    output = probabilities_path(volume, "mitochondria")
    monkeypatch.setattr(
        "volseg.stages.predict.run.build_pyramid",
        lambda *_, **__: update_attributes(output, {"mark": "of another run"}),
    )
    with pytest.raises(ConflictError, match="begun anew while it was written"):
        predict(plan_prediction(volume, exact_options(model)), NoProgress())
    assert open_image(output).attributes["complete"] is False


def test_values_that_are_not_finite_fail_the_block(raw, model, tmp_path, monkeypatch):
    broken = SimpleNamespace(evaluate=lambda tile, *_: torch.full_like(tile, torch.nan)[None])
    monkeypatch.setattr(predict_block, "predictor_for", lambda _: broken)
    with pytest.raises(BlockError, match="not finite"):
        predict(
            plan_prediction(write_raw(tmp_path / "vol.zarr", raw), exact_options(model)),
            NoProgress(),
        )


@pytest.mark.parametrize(("device", "needed"), [("cuda", {"Evaluate"}), ("cpu", set())])
def test_evaluating_tiles_is_all_that_needs_a_gpu(
    raw, model, tmp_path, monkeypatch, device, needed
):
    def stop(_, steps, *__, **more):
        found = {(type(s.item).__name__, s.on_gpu) for s in steps}
        assert {name for name, _ in found} == {"Evaluate", "Block"}
        raise WorkError(f"needed is { ({name for name, on_gpu in found if on_gpu}) }")

    monkeypatch.setattr("volseg.stages.predict.run.run_blocks", stop)
    volume = write_raw(tmp_path / "vol.zarr", raw)
    asked = replace(
        exact_options(model, device=device), engine=EngineOptions(scheduler="tcp://host:8786")
    )
    with pytest.raises(WorkError, match=f"needed is {needed}"):
        predict(plan_prediction(volume, asked), NoProgress())


def test_another_voxel_size_is_resampled_on_the_fly(model, tmp_path):
    z, y, x = np.indices((40, 96, 96))
    smooth = (127 + 120 * np.sin(z / 5) * np.sin(y / 7) * np.sin(x / 6)).astype(np.uint8)
    fine = write_raw(tmp_path / "fine.zarr", smooth, voxel_size=(2.5, 2.5, 2.5))
    coarse = write_raw(tmp_path / "coarse.zarr", reduce_mean(smooth, (2, 2, 2)))
    for volume in (fine, coarse):
        predict(plan_prediction(volume, exact_options(model)), NoProgress())
    small = open_image(probabilities_path(coarse, "mitochondria")).levels[0][0:20, 0:48, 0:48]
    large = open_image(probabilities_path(fine, "mitochondria")).levels[0][0:40, 0:96, 0:96]
    assert large.shape == (40, 96, 96)
    again = large.reshape(20, 2, 48, 2, 48, 2).mean(axis=(1, 3, 5))
    inside = (slice(2, -2), slice(4, -4), slice(4, -4))
    correlation = np.corrcoef(again[inside].ravel(), small[inside].ravel())[0, 1]
    assert correlation > 0.95


@pytest.mark.parametrize("size", [(2.5, 2.5, 2.5), None])
def test_a_zoom_is_another_voxel_size(model, tmp_path, size):
    """What is unknown is taken as the model's."""
    raw = np.random.default_rng(4).integers(1, 255, (24, 64, 64), dtype=np.uint8)
    said = write_raw(tmp_path / "said.zarr", raw, voxel_size=size)
    meant = write_raw(tmp_path / "meant.zarr", raw, voxel_size=(3.5, 3.5, 3.5))
    zoom = 3.5 / (size or load_card(model).voxel_size)[0]
    options = exact_options(model)
    predict(plan_prediction(said, replace(options, zoom=zoom)), NoProgress())
    predict(plan_prediction(meant, options), NoProgress())
    np.testing.assert_array_equal(read_map(said), read_map(meant))
    with pytest.raises(ConflictError, match=r"with a zoom of .*; you ask for no zoom"):
        predict(plan_prediction(said, options), NoProgress())


def test_a_zoom_beyond_reason_is_refused(model):
    for zoom in (0.0, -1.0, 21.0, float("nan")):
        with pytest.raises(ParameterError, match=r"zoom lies between 0\.05 and 20, found"):
            exact_options(model, zoom=zoom)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(raw, model, reference, tmp_path):
    volume = write_raw(tmp_path / "vol.zarr", raw)
    kill_until_done([SLOW_PREDICTION, volume, model], live_longer_each_time(random.Random(11)))
    assert (read_map(volume) == reference).all()
