"""Whether the median of slices is taken, and objects of single slices: chosen on held-out data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tifffile
import torch

from toy_training import STILL
from toy_weights import write_weights
from volseg.geometry.grid import roi_shape, roi_size
from volseg.stages.train import held_out as held_module
from volseg.stages.train import median, objects
from volseg.stages.train.data import open_training_data
from volseg.stages.train.held_out import HeldOut
from volseg.stages.train.median import CHOSEN, choose_median
from volseg.stages.train.objects import choose_objects
from volseg.stages.train.regions import Pair
from volseg.storage.cards import load_card, update_card
from volseg.training.config import TrainConfig
from volseg.training.tissue import RAW
from volseg.training.validation import read_window

SIZE = (30.0, 10.0, 10.0)
CPU = torch.device("cpu"), torch.float32


def toy(folder, architecture="unet2d", **told):
    """Write weights; no network of them is ever asked."""
    depth = 8 if architecture == "unet3d" else 1
    return write_weights(folder, architecture, (depth, 16, 16), (0, 0, 0), **told)


def see_raw(_network, source, window, _form, _precision):
    """Predict what is bright, as sure as it is bright."""
    found = read_window(source, window)
    return (found[RAW].numpy() + 1) / 2, found[1].numpy() >= 0.5


def held_out(folder, raw, labels, slices=None, validation="4:8,:,:", **recipe):
    """Open a stack whose later slices, or some of them, are held out."""
    tifffile.imwrite(folder / "raw.tif", raw)
    tifffile.imwrite(folder / "labels.tif", labels)
    pair = Pair(
        folder / "raw.tif", str(folder / "labels.tif"), validation=validation, slices=slices
    )
    config = TrainConfig(
        architecture="unet2d",
        width=2,
        patch=(1, 16, 16),
        batch=1,
        steps=1,
        augmentation=STILL,
        **recipe,
    )
    return open_training_data([pair], config, SIZE).validation


@pytest.fixture
def columns():
    """Bright columns; and specks, each in one slice."""
    raw = np.zeros((9, 48, 48), np.uint8)
    raw[:, 4:16, 4:16] = raw[:, 30:40, 8:20] = 255
    labels = (raw > 0).astype(np.uint8)
    for z in range(9):
        raw[z, 20 + z % 3 * 8 : 27 + z % 3 * 8, 30:40] = 255
    return raw, labels


@pytest.mark.parametrize("slices", [None, (0, 2, 5, 7)])
def test_the_median_is_taken_where_held_out_slices_gain(tmp_path, monkeypatch, columns, slices):
    monkeypatch.setattr(held_module, "predict_window", see_raw)
    weights = toy(tmp_path, median_nm=0.0)
    sources = held_out(tmp_path, *columns, slices=slices)
    noted = choose_median(HeldOut(weights, sources, *CPU))
    card = load_card(weights)
    assert (card.median_nm, card.training[CHOSEN]) == (35.0, noted)
    assert noted["with the median"] == 1.0
    area = 12 * 12 + 10 * 12
    assert noted["Jaccard"] == pytest.approx(area / (area + 70), abs=1e-4)
    # made once: what a card has on record stays
    update_card(weights, {"median_nm": 0.0})
    assert choose_median(HeldOut(weights, [], *CPU)) == noted
    assert load_card(weights).median_nm == 0.0


def test_slices_stay_as_far_apart_as_they_are_at_another_pixel(tmp_path, columns):
    """Networks of slices see thick ones as they are; those of cubes are resampled."""
    [source] = held_out(tmp_path, *columns, resample_to=(5.0, 5.0, 5.0))
    window = (slice(1, 2), slice(0, 8), slice(0, 8))
    assert [z.start for z, _, _ in median.neighbours(source, window, 35.0)] == [0, 2]
    assert [z.start for z, _, _ in median.neighbours(source, window, 65.0)] == [-1, 3]
    assert median.neighbours(source, window, 14.0) == []
    config = TrainConfig(architecture="unet2d", width=2, patch=(1, 16, 16), batch=1, steps=1)
    cubes = Pair(tmp_path / "raw.tif", str(tmp_path / "labels.tif"), validation="4:8,:,:")
    finer = dataclasses.replace(config, resample_to=(5.0, 5.0, 5.0))
    [source] = open_training_data([cubes], finer, (10.0, 10.0, 10.0)).validation
    assert [z.start for z, _, _ in median.neighbours(source, window, 35.0)] == [-6, 8]


def test_the_median_is_not_taken_where_objects_are_thin(tmp_path, monkeypatch, columns):
    monkeypatch.setattr(held_module, "predict_window", see_raw)
    weights = toy(tmp_path, median_nm=35.0)
    raw, _ = columns
    sources = held_out(tmp_path, raw, (raw > 0).astype(np.uint8))
    noted = choose_median(HeldOut(weights, sources, *CPU))
    assert (load_card(weights).median_nm, noted["nm"], noted["Jaccard"]) == (0.0, 0.0, 1.0)


def test_neighbours_lie_within_the_volume(tmp_path, monkeypatch, columns):
    """The last slice stands for what lies beyond it, as in `label`."""
    raw, labels = columns
    raw[8], labels[8] = 0, 0  # itself, and what stands for the next, are two of three
    raw[8, :20] = 255
    labels[8, :20] = 1
    monkeypatch.setattr(held_module, "predict_window", see_raw)
    sources = held_out(tmp_path, raw, labels, validation="8:9,:,:")
    noted = choose_median(HeldOut(toy(tmp_path), sources, *CPU))
    assert (noted["Jaccard"], noted["with the median"]) == (1.0, 1.0)


def test_a_card_whose_rules_were_chosen_before_there_was_a_median_stays(tmp_path, columns):
    """A run that an earlier version finished is left as it is."""
    weights, noted = toy(tmp_path, median_nm=0.0), {"not chosen": "no two held-out slices"}
    update_card(weights, {"training": {**load_card(weights).training, "objects": noted}})
    before = weights.with_suffix(".json").read_bytes()
    sources = held_out(tmp_path, *columns, slices=(0, 2, 5, 7))
    assert choose_median(HeldOut(weights, sources, *CPU)) == {}
    assert choose_objects(HeldOut(weights, sources, *CPU)) == noted
    assert weights.with_suffix(".json").read_bytes() == before


@pytest.mark.parametrize(("images", "architecture"), [(True, "unet2d"), (False, "unet3d")])
def test_images_and_networks_of_volumes_have_no_median(tmp_path, columns, images, architecture):
    weights = toy(tmp_path, architecture)
    sources = held_out(tmp_path, *columns)
    assert choose_median(HeldOut(weights, sources, *CPU, images)) == {}
    assert load_card(weights).median_nm == 0


def test_single_slices_choose_a_threshold_and_a_mean(tmp_path, monkeypatch, columns):
    """Objects of 0.8 are wrong, those of 1 right, and of 0.65 at their border."""
    raw, labels = columns
    raw[(raw > 0) & (labels == 0)] = 204
    raw[:, 4:16, 16:18], labels[:, 4:16, 16:18] = 165, 1
    monkeypatch.setattr(held_module, "predict_window", see_raw)
    weights = toy(tmp_path, min_size=7, threshold=0.7)
    sources = held_out(tmp_path, raw, labels, (0, 2, 5, 7))
    noted = choose_objects(HeldOut(weights, sources, *CPU))
    card = load_card(weights)
    area = 12 * 12 + 10 * 12
    assert noted["by"] == "Jaccard index of voxels in 2 single slices"
    assert (noted["Jaccard"], noted["Jaccard of all objects"]) == (
        1.0,
        pytest.approx(area / (area + 24 + 70), abs=1e-4),
    )
    assert (card.threshold, card.min_size, card.min_probability) == (0.5, 7, 0.85)
    assert card.training["objects"] == noted


@pytest.mark.parametrize(
    ("windows", "slices", "side"), [(48, 2, 48), (8, 2, 48), (5, 1, 48), (1, 1, 24)]
)
def test_of_single_slices_no_more_is_looked_at_than_by_a_validation(
    tmp_path, monkeypatch, columns, windows, slices, side
):
    monkeypatch.setattr(objects, "WINDOWS", windows)
    monkeypatch.setattr(objects, "CORES", {2: (1, 24, 24)})
    [source] = held_out(tmp_path, *columns, (0, 2, 5, 7))
    regions = objects._single_slices(source)
    assert [roi_shape(region) for region in regions] == [(1, side, side)] * slices
    assert sum(map(roi_size, regions)) <= windows * 24 * 24
    assert all(region[1].start == (48 - side) // 2 for region in regions)


def test_objects_of_a_region_are_those_of_its_median(tmp_path, monkeypatch, columns):
    """Specks are in one slice each; at the ends a slice stands for those beyond it."""
    monkeypatch.setattr(held_module, "predict_window", see_raw)
    [source] = held_out(tmp_path, *columns)
    for nm, found in ((0.0, [480, 576, 70, 70, 70, 70]), (35.0, [480, 576, 70, 70])):
        weights = toy(tmp_path, median_nm=nm)
        region = objects.whole_region(source)
        seen = objects.predict_objects(HeldOut(weights, [], *CPU), *region)
        assert sorted(seen.voxels.tolist(), reverse=True) == sorted(found, reverse=True)
