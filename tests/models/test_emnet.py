"""EM-Net is the published network, and says what it cannot take."""

from __future__ import annotations

import pytest
import torch

from volseg.errors import ModelError, ParameterError, ShapeError
from volseg.models import emnet
from volseg.models.emnet import EMNet
from volseg.models.folding import fold_norms
from volseg.models.registry import count_parameters, find_architecture

NAMES = ["emnet", "emnet-paper", "emnet-single"]


@pytest.mark.parametrize(
    ("architecture", "width", "parameters"),
    [
        ("emnet", 64, 3_173_332),
        ("emnet", 32, 795_052),
        ("emnet-paper", 64, 3_173_332),
        # the published 2,917,396 keep the head of the centerline decoder: 32 weights and a bias
        ("emnet-single", 64, 2_917_396 - 33),
    ],
)
def test_parameter_counts_are_those_published(architecture, width, parameters):
    with torch.device("meta"):
        network = find_architecture(architecture).build(width)
    assert count_parameters(network) == parameters


@pytest.mark.parametrize("architecture", NAMES)
def test_outputs_have_the_shape_of_the_input(architecture):
    network = find_architecture(architecture).build(8).eval()
    raw = torch.rand(2, 1, 8, 32, 16)
    with torch.no_grad():
        logits, lines = network.both(raw)
        assert network(raw).shape == logits.shape == raw.shape
    assert lines is None if architecture == "emnet-single" else lines.shape == raw.shape


@pytest.mark.parametrize("architecture", ["emnet", "emnet-paper"])
def test_every_parameter_gets_a_gradient(architecture):
    torch.manual_seed(0)
    network = find_architecture(architecture).build(8)
    logits, lines = network.both(torch.rand(1, 1, 8, 32, 32))
    (logits.square().mean() + lines.square().mean()).backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_the_published_form_has_instance_norm_and_the_default_batch_norm():
    assert not any(isinstance(m, torch.nn.BatchNorm3d) for m in _modules("emnet-paper"))
    assert not any(isinstance(m, torch.nn.InstanceNorm3d) for m in _modules("emnet"))


def _modules(architecture):
    return find_architecture(architecture).build(8).modules()


@pytest.mark.parametrize("shape", [(6, 32, 32), (8, 20, 32), (8, 32, 36)])
def test_a_bad_size_is_named(shape):
    with pytest.raises(ShapeError, match=r"multiples of \(4, 8, 8\), found \(\d+, \d+, \d+\)"):
        EMNet(8)(torch.rand(1, 1, *shape))


def test_odd_sizes_of_the_coarsest_level_change_what_is_near_the_border_alone():
    block = EMNet(8).eval().encoder[2].first
    x = torch.rand(1, 32, 4, 17, 23)
    with torch.no_grad():
        whole, odd = block(x), block(x[..., :15, :21])
    assert odd.shape[2:] == (4, 15, 21)
    torch.testing.assert_close(odd[..., :8, :14], whole[..., :8, :14], rtol=0, atol=1e-6)


def test_folded_networks_shuffle_channels_by_their_weights(monkeypatch):
    torch.manual_seed(2)
    network, x = EMNet(8).eval(), torch.rand(1, 1, 4, 8, 16)
    with torch.no_grad():
        expected = network.both(x)
        folded = fold_norms(fold_norms(network))
        monkeypatch.setattr(emnet, "channel_shuffle", None)
        for found, map_ in zip(folded.both(x), expected, strict=True):
            torch.testing.assert_close(found, map_, rtol=1e-5, atol=1e-5)


def test_a_bad_width_and_an_unknown_name_are_named():
    with pytest.raises(ParameterError, match="multiple of 8, found 12"):
        EMNet(12)
    with pytest.raises(ModelError, match="emnet-paper"):
        find_architecture("resnet")
