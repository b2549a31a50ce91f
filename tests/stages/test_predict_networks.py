"""Networks of slices, unpadded ones, averages: a plain sliding window, whatever the blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from volseg.blend import FULL
from volseg.blocks import full_roi
from volseg.errors import ModelError, ParameterError
from volseg.io.arrays import ArraySpec
from volseg.io.volumes import create_image, open_image, probabilities_path, volume_tone
from volseg.io.weights import load_card, load_weights, save_weights
from volseg.models.inference import build_predictor
from volseg.models.registry import count_parameters, find_architecture
from volseg.stages.engine import EngineOptions
from volseg.stages.predict import predict
from volseg.stages.predict_lattice import CUBE, build_lattice
from volseg.stages.predict_plan import PredictOptions, plan_prediction
from volseg.stages.progress import NoProgress

SHAPE = (10, 70, 60)


def write_weights(folder, name, tile, overlap, width=4):
    """Weights of chance whose probabilities are not all alike."""
    form = find_architecture(name)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = form.build(width).eval()
        given = form.input_shape(tile)
        noise = torch.rand(1, 1, *given[3 - form.dimensions :]) * 2 - 1
    with torch.no_grad():
        logits = network(noise)
        gain = 1.5 / logits.std()
        network.head.weight.mul_(gain)
        network.head.bias.copy_((network.head.bias - logits.mean()) * gain)
    card = {
        "name": "toy",
        "architecture": name,
        "width": width,
        "parameters": count_parameters(network),
        "voxel_size": [5.0, 5.0, 5.0],
        "preprocessing": {"percentiles": [1.0, 99.0], "gain": 1, "gamma": 0.7, "equalise": False},
        "tile": tile,
        "overlap": overlap,
        "stride": form.stride,
        "threshold": 0.5,
        "training": {},
        "scores": {},
    }
    save_weights(folder / "toy.safetensors", network.state_dict(), card)
    return str(folder / "toy.safetensors")


@pytest.fixture(scope="module")
def raw():
    return np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)


def write_raw(path, raw, voxel_size=(5.0, 5.0, 5.0)):
    values, counts = np.unique(raw, return_counts=True)
    histogram = {"values": values.tolist(), "counts": counts.tolist()}
    spec = ArraySpec(raw.shape, "uint8", (8, 32, 32), (8, 32, 32))
    image = create_image(path, spec, voxel_size, attributes={"histogram": histogram})
    image.levels[0].write(full_roi(raw.shape), raw)
    return path


def options(model, block=(8, 32, 32), workers=1, **more):
    engine = EngineOptions(workers=workers)
    return PredictOptions(
        model=model,
        block=block,
        shard=(8, 32, 32),
        precision="float32",
        device="cpu",
        engine=engine,
        **more,
    )


def read(volume):
    level = open_image(probabilities_path(volume, "mitochondria")).levels[0]
    return level[full_roi(level.shape)]


def sliding_window(raw, model, volume, tile, overlap, **averaged):
    """Slide a window over the volume in memory, each tile with its margin and its weights."""
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
    margin = form.viewed(averaged.get("views", "xy")).margin
    before = [o + m for o, m in zip(overlap, margin, strict=True)]
    pad = [(b, b + t + m) for b, t, m in zip(before, tile, margin, strict=True)]
    padded = np.pad(volume_tone(open_image(volume), card.preprocessing)(raw), pad, mode="reflect")
    ramps = []
    for t, o in zip(tile, overlap, strict=True):
        rise = np.sin(np.pi / 2 * (np.arange(o) + 0.5) / o) ** 2 if o else np.zeros(0)
        ramps.append(np.concatenate([rise, np.ones(t - 2 * o), rise[::-1]]))
    weight = np.einsum("z,y,x->zyx", *ramps)
    total = np.zeros([n + 2 * t for n, t in zip(padded.shape, tile, strict=True)])
    weights = np.zeros(total.shape)
    steps = [range(0, n + o, t - o) for n, t, o in zip(raw.shape, tile, overlap, strict=True)]
    for corner in itertools.product(*steps):
        seen = tuple(slice(c, c + t + 2 * m) for c, t, m in zip(corner, tile, margin, strict=True))
        if padded[seen].shape != tuple(t + 2 * m for t, m in zip(tile, margin, strict=True)):
            continue
        box = tuple(slice(c, c + t) for c, t in zip(corner, tile, strict=True))
        total[box] += weight * predictor(padded[seen])
        weights[box] += weight
    inner = tuple(slice(o, o + n) for o, n in zip(overlap, raw.shape, strict=True))
    return total[inner] / weights[inner]


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
    model = write_weights(tmp_path, name, tile, overlap, 8 if name == "emnet" else 4)
    raw = raw[:, :44, :40] if averaged else raw  # each tile takes eight times as long
    volume = write_raw(tmp_path / "vol.zarr", raw)
    predict(volume, options(model, **averaged), NoProgress())
    found = read(volume)
    lattice = plan_prediction(volume, options(model, **averaged)).handover.lattice
    fitted = tuple(a.tile for a in lattice.axes)
    plain = sliding_window(raw, model, volume, fitted, overlap, **averaged)
    assert plain.std() > 0.02, "a constant would prove nothing"
    assert abs(plain * 255 - found).max() < 0.5 + 8 * 255 / FULL
    predict(volume, options(model, (16, 64, 96), 2, overwrite=True, **averaged), NoProgress())
    np.testing.assert_array_equal(read(volume), found)


def test_orthogonal_views_average_slices_along_all_axes(raw, tmp_path):
    model = write_weights(tmp_path, "unet2d", (8, 48, 48), (0, 16, 16))
    volume = write_raw(tmp_path / "vol.zarr", raw)
    ortho = options(model, views="ortho")
    predict(volume, ortho, NoProgress())
    lattice = plan_prediction(volume, ortho).handover.lattice
    assert {a.overlap for a in lattice.axes} == {16}
    fitted = tuple(a.tile for a in lattice.axes)
    plain = sliding_window(raw, model, volume, fitted, (16, 16, 16), views="ortho")
    assert abs(plain * 255 - read(volume)).max() < 0.5 + 8 * 255 / FULL
    only = sliding_window(raw, model, volume, fitted, (16, 16, 16))
    assert abs(only - plain).max() > 0.01


@pytest.mark.parametrize("name", ["unet2d", "unet2d-valid"])
def test_tiles_for_all_views_are_cubes_on_the_networks_lattice(name, tmp_path):
    overlap = (0, 68, 68) if name == "unet2d-valid" else (0, 64, 64)
    tile = (8, 500, 500) if name == "unet2d-valid" else (8, 512, 512)
    card = load_card(write_weights(tmp_path, name, tile, overlap, 2))
    form = find_architecture(name).viewed("ortho")
    lattice = build_lattice((900, 900, 900), card, (1.0, 1.0, 1.0), form)
    assert {a.tile for a in lattice.axes} == {form.fit((CUBE, CUBE, CUBE))[0]}


def test_what_cannot_be_averaged_is_refused(raw, tmp_path):
    model = write_weights(tmp_path, "unet2d", (8, 48, 48), (0, 16, 16))
    thick = write_raw(tmp_path / "thick.zarr", raw, (50.0, 5.0, 5.0))
    with pytest.raises(ParameterError, match=r"cubic voxels.*50, 5, 5 nm"):
        plan_prediction(thick, options(model, views="ortho"))
    volume = write_raw(tmp_path / "vol.zarr", raw)
    with pytest.raises(ParameterError, match="--tta"):
        plan_prediction(volume, options(model, rotations=True))
    (tmp_path / "3d").mkdir()
    other = write_weights(tmp_path / "3d", "unet3d", (16, 32, 32), (8, 8, 8))
    with pytest.raises(ParameterError, match="2D networks"):
        plan_prediction(volume, options(other, views="ortho"))


def test_a_card_whose_tiles_do_not_fit_its_network_is_refused(raw, tmp_path):
    model = write_weights(tmp_path, "unet2d", (8, 48, 48), (0, 20, 20))
    volume = write_raw(tmp_path / "vol.zarr", raw)
    with pytest.raises(ModelError, match=r"multiples of \(1, 16, 16\) apart"):
        plan_prediction(volume, options(model))


def test_a_network_of_slices_takes_those_that_there_are(raw, tmp_path):
    model = write_weights(tmp_path, "unet2d", (8, 48, 48), (0, 16, 16))
    cubic = write_raw(tmp_path / "cubic.zarr", raw)
    thick = write_raw(tmp_path / "thick.zarr", raw, (50.0, 5.0, 5.0))
    assert plan_prediction(thick, options(model)).notes == ()
    for volume in (cubic, thick):
        predict(volume, options(model), NoProgress())
    np.testing.assert_array_equal(read(cubic), read(thick))
    halves = write_raw(tmp_path / "halves.zarr", raw, (2.5, 2.5, 2.5))
    axes = plan_prediction(halves, options(model, views="ortho")).handover.lattice.axes
    assert [a.scale for a in axes] == [2.0, 2.0, 2.0]
