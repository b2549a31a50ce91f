"""Damaged stacks of the real crop, with the weights that ship: scores stay those of intact ones."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

import volseg
from volseg.api.opening import info

SIDE = (slice(20, 180), slice(20, 180))


@pytest.fixture(scope="module")
def tissue(crop):
    raw, labels = (tifffile.imread(crop / f"{name}.tif") for name in ("raw", "labels"))
    return lambda z: (raw[z, *SIDE].copy(), labels[z, *SIDE])


@pytest.fixture(scope="module")
def score(tmp_path_factory):
    """Convert, segment and evaluate a stack: Jaccard, objects, and what the user was told."""

    def measured(raw, labels, **options):
        folder = tmp_path_factory.mktemp("stack")
        for name, data in (("raw", raw), ("truth", labels)):
            tifffile.imwrite(folder / f"{name}.tif", data, photometric="minisblack")
        volume, notes = folder / "vol.zarr", []
        volseg.convert(folder / "raw.tif", volume, voxel_size=(5.0, 5.0, 5.0))
        options = {"model": "unet2d", "views": "xy", "precision": "float32"} | options
        report = volseg.segment(volume, on_note=notes.append, device="cpu", **options)
        found = volseg.evaluate(volume, truth=folder / "truth.tif")
        told = {*notes, *info(volume)["notes"]}
        return found.foreground.jaccard, found.objects.matched, report.label.objects, told

    return measured


@pytest.fixture(scope="module")
def intact(tissue, score):
    return score(*tissue(slice(8, 11)))[0]


@pytest.mark.parametrize("width", [1, 2, 4, 30])
def test_black_padding_costs_nothing(tissue, score, intact, width):
    around = ((0, 0), (width, width), (width, width))
    padded = [np.pad(part, around) for part in tissue(slice(8, 11))]
    jaccard, matched, _, told = score(*padded)
    assert intact > 0.88
    assert jaccard == pytest.approx(intact, abs=0.01)
    assert matched == 2
    assert "large areas that hold the value 0 are background" in told


@pytest.mark.parametrize("value", [0, 255])
def test_a_missing_slice_of_five_is_bridged(tissue, score, value):
    raw, labels = tissue(slice(6, 11))
    whole = score(raw, labels)
    raw[2] = value
    jaccard, matched, _, told = score(raw, labels)
    assert jaccard > whole[0] - 0.02
    assert matched == whole[1] == 2
    assert any(note.endswith("next to it: 2") for note in told)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("views", ["xy", "ortho"])
def test_a_missing_slice_of_sixteen_is_bridged(tissue, score, views):
    raw, labels = tissue(slice(4, 20))
    raw, labels = raw[:, :128, :128], labels[:, :128, :128]
    whole = score(raw, labels, views=views)
    raw[7] = 0
    jaccard, matched, _, _ = score(raw, labels, views=views)
    assert jaccard > whole[0] - 0.02
    assert matched == whole[1]


def test_slices_that_differ_in_brightness_are_made_alike(tissue, score):
    raw, labels = tissue(slice(6, 11))
    gains = np.array([0.5, 1, 1.4, 0.5, 1])[:, None, None]
    uneven = np.clip(raw * gains, 0, 255).astype(np.uint8)
    jaccard, _, _, told = score(uneven, labels, normalise="slices")
    assert jaccard > score(raw, labels)[0] - 0.02
    assert any("--normalise slices" in note for note in told)


def test_parts_of_slices_that_differ_in_brightness_are_made_alike(crop, score):
    raw, labels = (tifffile.imread(crop / f"{name}.tif")[8:11] for name in ("raw", "labels"))
    uneven = np.clip(raw * np.linspace(0.5, 1.3, raw.shape[2]), 0, 255).astype(np.uint8)
    jaccard, *_ = score(uneven, labels, normalise="local")
    assert jaccard > score(raw, labels)[0] - 0.02


def test_inverted_data_are_inverted_back(tissue, score, intact):
    raw, labels = tissue(slice(8, 11))
    told = score(255 - raw, labels)[3]
    assert any(note.endswith("bright, give --invert") for note in told)
    jaccard, _, _, told = score(255 - raw, labels, invert=True)
    assert jaccard == pytest.approx(intact, abs=0.002)
    assert not any("--invert" in note for note in told)


def test_nothing_is_said_of_the_polarity_of_tiny_stacks(crop, score):
    raw, labels = (tifffile.imread(crop / f"{name}.tif")[:8] for name in ("raw", "labels"))
    told = score(255 - raw[:, :64, :64], labels[:, 100:164, 100:164])[3]
    assert not any("--invert" in note for note in told)


def test_a_constant_volume_has_no_objects(tissue, score):
    raw, labels = tissue(slice(8, 11))
    _, _, objects, told = score(np.full_like(raw, 90), labels)
    assert objects == 0
    assert any("the volume is empty" in note for note in told)
