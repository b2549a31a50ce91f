"""Let OpenVINO evaluate a network on a CPU, in float32 or with 8-bit convolutions.

Where a CPU does not multiply bfloat16, that is several times as fast as PyTorch (decision 0068).
"""

from __future__ import annotations

import socket
import sys
import threading
import warnings
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from volseg.errors import ModelError, ParameterError
from volseg.models.inference import Predictor
from volseg.models.registry import Architecture

OPENVINO = "openvino"
"""The name of the device."""
PRECISIONS = ("float32", "int8")
"""In which it evaluates networks."""
LEVELS = 255
"""Steps of an activation's range."""
LARGEST = 63
"""Of a weight: 7 bits, because older CPUs add two products of 8 bits in 16, and would clip."""
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
Ranges = Mapping[str, tuple[float, float]]
"""Least and largest input of each convolution, by its name."""


def measure_ranges(network: nn.Module, inputs: Iterable[Tensor]) -> dict[str, tuple[float, float]]:
    """Measure what the convolutions of a network receive.

    Parameters
    ----------
    network : with its norms folded, in evaluation mode
    inputs : as the network takes them

    Returns
    -------
    by each convolution's name the least and the largest input; 0 lies between them.
    """
    found: dict[str, tuple[float, float]] = {}

    def look(name: str, received: Tensor) -> None:
        low, high = found.get(name, (0.0, 0.0))
        found[name] = min(low, float(received.min())), max(high, float(received.max()))

    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: look(name, given[0]))
        for name, module in network.named_modules()
        if isinstance(module, CONVOLUTIONS)
    ]
    with torch.inference_mode():
        for each in inputs:
            network(each)
    for hook in hooks:
        hook.remove()
    return found


class Rounded(nn.Module):
    """A convolution whose weights and inputs are rounded to 8-bit numbers.

    PyTorch computes it in float32, slowly; OpenVINO recognises it and computes with integers.
    """

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, low: float, high: float) -> None:
        super().__init__()
        self.conv = conv
        self.step = max((high - low) / LEVELS, 1e-12)
        self.zero = round(-low / self.step)
        each = conv.weight.detach().abs().flatten(1).amax(1)
        self.register_buffer("steps", each.clamp_min(1e-12) / LARGEST)
        self.register_buffer("zeros", torch.zeros(len(each), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve an input as `torch.nn.Conv2d` does."""
        conv, steps, zeros = self.conv, cast(Tensor, self.steps), cast(Tensor, self.zeros)
        x = torch.fake_quantize_per_tensor_affine(x, self.step, self.zero, 0, LEVELS)
        weight = torch.fake_quantize_per_channel_affine(conv.weight, steps, zeros, 0, -127, 127)
        return cast(Tensor, conv._conv_forward(x, weight, conv.bias))


def round_convolutions(network: nn.Module, ranges: Ranges) -> nn.Module:
    """Return a copy of a network whose convolutions are `Rounded`."""
    rounded = deepcopy(network)
    named = {n for n, m in network.named_modules() if isinstance(m, CONVOLUTIONS)}
    if named != set(ranges):
        raise ModelError("the ranges for int8 are not those of the network's convolutions")
    for name, (low, high) in ranges.items():
        parent, _, leaf = name.rpartition(".")
        conv = cast(nn.Conv2d, rounded.get_submodule(name))
        setattr(rounded.get_submodule(parent), leaf, Rounded(conv, min(low, 0.0), max(high, 0.0)))
    return rounded


def check_compiled(precision: str, *, here: bool = True) -> str:
    """Check that OpenVINO is there if it runs here, and return the precision; auto is float32."""
    if here:
        _import_openvino()
    chosen = "float32" if precision == "auto" else precision
    if chosen not in PRECISIONS:
        raise ParameterError(
            f"--device openvino computes in {' or '.join(PRECISIONS)}, found {precision!r}"
        )
    return chosen


class Compiled(nn.Module):
    """A network that OpenVINO evaluates, with as many threads as PyTorch has.

    An image gets the same numbers in a batch as alone.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        super().__init__()
        openvino = _import_openvino()
        with torch.inference_mode(), warnings.catch_warnings():
            # tracing is deprecated, and says of each check of a size that it will not be repeated
            warnings.simplefilter("ignore")
            model = openvino.convert_model(network, example_input=example)
        settings = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._model = openvino.Core().compile_model(model, "CPU", settings)
        self._own = threading.local()

    def forward(self, x: Tensor) -> Tensor:
        """Map raw, float32, shape (n, 1, *space), to logits."""
        if not hasattr(self._own, "request"):
            self._own.request = self._model.create_infer_request()
        found = self._own.request.infer([x.contiguous().numpy()])
        return torch.from_numpy(found[0].copy())


def compile_predictor(predictor: Predictor, form: Architecture, ranges: Ranges | None) -> Predictor:
    """Let OpenVINO evaluate the network of a predictor on the CPU.

    Parameters
    ----------
    predictor : on the CPU, in float32, without centerlines
    ranges : of its convolutions, which are then computed with 8-bit numbers
    """
    network = predictor.network
    sizes = form.input_shape(form.fit(form.multiple))  # small: tracing evaluates it several times
    example = torch.zeros(1, 1, *sizes[3 - form.dimensions :])
    rounded = network if ranges is None else round_convolutions(network, ranges)
    return replace(predictor, network=Compiled(rounded, example))


def _import_openvino() -> Any:
    # OpenVINO reports to its makers that it is used, unless this package cannot be imported
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise ParameterError(
            f"--device openvino needs OpenVINO on {socket.gethostname()}: "
            f"pip install 'volseg[openvino]'"
        ) from error
    return openvino
