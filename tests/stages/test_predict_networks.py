"""Networks of slices, unpadded ones, averages: a plain sliding window, whatever the blocks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

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
from volseg.stages.predict import loading
from volseg.stages.predict.lattice import DEEP, STACK, build_lattices
from volseg.stages.predict.loading import NetworkChoice, predictor_for
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.storage.cards import load_card
from volseg.storage.volumes import open_image, volume_tone
from volseg.storage.weights import load_weights
from volseg.voxels.blend import FULL

SHAPE = (10, 70, 60)


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)


def write_network(folder, *form):
    """Weights of chance, and a card that asks for more than a linear change of intensities."""
    return write_weights(folder, *form, preprocessing=PREPROCESSING | {"gamma": 0.7})


def test_weights_that_were_replaced_are_read_anew_and_not_within_a_run(tmp_path):
    """A process that trains and segments again must not keep what it loaded before."""
    model = write_weights(tmp_path, "unet2d", (1, 32, 32), (0, 0, 0))
    before = NetworkChoice(str(model), "cpu", "float32", sha256=load_card(model).sha256)
    old = predictor_for(before)
    (tmp_path / "other").mkdir()
    again = write_weights(tmp_path / "other", "unet2d", (1, 32, 32), (0, 0, 0), seed=1)
    for suffix in (".safetensors", ".json"):
        again.with_suffix(suffix).replace(model.with_suffix(suffix))
    new = predictor_for(replace(before, sha256=load_card(model).sha256))
    assert new is not old
    assert predictor_for(before) is old, "a run that has begun keeps its network"
    loading._load_predictor.cache_clear()
    with pytest.raises(ModelError, match="replaced by other weights since this run was planned"):
        predictor_for(before)


def sliding_window(raw, model, volume, lattices, **averaged):
    """Slide windows over the whole volume in memory, each tile with its margin; average them."""
    card = load_card(model)
    form = card.form
    predictor = build_predictor(
        form.build(card.width),
        load_weights(model, card),
        torch.device("cpu"),
        torch.float32,
        form,
    )
    predictor = replace(predictor, **averaged)
    tone = volume_tone(open_image(volume), card.preprocessing)
    return np.mean([along_one_axis(predictor, tone(raw), lattice) for lattice in lattices], axis=0)


def along_one_axis(predictor, toned, lattice):
    """Slide a window over slices so far apart, and interpolate between them."""
    normal, around = lattice.normal, 3
    apart, rows = lattice.axes[normal].scale, [a for a in range(3) if a != lattice.normal]
    axes, stacked = list(lattice.axes), toned
    if apart != 1:
        axes[normal] = replace(axes[normal], overlap=0, edge=0)
        more = int(around * apart)
        widths = [(more * (a == normal),) * 2 for a in range(3)]
        at = np.arange(-around + 1, toned.shape[normal] / apart + around - 1)
        places = (at + 0.5) * apart - 0.5 + more
        stacked = interpolate(np.pad(toned, widths, mode="reflect"), places, normal)
    assert {lattice.axes[a].scale for a in rows} == {1}
    evaluate = partial(predictor, axis=normal)
    found = slide_window(evaluate, stacked, axes, lattice.margin)
    if apart == 1:
        return found
    voxels = (np.arange(toned.shape[normal]) + 0.5) / apart - 0.5
    return interpolate(found, voxels - at[0], normal)


def interpolate(values, places, axis):
    """Interpolate linearly between voxels along an axis."""
    below = np.floor(places).astype(int)
    form = [-1 if a == axis else 1 for a in range(3)]
    weight = (places - below).reshape(form)
    above = np.minimum(below + 1, values.shape[axis] - 1)
    mixed = (1 - weight) * np.take(values, below, axis) + weight * np.take(values, above, axis)
    return mixed.astype(np.float32)


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
    (lattice,) = plan_prediction(volume, exact_options(model, **averaged)).handover.lattices
    assert all(a.overlap >= least for a, least in zip(lattice.axes, overlap, strict=True))
    plain = sliding_window(raw, model, volume, [lattice], **averaged)
    assert plain.std() > 0.02, "a constant would prove nothing"
    assert abs(plain * 255 - found).max() < 0.5 + 8 * 255 / FULL
    predict(
        plan_prediction(volume, exact_options(model, (16, 64, 96), 2, overwrite=True, **averaged)),
        NoProgress(),
    )
    np.testing.assert_array_equal(read_map(volume), found)


@pytest.mark.parametrize(
    ("name", "stack"), [("unet2d", STACK), ("unet2d-valid", STACK), ("unet2d", 8)]
)
def test_orthogonal_views_average_slices_along_all_axes_for_any_blocks(
    name, stack, raw, tmp_path, monkeypatch
):
    monkeypatch.setattr("volseg.stages.predict.lattice.STACK", stack)
    form = ((8, 36, 36), (0, 4, 4)) if name == "unet2d-valid" else ((8, 48, 48), (0, 16, 16))
    model = write_network(tmp_path, name, *form)
    volume = write_raw(tmp_path / "vol.zarr", raw)
    ortho = exact_options(model, views="ortho")
    predict(plan_prediction(volume, ortho), NoProgress())
    found = read_map(volume)
    lattices = plan_prediction(volume, ortho).handover.lattices
    assert [lattice.normal for lattice in lattices] == [0, 1, 2]
    assert [lattice.axes[lattice.normal].scale for lattice in lattices] == [1, 4, 4]
    assert (lattices[1].axes[1].count == 1) == (stack == STACK)
    plain = sliding_window(raw, model, volume, lattices)
    off = abs(plain * 255 - found)
    # where tiles end, the last slice is held for half the way to the next one
    assert off.max() < 0.5 + 8 * 255 / FULL if stack == STACK else np.mean(off < 1) > 0.8
    only = sliding_window(raw, model, volume, lattices[:1])
    assert abs(only - plain).max() > 0.01
    other = exact_options(model, (16, 64, 96), 2, views="ortho", overwrite=True)
    predict(plan_prediction(volume, other), NoProgress())
    np.testing.assert_array_equal(read_map(volume), found)


@pytest.mark.parametrize("views", ["xy", "ortho"])
@pytest.mark.parametrize("roi", ["4:5,:,:", "2:9,30:41,1:3", "9:10,69:70,59:60"])
def test_a_region_is_cut_out_of_the_whole_and_takes_fewer_slices(
    views, roi, raw, tmp_path, monkeypatch
):
    slices, evaluate = [], Predictor._evaluate
    monkeypatch.setattr(
        Predictor,
        "_evaluate",
        lambda self, batch, taken: slices.append(len(batch)) or evaluate(self, batch, taken),
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


@pytest.mark.parametrize(
    ("name", "side", "overlap", "deep"),
    [("unet2d", 512, 64, DEEP), ("unet2d-valid", 500, 68, DEEP + 4), ("unet2d", 512, 192, 384)],
)
def test_tiles_for_all_views_are_not_deep(name, side, overlap, deep, tmp_path):
    tile, overlap = (8, side, side), (0, overlap, overlap)
    card = load_card(write_network(tmp_path, name, tile, overlap, 2))
    lattices = build_lattices((900, 900, 900), card, (1.0, 1.0, 1.0), "ortho")
    for lattice, most in zip(
        lattices, (tile, (deep, STACK, side), (deep, side, STACK)), strict=True
    ):
        assert all(n <= m for n, m in zip(lattice.tile, most, strict=True))
    assert [lattice.normal for lattice in lattices] == [0, 1, 2]


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
    axes = plan_prediction(halves, exact_options(model, views="ortho")).handover.lattices[1].axes
    assert [a.scale for a in axes] == [2.0, 8.0, 2.0]
