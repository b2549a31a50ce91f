"""Inference: folding changes nothing, precision is checked, wrong weights are refused."""

from __future__ import annotations

import copy
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from volseg.errors import ModelError, ParameterError, ShapeError
from volseg.models.emnet import EMNet
from volseg.models.folding import fold_norms
from volseg.models.inference import (
    Predictor,
    build_predictor,
)
from volseg.models.registry import ARCHITECTURES, find_architecture

CPU = torch.device("cpu")


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def network():
    torch.manual_seed(1)
    network = EMNet(8)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def test_folding_norms_keeps_the_outputs(network):
    x = torch.randn(1, 1, 8, 32, 32)
    with torch.no_grad():
        expected = network(x)
        folded = fold_norms(copy.deepcopy(network))
        assert not any(isinstance(m, torch.nn.BatchNorm3d) for m in folded.modules())
        torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=1e-4)


def test_instance_norms_are_left_alone():
    network = EMNet(8, norm="instance")
    assert sum(isinstance(m, torch.nn.InstanceNorm3d) for m in fold_norms(network).modules()) > 0


def test_predictor_gives_probabilities_of_the_network(network):
    x = torch.randn(8, 32, 32)
    with torch.no_grad():
        expected = network(x[None, None])[0, 0].sigmoid().numpy()
    predictor = build_predictor(EMNet(8), network.state_dict(), CPU, torch.float32)
    assert abs(predictor(x.numpy()) - expected).max() < 1e-5


def test_bfloat16_stays_near_float32(network):
    x = torch.randn(8, 32, 32).numpy()
    exact = build_predictor(EMNet(8), network.state_dict(), CPU, torch.float32)(x)
    rounded = build_predictor(EMNet(8), network.state_dict(), CPU, torch.bfloat16)(x)
    assert 0 < abs(exact - rounded).max() < 0.05


def test_predictions_do_not_depend_on_the_number_of_threads(network):
    x = torch.randn(8, 48, 48).numpy()
    predictor = build_predictor(EMNet(8), network.state_dict(), CPU, torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        single = predictor(x)
        torch.set_num_threads(2)
        assert (predictor(x) == single).all()
    finally:
        torch.set_num_threads(before)


class Sum3(torch.nn.Module):
    """A network of known result: 3 voxels an axis, added with weights; flips change nothing else.

    ``lean`` makes it look one way, so that flips matter; unpadded, it takes one voxel a side.
    """

    def __init__(self, dimensions, *, lean=0.0, padding=1):
        super().__init__()
        conv = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dimensions]
        self.conv = conv(1, 1, 3, padding=padding, bias=False)
        weight = torch.ones(3) + lean * torch.arange(3)
        outer = weight[:, None] * torch.tensor([1.0, 2.0, 1.0]) * (1 + lean)
        if dimensions == 3:
            outer = weight[:, None, None] * outer
        self.conv.weight.data = outer[None, None]
        self.batches = []

    def forward(self, x):
        self.batches.append(tuple(x.shape))
        return self.conv(x) / 8


def predictor(network, dimensions=2, **options):
    return Predictor(network.requires_grad_(False), CPU, torch.float32, dimensions, **options)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_averaging_over_flips_changes_nothing_where_flips_do_not_matter(dimensions, rng):
    raw = rng.standard_normal((5, 6, 8)).astype(np.float32)
    network = Sum3(dimensions)
    plain = predictor(network, dimensions)(raw)
    averaged = predictor(network, dimensions, tta=True)(raw)
    np.testing.assert_allclose(averaged, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("dimensions", "axes", "normal"),
    [(2, (1, 2), 0), (2, (0, 2), 1), (2, (0, 1), 2), (3, (0, 1, 2), 0)],
)
def test_an_average_over_flips_flips_with_its_input(dimensions, axes, normal, rng):
    raw = rng.standard_normal((5, 6, 8)).astype(np.float32)
    network = Sum3(dimensions, lean=0.7)
    single = predictor(network, dimensions)
    averaged = predictor(network, dimensions, tta=True)
    for axis in axes:
        found = averaged(np.flip(raw, axis), axis=normal)
        expected = np.flip(averaged(raw, axis=normal), axis)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    once = single(np.flip(raw, axes[0]), axis=normal)
    assert abs(once - np.flip(single(raw, axis=normal), axes[0])).max() > 0.01


@pytest.mark.parametrize("dimensions", [2, 3])
def test_an_average_over_rotations_turns_with_its_input(dimensions, rng):
    raw = rng.standard_normal((4, 6, 8)).astype(np.float32)
    network = Sum3(dimensions, lean=0.7)
    flips = predictor(network, dimensions, tta=True)
    turns = predictor(network, dimensions, tta=True, rotations=True)
    assert len(turns.looks()) == 2 * len(flips.looks()) == {2: 8, 3: 16}[dimensions]
    turned = np.rot90(raw, axes=(1, 2))
    expected = np.rot90(turns(raw), axes=(1, 2))
    np.testing.assert_allclose(turns(turned), expected, rtol=0, atol=1e-6)
    assert abs(flips(turned) - np.rot90(flips(raw), axes=(1, 2))).max() > 0.01


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("margin", [(0, 0, 0), (0, 1, 1)])
def test_slices_that_are_not_needed_are_left_out_and_change_no_bit(axis, margin, rng):
    raw = rng.standard_normal((40, 44, 26)).astype(np.float32)
    network = Sum3(2, padding=1 - margin[1], lean=0.7)
    found = predictor(network, tta=True, margin=margin)
    whole, evaluated = found(raw, axis=axis), len(network.batches)
    for z, y, x in (
        ((9, 23), (0, 3), (20, 22)),
        ((15, 16), (7, 8), (0, 1)),
        ((0, 3), (30, 40), (2, 9)),
    ):
        needed = slice(*z), slice(*y), slice(*x)
        network.batches.clear()
        part = found(raw, needed, axis)
        np.testing.assert_array_equal(part[needed], whole[needed])
        assert len(network.batches) <= evaluated / 2


@pytest.mark.parametrize("margin", [(0, 0, 0), (0, 1, 1)])
@pytest.mark.parametrize("tta", [False, True])
def test_slices_along_another_axis_are_those_of_the_turned_tile(tta, margin, rng):
    raw = rng.standard_normal((5, 6, 8)).astype(np.float32)
    found = predictor(Sum3(2, lean=0.7, padding=1 - margin[1]), tta=tta, margin=margin)
    along_y = found(raw.transpose(1, 0, 2)).transpose(1, 0, 2)
    np.testing.assert_array_equal(found(raw, axis=1), along_y)
    along_x = found(raw.transpose(2, 0, 1)).transpose(1, 2, 0)
    np.testing.assert_array_equal(found(raw, axis=2), along_x)


@pytest.mark.parametrize("options", [{}, {"tta": True}, {"tta": True, "rotations": True}])
@pytest.mark.parametrize(
    ("dimensions", "margin"),
    [(2, (0, 1, 1)), (3, (1, 1, 1))],
)
def test_unpadded_networks_give_the_middle(dimensions, margin, options, rng):
    raw = rng.standard_normal((6, 7, 9)).astype(np.float32)
    unpadded = Sum3(dimensions, lean=0.7, padding=0)
    found = predictor(unpadded, dimensions, margin=margin, **options)(raw)
    whole = predictor(Sum3(dimensions, lean=0.7), dimensions, **options)(raw)
    z, y, x = (slice(m, n - m) for m, n in zip(margin, raw.shape, strict=True))
    np.testing.assert_allclose(found, whole[z, y, x], rtol=0, atol=1e-6)


class Pair(Sum3):
    """A network of two maps."""

    def __init__(self, dimensions, **how):
        super().__init__(dimensions, lean=0.7, **how)
        self.centerline = Sum3(dimensions, lean=-0.4, **how)

    def both(self, x):
        return self(x), self.centerline(x)


@pytest.mark.parametrize("options", [{}, {"tta": True}, {"tta": True, "rotations": True}])
@pytest.mark.parametrize(
    ("dimensions", "margin", "axis"),
    [(2, (0, 0, 0), 0), (2, (0, 1, 1), 1), (3, (1, 1, 1), 0)],
)
def test_centerlines_are_looked_at_like_the_mask(dimensions, margin, axis, options, rng):
    raw = rng.standard_normal((12, 7, 9)).astype(np.float32)
    network = Pair(dimensions, padding=0 if any(margin) else 1)
    options = {"margin": margin, **options}
    both = predictor(network, dimensions, wanted=(0, 1), **options)(raw, axis=axis)
    for found, alone in zip(both, (network, network.centerline), strict=True):
        expected = predictor(alone, dimensions, **options)(raw, axis=axis)
        np.testing.assert_array_equal(found, expected)
    assert abs(both[0] - both[1]).max() > 0.1


def test_centerlines_are_asked_only_of_networks_that_give_them(network):
    with pytest.raises(ModelError, match="a mask, and no centerlines"):
        predictor(Sum3(3), 3, wanted=(0, 1))
    weights = EMNet(8, centerline=False).state_dict()
    with pytest.raises(ModelError, match="a mask, and no centerlines"):
        replace(
            build_predictor(EMNet(8, centerline=False), weights, CPU, torch.float32), wanted=(1,)
        )


def test_a_2d_network_sees_at_most_four_slices_at_once():
    network = Sum3(2)
    predictor(network)(np.zeros((11, 4, 6), np.float32))
    assert network.batches == [(4, 1, 4, 6), (4, 1, 4, 6), (3, 1, 4, 6)]


@pytest.mark.parametrize("name", ["unet2d", "unet2d-plain", "unet2d-valid", "attention-unet"])
def test_a_slice_does_not_depend_on_its_neighbours(name, rng):
    architecture = find_architecture(name)
    tile = architecture.fit((11, 20, 20))
    network = architecture.build(4)
    evaluate = build_predictor(network, network.state_dict(), CPU, torch.float32, architecture)
    raw = rng.standard_normal(architecture.input_shape(tile)).astype(np.float32)
    together = evaluate(raw)
    alone = np.concatenate([evaluate(raw[k : k + 1]) for k in range(len(raw))])
    # weights are of chance: kernels for batches and for single slices round differently
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_architecture_predicts_its_tile(name, precision, rng):
    architecture = find_architecture(name)
    torch.manual_seed(0)
    network = architecture.build(8)
    weights = copy.deepcopy(network.state_dict())
    tile = architecture.fit((2, 4, 20))
    raw = rng.standard_normal(architecture.input_shape(tile)).astype(np.float32)
    batch = torch.from_numpy(raw)
    batch = batch[:, None] if architecture.dimensions == 2 else batch[None, None]
    with torch.no_grad():
        expected = network.eval()(batch).sigmoid().squeeze().reshape(tile).numpy()
    built = build_predictor(network, weights, CPU, precision, architecture)
    found = built(raw)
    assert found.shape == tile
    assert found.dtype == np.float32
    tolerance = 1e-5 if precision == torch.float32 else 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_the_margin_of_a_valid_network_turns_with_its_slices(rng):
    architecture = find_architecture("unet2d-valid")
    network = architecture.build(2)
    evaluate = build_predictor(network, network.state_dict(), CPU, torch.float32, architecture)
    raw = rng.standard_normal(architecture.viewed(1).input_shape((4, 3, 20)))
    assert evaluate(raw.astype(np.float32), axis=1).shape == (4, 3, 20)


def test_an_input_within_its_margins_is_refused():
    evaluate = predictor(Sum3(2, padding=0), margin=(0, 1, 1))
    with pytest.raises(ShapeError, match=r"margins of \(0, 1, 1\) .* found \(3, 2, 5\)"):
        evaluate(np.zeros((3, 2, 5), np.float32))


def test_averages_that_make_no_sense_are_refused(network):
    weights = network.state_dict()
    with pytest.raises(ParameterError, match="ask for tta"):
        replace(build_predictor(EMNet(8), weights, CPU, torch.float32), rotations=True)


def test_averaging_holds_one_tile_more_and_not_one_per_flip(rng):
    raw = rng.standard_normal((64, 64, 64)).astype(np.float32)
    peaks = {}
    for tta in (False, True):
        evaluate = predictor(torch.nn.Identity(), 3, tta=tta)
        tracemalloc.start()
        evaluate(raw)
        peaks[tta] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[True] - peaks[False] <= 1.01 * raw.nbytes


def test_weights_of_another_network_are_refused(network):
    with pytest.raises(ModelError, match="do not fit"):
        build_predictor(EMNet(16), network.state_dict(), CPU, torch.float32)
