"""What every architecture promises, at toy width."""

from __future__ import annotations

import copy

import pytest
import torch

from volseg.errors import ModelError, ParameterError, ShapeError
from volseg.models.attention_unet import AttentionUNet, GridGate
from volseg.models.folding import fold_norms
from volseg.models.parts import UShape, Variant, doubled
from volseg.models.registry import ARCHITECTURES, count_parameters, find_architecture
from volseg.models.unet2d import UNet2d
from volseg.models.unet3d import UNet3d

NAMES = sorted(ARCHITECTURES)
TOY = {name: 8 if name.startswith("emnet") else 4 for name in NAMES}
SMALLEST = {n: a.fit((1, 1, 1)) for n, a in ARCHITECTURES.items()}


def build(name, seed=0):
    """A toy network in evaluation mode, with norms as after training."""
    torch.manual_seed(seed)
    network = ARCHITECTURES[name].build(TOY[name])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


def batch(name, tile, n=1, seed=1):
    """Raw for a tile: slices for 2D networks, volumes for 3D ones."""
    architecture = ARCHITECTURES[name]
    sizes = architecture.input_shape(tile)[3 - architecture.dimensions :]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, 1, *sizes), generator=generator)


@pytest.mark.parametrize(
    ("architecture", "width", "parameters"),
    [
        ("unet2d-plain", 64, 31_030_593),
        ("unet2d-valid", 64, 31_030_593),
        # two for one at each of 5888 channels that have a norm
        ("unet2d", 64, 31_030_593 + 5888),
        # gates: c * c + c / 2 for the weights, c / 2 + 1 for the coefficient
        ("attention-unet", 64, 31_036_481 + 512**2 + 256**2 + 128**2 + 64**2 + 960 + 4),
        # those of skips are 2 x 2, and signals have twice the channels
        (
            "attention-unet-grid",
            64,
            31_036_481 + 3 * (512**2 + 256**2 + 128**2 + 64**2) + 960 + 4,
        ),
        ("attention-unet3d", 16, 5_668_389),
        ("unet3d", 32, 19_071_329),
    ],
)
def test_parameter_counts_at_the_default_width(architecture, width, parameters):
    with torch.device("meta"):
        network = find_architecture(architecture).build(width)
    assert ARCHITECTURES[architecture].width == width
    assert count_parameters(network) == parameters


def test_the_published_3d_unet_counts_convolutions_with_bias_and_no_norms():
    with torch.device("meta"):
        network = UNet3d(inputs=3, outputs=3)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    normed = sum(m.num_features for m in norms)
    raised = sum(u.bias.numel() for u in network.ups)
    assert count_parameters(network) - normed - raised == 19_069_955


@pytest.mark.parametrize("name", NAMES)
def test_an_output_is_smaller_by_the_margin_and_nothing_else(name):
    architecture, (z, y, x) = ARCHITECTURES[name], SMALLEST[name]
    tile = (z, y + architecture.multiple[1], x)
    with torch.no_grad():
        logits = build(name)(batch(name, tile, n=2))
    assert logits.shape == (2, 1, *tile[3 - architecture.dimensions :])


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    network = build(name).train()
    # twice the smallest: one voxel at the bottom would normalise to nothing
    z, y, x = SMALLEST[name]
    raw = batch(name, ARCHITECTURES[name].fit((2 * z, 2 * y, 2 * x)))
    outputs = network.both(raw) if hasattr(network, "both") else [network(raw)]
    sum(o.square().mean() for o in outputs if o is not None).backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_size_is_named_and_nothing_is_computed(name):
    architecture, network = ARCHITECTURES[name], build(name)
    sizes = list(architecture.input_shape(SMALLEST[name])[3 - architecture.dimensions :])
    bad = [*sizes[:-1], sizes[-1] + 2]
    with pytest.raises(ShapeError, match=f"multiples of .*, found .*{bad[-1]}"):
        network(torch.zeros(1, 1, *bad))
    with pytest.raises(ShapeError, match=r"takes \(n, 1, .*, found shape"):
        network(torch.zeros(1, 2, *sizes))
    with pytest.raises(ShapeError, match=r"takes \(n, 1, .*, found shape"):
        network(torch.zeros(1, *sizes))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_grid_gate_weighs_by_coefficients_of_the_coarser_level(dimensions):
    gate = GridGate(4, dimensions).eval()
    skip, signal = torch.rand(1, 4, *[8] * dimensions), torch.rand(1, 8, *[4] * dimensions)
    with torch.no_grad():
        torch.nn.init.zeros_(gate.coefficient.weight)
        assert torch.allclose(gate(skip, signal), skip * gate.coefficient.bias.sigmoid())
        gate.coefficient.weight.fill_(1.0)
        weights = gate(skip, signal) / skip
        seen = (gate.of_skip(skip) + gate.of_signal(signal)).relu()
        coefficients = gate.coefficient(seen).sigmoid()
    assert coefficients.shape[2:] == signal.shape[2:]
    # those at a corner are the corner's, as nothing is interpolated there
    corner = (0, 0, *[0] * dimensions)
    assert float(weights[corner]) == pytest.approx(float(coefficients[corner]), abs=1e-6)
    assert 0 < float(weights.min()) <= float(weights.max()) < 1


def test_a_valid_network_says_how_large_an_input_must_be():
    with pytest.raises(ShapeError, match=r"12 more than multiples of \(16, 16\) and at least 188"):
        build("unet2d-valid")(torch.zeros(1, 1, 172, 188))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [0, -8, 7])
def test_a_bad_width_is_named(name, width):
    with pytest.raises(ParameterError, match=f"multiple of [28], found {width}"):
        ARCHITECTURES[name].build(width)


REACH = {
    # voxels from a cut (z, y, x) beyond which a probability changes by float noise only
    "emnet": (32, 96, 96),
    "emnet-single": (32, 96, 96),
    "unet2d": (0, 96, 96),
    "unet2d-plain": (0, 96, 96),
    "unet2d-valid": (0, 0, 0),
    "attention-unet": (0, 96, 96),
    "attention-unet-grid": (0, 96, 96),
    "attention-unet3d": (96, 96, 96),
    "unet3d": (48, 48, 48),
}
NOISE = 2e-6


@pytest.mark.parametrize(
    ("name", "axis"),
    [(n, axis) for n in sorted(REACH) for axis in range(3 - ARCHITECTURES[n].dimensions, 3)],
)
def test_a_probability_does_not_depend_on_the_extent_of_its_tile(name, axis):
    # emnet-paper is left out: its instance norms average over the whole tile
    architecture = ARCHITECTURES[name]
    step, reach = architecture.multiple[axis], REACH[name][axis]
    tile = list(SMALLEST[name])
    tile[axis] += 2 * reach + 4 * step
    wide, dimension = batch(name, tuple(tile)), axis - 3
    network = build(name)
    shift, kept = 2 * step, tile[axis] - 2 * step
    part = wide.narrow(dimension, shift, wide.shape[dimension] - shift)
    with torch.no_grad():
        expected = network(wide).sigmoid().narrow(dimension, shift, kept)
        found = network(part).sigmoid()
    inner = slice(reach, None)
    difference = (expected - found).abs().movedim(dimension, 0)[inner]
    assert len(difference) >= step
    assert difference.max() < NOISE


@pytest.mark.parametrize("name", NAMES)
def test_folding_norms_keeps_the_outputs(name):
    network, raw = build(name), batch(name, SMALLEST[name])
    with torch.no_grad():
        expected = network(raw)
        folded = fold_norms(copy.deepcopy(network))
        torch.testing.assert_close(folded(raw), expected, rtol=1e-4, atol=1e-4)
    norms = torch.nn.BatchNorm2d | torch.nn.BatchNorm3d
    assert not any(isinstance(m, norms) for m in folded.modules())


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_network_gives_the_same(name):
    network, raw = build(name), batch(name, SMALLEST[name])
    exported = torch.export.export(network, (raw,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(raw), network(raw), rtol=1e-6, atol=1e-6)


def test_gates_weigh_skips_and_nothing_else():
    torch.manual_seed(0)
    network = AttentionUNet(4).eval()
    plain = UNet2d(4).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if "gates" not in k})
    raw = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(network(raw), plain(raw))
        for gate in network.gates:
            gate.coefficient.weight.zero_()
            gate.coefficient.bias.fill_(50)
        torch.testing.assert_close(network(raw), plain(raw))


def test_a_valid_network_is_the_padded_one_without_the_border():
    torch.manual_seed(0)
    valid = UNet2d(4, variant=Variant(2, norm=False, padded=False))
    padded = UNet2d(4, variant=Variant(2, norm=False))
    padded.load_state_dict(valid.state_dict())
    raw = torch.randn(1, 1, 240, 256)
    with torch.no_grad():
        # from 2 on, both pool the same pairs at every level
        found = valid(raw[..., 2:-2, 2:-2])
        torch.testing.assert_close(found, padded(raw)[..., 94:-94, 94:-94], rtol=1e-4, atol=1e-5)


def test_neighbouring_slices_are_taken_as_channels_are():
    network = build("unet2d-neighbours")
    flat = UShape(doubled(4, 4), Variant(2), inputs=3).eval()
    # filters of (1, y, x) are those of slices; the first ones have a channel for each slice
    weights = network.state_dict()
    first = weights["encoder.0.convs.0.weight"][:, 0]
    flat.load_state_dict(
        {k: v.squeeze(2) if v.ndim == 5 else v for k, v in weights.items()}
        | {"encoder.0.convs.0.weight": first}
    )
    raw = batch("unet2d-neighbours", (3, 16, 32))
    with torch.no_grad():
        windows = raw[0, 0].unfold(0, 3, 1).permute(0, 3, 1, 2)
        torch.testing.assert_close(network(raw)[0, 0], flat(windows)[:, 0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match=r"found \(2,"):
        network(raw[:, :, :2])


def test_depth_and_filters_are_part_of_an_architectures_name():
    form = find_architecture("unet2d-depth2-filter5")
    network = form.build(4, outputs=2).eval()
    assert form.stride == (1, 4, 4)
    assert network(torch.zeros(1, 1, 12, 8)).shape == (1, 2, 12, 8)
    assert {m.kernel_size for m in network.encoder.modules() if isinstance(m, torch.nn.Conv2d)} == {
        (5, 5)
    }
    same = find_architecture("unet2d-plain-depth4").build(64)
    assert count_parameters(same) == 31_030_593
    for name in ("unet2d-depth9", "unet2d-filter4", "unet3d-depth3", "unet2d-valid-depth3"):
        with pytest.raises(ModelError, match="no architecture is called"):
            find_architecture(name)
