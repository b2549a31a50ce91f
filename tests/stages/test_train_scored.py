"""What a run says beside the overlap of voxels: the loss of held-out patches, and objects."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from toy_training import write_annotated
from toy_weights import write_weights
from volseg.geometry.grid import full_roi, roi_shape
from volseg.models.maps import build_maps
from volseg.stages.train import scored, touching
from volseg.stages.train.data import open_training_data
from volseg.stages.train.held_out import HeldOut
from volseg.stages.train.loop import batch_loss
from volseg.stages.train.regions import Pair
from volseg.stages.train.state import start_run
from volseg.storage.cards import load_card, update_card
from volseg.training.augmentation import Frame, Placement, draw_placement
from volseg.training.config import TrainConfig
from volseg.training.loader import draw_batch
from volseg.training.looks import apply_looks, draw_look
from volseg.training.sampling import Source
from volseg.training.splitting import Seeds
from volseg.training.tissue import MASK
from volseg.training.validation import read_window

SIZE = (5.0, 5.0, 5.0)


@pytest.fixture(scope="module")
def run_and_data(tmp_path_factory):
    folder = write_annotated(tmp_path_factory.mktemp("scored"), (16, 48, 48))
    config = TrainConfig(
        architecture="unet2d",
        width=4,
        patch=(1, 32, 32),
        batch=2,
        steps=2,
        ema=0.0,
        loss="bce-dice",
    )
    pair = Pair(folder / "raw.tif", str(folder / "labels.tif"))
    data = open_training_data([pair], config, SIZE)
    return start_run(config, None, torch.device("cpu"), torch.float32), data


def test_the_held_out_loss_is_that_of_training_on_patches_as_they_are(run_and_data):
    run, data = run_and_data
    found = scored.held_out_loss(run, data.validation, batch_loss)
    still = dataclasses.replace(run.config, augmentation=scored.STILL)
    seen = dataclasses.replace(run, network=run.averaged.eval())
    with torch.no_grad():
        losses = [
            float(batch_loss(seen, draw_batch(data.validation, still, step)))
            for step in range(scored.PATCHES)
        ]
    assert found == pytest.approx(np.mean(losses), rel=1e-6)


def test_with_all_probabilities_at_zero_a_patch_is_what_the_tissue_shows():
    rng, shape, centre = np.random.default_rng(3), (4, 8, 8), (5.0, 9.0, 7.0)
    for scale in ((1.0, 1.0, 1.0), (2.0, 1.0, 1.0)):
        drawn = draw_placement(rng, scored.STILL, shape, centre, Frame(True, False, scale))
        plain = Placement.plain(shape, centre, scale)
        for name in ("matrix", "centre", "order", "offsets"):
            np.testing.assert_allclose(getattr(drawn, name), getattr(plain, name), atol=1e-6)
        assert not drawn.knots.any()
        assert drawn.mirror is None
    raw = torch.rand(2, 1, *shape)
    looks = [draw_look(rng, scored.STILL, shape[0]) for _ in raw]
    assert torch.equal(apply_looks(raw.clone(), looks), raw)


def test_objects_of_windows_are_matched(run_and_data, monkeypatch):
    run, data = run_and_data

    def truth_of(_network, source, window, _form, _precision):
        mask = read_window(source, window)[MASK].numpy() >= 0.5
        return mask.astype(np.float32), mask

    monkeypatch.setattr(scored, "predict_window", truth_of)
    names = ("object_precision", "object_recall", "average_precision", "mean_average_precision")
    assert scored.score_held_out(run, data.validation, 0.5) == dict.fromkeys(names, 1.0)
    monkeypatch.setattr(scored, "predict_window", lambda *a: (truth_of(*a)[0] * 0, truth_of(*a)[1]))
    assert scored.score_held_out(run, data.validation, 0.5)["object_recall"] == 0


@pytest.mark.parametrize("images", [False, True])
def test_seeds_of_each_class_are_chosen_in_bounded_time(tmp_path, monkeypatch, images):
    maps = [dataclasses.asdict(m) for m in build_maps(["a", "b"], ["contour", "b-contour"])]
    maps[1] |= {"threshold": 0.7, "min_size": 9}
    tile, told = ((1, 32, 32), (0, 8, 8)), {"threshold": 0.4, "min_size": 5, "maps": maps}
    weights, asked = write_weights(tmp_path, "unet2d", *tile, **told), []

    def choose(regions, threshold, **rules):
        asked.append((threshold, rules["smallest"]))
        assert 0 < sum(r.truth.size for r in regions) <= touching.MOST
        return Seeds(0.5, 0.3, 1, 1.0, 1.0)

    monkeypatch.setattr(touching, "MOST", 1 << 17)
    monkeypatch.setattr(touching, "choose_seeds", choose)
    monkeypatch.setattr(
        touching, "_predict", lambda _h, _s, roi: np.zeros((4, *roi_shape(roi)), np.uint8)
    )
    monkeypatch.setattr(touching, "_truth", lambda _s, roi, *_: np.ones(roi_shape(roi), np.int64))
    box = slice(0, 16), slice(0, 128), slice(0, 128)
    source = Source(np.zeros((16, 128, 128)), None, box, None, np.zeros((0, 3)), False, planar=True)
    rules = torch.device("cpu"), torch.float32
    touching.choose_splitting(HeldOut(weights, [source], *rules, images))
    assert asked == [(0.4, 0 if images else 5), (0.7, 0 if images else 9)]


def test_objects_that_nobody_annotated_are_neither_right_nor_wrong(run_and_data, monkeypatch):
    run, data = run_and_data
    labels = np.zeros((4, 48, 48), np.int8)
    labels[:, 4:12, 4:12] = 1
    labels[:, :, 24:] = -1
    source = dataclasses.replace(
        data.validation[0], labels=labels, roi=full_roi(labels.shape), slices=None, partial=True
    )
    found = np.float32(labels == 1)
    found[:, 20:30, 30:40] = 1
    monkeypatch.setattr(
        scored, "predict_window", lambda _n, _s, window, *_: (found[window], (labels == 1)[window])
    )
    source = dataclasses.replace(source, raw=np.zeros(labels.shape, np.uint8))
    scores = scored.score_held_out(run, [source], 0.5)
    assert set(scores.values()) == {1.0}


def test_scores_on_the_training_data_that_are_lost_are_made_again(run_and_data, tmp_path):
    _, data = run_and_data
    weights = write_weights(tmp_path, "unet2d", (1, 32, 32), (0, 8, 8), 4, seed=2)
    held = HeldOut(weights, [], torch.device("cpu"), torch.float32)
    found = scored.note_training_scores(held, data.training)
    whole = load_card(weights).scores
    for lost in ("training Jaccard", "training precision", "training recall"):
        update_card(weights, {"scores": {k: v for k, v in whole.items() if k != lost}})
        assert scored.note_training_scores(held, data.training) == found
        assert load_card(weights).scores == whole
