"""OpenVINO gives what PyTorch gives, alone and in batches, with integers where ranges are known."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch

from volseg.errors import ModelError, ParameterError
from volseg.models.compiled import (
    check_compiled,
    compile_predictor,
    measure_ranges,
    round_convolutions,
)
from volseg.models.inference import build_predictor
from volseg.models.registry import find_architecture

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs OpenVINO"
)
CPU = torch.device("cpu")
TILE = {2: (3, 32, 48), 3: (16, 32, 32)}


def _predictor(name):
    torch.manual_seed(0)
    form = find_architecture(name)
    network = form.build(8)
    return build_predictor(network, network.state_dict(), CPU, torch.float32, form)


def _tile(predictor):
    return np.random.default_rng(0).uniform(-1, 1, TILE[predictor.dimensions]).astype(np.float32)


def _inputs(predictor):
    tile = torch.from_numpy(_tile(predictor))
    return [tile[:, None]] if predictor.dimensions == 2 else [tile[None, None]]


@needs_openvino
@pytest.mark.parametrize("name", ["unet2d", "emnet"])
def test_float32_is_that_of_pytorch(name):
    plain = _predictor(name)
    compiled = compile_predictor(plain, find_architecture(name), None)
    tile = _tile(plain)
    np.testing.assert_allclose(compiled(tile), plain(tile), atol=1e-5)


@needs_openvino
def test_int8_is_the_rounded_network_and_a_slice_is_the_same_alone():
    plain = _predictor("unet2d")
    ranges = measure_ranges(plain.network, _inputs(plain))
    rounded = round_convolutions(plain.network, ranges)
    compiled = compile_predictor(plain, find_architecture("unet2d"), ranges)
    tile = _tile(plain)
    with torch.inference_mode():
        expected = torch.sigmoid(rounded(_inputs(plain)[0]))[:, 0].numpy()
    found = compiled(tile)
    # a half is rounded up by one and to even by the other, here and there
    assert np.abs(found - expected).mean() < 0.002
    assert np.abs(found - plain(tile)).mean() < 0.02
    np.testing.assert_array_equal(found[1:2], compiled(tile[1:2]))


def test_ranges_are_the_least_and_the_largest_inputs():
    plain = _predictor("unet2d")
    ranges = measure_ranges(plain.network, _inputs(plain))
    first = next(iter(ranges.values()))
    tile = _tile(plain)
    assert first == pytest.approx((tile.min(), tile.max()))
    assert all(low <= 0 <= high for low, high in ranges.values())
    with pytest.raises(ModelError, match="not those of the network"):
        round_convolutions(plain.network, {"other": (0.0, 1.0)})


def test_precisions_and_a_missing_library_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ParameterError, match=r"pip install 'volseg\[openvino\]'"):
        check_compiled("auto")


@needs_openvino
def test_nothing_is_reported_to_anybody():
    assert check_compiled("auto") == "float32"
    assert sys.modules["openvino_telemetry"] is None
    with pytest.raises(ParameterError, match="float32 or int8, found 'bfloat16'"):
        check_compiled("bfloat16")
