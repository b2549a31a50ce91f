"""Inference: folding changes nothing, precision is checked, wrong weights are refused."""

from __future__ import annotations

import copy

import pytest
import torch

from volseg.errors import ModelError, ParameterError
from volseg.models.emnet import EMNet
from volseg.models.folding import fold_norms
from volseg.models.inference import build_predictor, choose_device, choose_precision

CPU = torch.device("cpu")


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


def test_weights_of_another_network_are_refused(network):
    with pytest.raises(ModelError, match="do not fit"):
        build_predictor(EMNet(16), network.state_dict(), CPU, torch.float32)


def test_unknown_choices_are_refused():
    with pytest.raises(ParameterError, match="found 'tpu'"):
        choose_device("tpu")
    with pytest.raises(ParameterError, match="found 'int8'"):
        choose_precision("int8", CPU)
    if not torch.cuda.is_available():
        with pytest.raises(ParameterError, match="no CUDA device"):
            choose_device("cuda")
