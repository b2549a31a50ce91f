"""Networks of slices, unpadded ones, averages: a plain sliding window, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toy_predictions import exact_options, read_map, slide_window
from toy_volumes import write_raw
from toy_weights import PREPROCESSING, write_weights
from volseg.engine.progress import NoProgress
from volseg.errors import ModelError, ParameterError
from volseg.geometry.grid import parse_roi
from volseg.models.inference import Predictor, build_predictor
from volseg.models.registry import find_architecture
from volseg.stages.predict.lattice import CUBE, build_lattice
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.storage.volumes import open_image, volume_tone
from volseg.storage.weights import load_card, load_weights
from volseg.voxels.blend import FULL

SHAPE = (10, 70, 60)


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)


def write_network(folder, *form):
    """Weights of chance, and a card that asks for more than a linear change of intensities."""
    return write_weights(folder, *form, preprocessing=PREPROCESSING | {"gamma": 0.7})


def sliding_window(raw, model, volume, tile, overlap, **averaged):
    """Slide a window over the whole volume in memory, each tile with its margin."""
    card = load_card(model)
    form = find_architecture(card.architecture)
    predictor = build_predictor(
        form.build(card.width),
        load_weights(model, card),
        torch.device("cpu"),
        torch.float32,
        architecture=form,
        **averaged,
    )
    tone = volume_tone(open_image(volume), card.preprocessing)
    margin = form.viewed(averaged.get("views", "xy")).margin
    return slide_window(predictor, tone(raw), tile, overlap, margin)


CASES = {
    "slices": ("unet2d", (8, 48, 48), (0, 16, 16), {}),
    "gates": ("attention-unet", (4, 48, 48), (0, 16, 16), {}),
    "unpadded": ("unet2d-valid", (8, 36, 36), (0, 4, 4), {}),
    "volumes": ("unet3d", (16, 32, 32), (8, 8, 8), {}),
    "flips": ("emnet", (12, 32, 32), (4, 8, 8), {"tta": True}),
    "turns": ("unet2d", (8, 48, 48), (0, 16, 16), {"tta": True, "rotations": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_a_plain_sliding_window_for_any_blocks(case, raw, tmp_path):
    name, tile, overlap, averaged = CASES[case]
    model = write_network(tmp_path, name, tile, overlap, 8 if name == "emnet" else 4)
    raw = raw[:, :44, :40] if averaged else raw  # each tile takes eight times as long
    volume = write_raw(tmp_path / "vol.zarr", raw)
    predict(plan_prediction(volume, exact_options(model, **averaged)), NoProgress())
    found = read_map(volume)
    lattice = plan_prediction(volume, exact_options(model, **averaged)).handover.lattice
    fitted = tuple(a.tile for a in lattice.axes)
    plain = sliding_window(raw, model, volume, fitted, overlap, **averaged)
    assert plain.std() > 0.02, "a constant would prove nothing"
    assert abs(plain * 255 - found).max() < 0.5 + 8 * 255 / FULL
    predict(
        plan_prediction(volume, exact_options(model, (16, 64, 96), 2, overwrite=True, **averaged)),
        NoProgress(),
    )
    np.testing.assert_array_equal(read_map(volume), found)


def test_orthogonal_views_average_slices_along_all_axes(raw, tmp_path):
    model = write_network(tmp_path, "unet2d", (8, 48, 48), (0, 16, 16))
    volume = write_raw(tmp_path / "vol.zarr", raw)
    ortho = exact_options(model, views="ortho")
    predict(plan_prediction(volume, ortho), NoProgress())
    lattice = plan_prediction(volume, ortho).handover.lattice
    assert {a.overlap for a in lattice.axes} == {16}
    fitted = tuple(a.tile for a in lattice.axes)
    plain = sliding_window(raw, model, volume, fitted, (16, 16, 16), views="ortho")
    assert abs(plain * 255 - read_map(volume)).max() < 0.5 + 8 * 255 / FULL
    only = sliding_window(raw, model, volume, fitted, (16, 16, 16))
    assert abs(only - plain).max() > 0.01


@pytest.mark.parametrize("views", ["xy", "ortho"])
@pytest.mark.parametrize("roi", ["4:5,:,:", "2:9,30:41,1:3", "9:10,69:70,59:60"])
def test_a_region_is_cut_out_of_the_whole_and_takes_fewer_slices(
    views, roi, raw, tmp_path, monkeypatch
):
    slices, evaluate = [], Predictor._evaluate
    monkeypatch.setattr(
        Predictor,
        "_evaluate",
        lambda self, batch: slices.append(len(batch)) or evaluate(self, batch),
    )
    model = write_network(tmp_path, "unet2d", (8, 48, 48), (0, 16, 16))
    volume = write_raw(tmp_path / "vol.zarr", raw)
    predict(plan_prediction(volume, exact_options(model, views=views)), NoProgress())
    whole, evaluated = read_map(volume), sum(slices)
    slices.clear()
    part = exact_options(model, views=views, roi=roi, overwrite=True)
    predict(plan_prediction(volume, part), NoProgress())
    box = parse_roi(roi, SHAPE)
    np.testing.assert_array_equal(read_map(volume)[box], whole[box])
    assert 0 < sum(slices) < evaluated


@pytest.mark.parametrize("name", ["unet2d", "unet2d-valid"])
def test_tiles_for_all_views_are_cubes_on_the_networks_lattice(name, tmp_path):
    overlap = (0, 68, 68) if name == "unet2d-valid" else (0, 64, 64)
    tile = (8, 500, 500) if name == "unet2d-valid" else (8, 512, 512)
    card = load_card(write_network(tmp_path, name, tile, overlap, 2))
    form = find_architecture(name).viewed("ortho")
    lattice = build_lattice((900, 900, 900), card, (1.0, 1.0, 1.0), form, "ortho")
    assert {a.tile for a in lattice.axes} == {form.fit((CUBE, CUBE, CUBE))[0]}


def test_what_cannot_be_averaged_is_refused(raw, tmp_path):
    model = write_network(tmp_path, "unet2d", (8, 48, 48), (0, 16, 16))
    thick = write_raw(tmp_path / "thick.zarr", raw, voxel_size=(50.0, 5.0, 5.0))
    with pytest.raises(ParameterError, match=r"ortho needs cubic voxels.*50, 5, 5 nm"):
        plan_prediction(thick, exact_options(model, views="ortho"))
    volume = write_raw(tmp_path / "vol.zarr", raw)
    with pytest.raises(ParameterError, match="--tta"):
        plan_prediction(volume, exact_options(model, rotations=True))
    (tmp_path / "3d").mkdir()
    other = write_network(tmp_path / "3d", "unet3d", (16, 32, 32), (8, 8, 8))
    with pytest.raises(ParameterError, match="2D networks"):
        plan_prediction(volume, exact_options(other, views="ortho"))


def test_a_card_whose_tiles_do_not_fit_its_network_is_refused(raw, tmp_path):
    model = write_network(tmp_path, "unet2d", (8, 48, 48), (0, 20, 20))
    volume = write_raw(tmp_path / "vol.zarr", raw)
    with pytest.raises(ModelError, match=r"multiples of \(1, 16, 16\) apart"):
        plan_prediction(volume, exact_options(model))


def test_a_network_of_slices_takes_those_that_there_are(raw, tmp_path):
    model = write_network(tmp_path, "unet2d", (8, 48, 48), (0, 16, 16))
    cubic = write_raw(tmp_path / "cubic.zarr", raw)
    thick = write_raw(tmp_path / "thick.zarr", raw, voxel_size=(50.0, 5.0, 5.0))
    assert plan_prediction(thick, exact_options(model)).notes == ()
    for volume in (cubic, thick):
        predict(plan_prediction(volume, exact_options(model)), NoProgress())
    np.testing.assert_array_equal(read_map(cubic), read_map(thick))
    halves = write_raw(tmp_path / "halves.zarr", raw, voxel_size=(2.5, 2.5, 2.5))
    axes = plan_prediction(halves, exact_options(model, views="ortho")).handover.lattice.axes
    assert [a.scale for a in axes] == [2.0, 2.0, 2.0]
