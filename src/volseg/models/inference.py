"""Make a trained network fast: fold its norms away, choose its device and precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from volseg.errors import ModelError, ParameterError
from volseg.models.emnet import EMNet, Hvec, Stem, SubBlock
from volseg.types import Floats

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@torch.no_grad()
def _absorb(convs: list[nn.Conv3d], norm: nn.Module) -> nn.Identity:
    """Fold a batch norm into the convolutions whose sum it normalises."""
    if not isinstance(norm, nn.BatchNorm3d):
        raise TypeError(f"only batch norm can be folded, found {type(norm).__name__}")
    scale = torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps)
    offset = -cast(Tensor, norm.running_mean) * scale
    for k, conv in enumerate(convs):
        conv.weight *= scale.reshape(-1, 1, 1, 1, 1)
        bias = torch.zeros_like(scale) if conv.bias is None else conv.bias * scale
        if k == 0:
            bias = bias + offset
        if k == 0 or conv.bias is not None:
            conv.bias = nn.Parameter(bias)
    return nn.Identity()


def fold_norms(network: EMNet) -> EMNet:
    """Fold every batch norm into the convolution before it, in place; outputs stay the same.

    Networks with instance norm are returned as they are: their norms depend on the input.
    """
    if not any(isinstance(m, nn.BatchNorm3d) for m in network.modules()):
        return network
    for module in network.modules():
        if isinstance(module, SubBlock):
            for k in range(len(module.convs)):
                conv = cast(nn.Conv3d, module.convs[k])
                module.norms[k] = _absorb([conv], module.norms[k])
    for module in network.modules():
        if isinstance(module, Hvec):
            module.first_norm = _absorb([module.first.fuse], module.first_norm)
            module.second_norm = _absorb([module.second.fuse, module.residual], module.second_norm)
        elif isinstance(module, Stem):
            module.conv_norm = _absorb([module.conv], module.conv_norm)
            module.block_norm = _absorb([module.block.fuse], module.block_norm)
    return network


@dataclass(frozen=True)
class Predictor:
    """A network that is ready to evaluate tiles, one at a time.

    Tiles are never batched with others on the CPU, so a tile's result cannot depend on which
    others it was evaluated with.
    """

    network: nn.Module
    device: torch.device
    precision: torch.dtype

    @torch.inference_mode()
    def __call__(self, tile: Floats) -> Floats:
        """Map normalised raw, float32, shape (z, y, x), to probabilities of the same shape."""
        x = torch.from_numpy(np.ascontiguousarray(tile))[None, None]
        x = x.to(self.device, self.precision).contiguous(memory_format=torch.channels_last_3d)
        probabilities: Floats = self.network(x)[0, 0].float().sigmoid().cpu().numpy()
        return probabilities


def choose_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device.

    Raises
    ------
    ParameterError
        If a GPU is asked for and there is none, or the name is unknown.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in {"cpu", "cuda"}:
        raise ParameterError(f"a device is auto, cpu or cuda, found {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ParameterError("no CUDA device is usable here; give --device cpu or auto")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Turn ``auto``, ``float32`` or ``bfloat16`` into a type; auto takes bfloat16 where it is fast.

    Raises
    ------
    ParameterError
        If the name is unknown.
    """
    if name == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported()
        else:
            # No public name yet for "this CPU multiplies bfloat16 in hardware".
            fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        name = "bfloat16" if fast else "float32"
    if name not in PRECISIONS:
        raise ParameterError(f"a precision is auto, {' or '.join(PRECISIONS)}, found {name!r}")
    return PRECISIONS[name]


def build_predictor(
    network: nn.Module, weights: Mapping[str, Tensor], device: torch.device, precision: torch.dtype
) -> Predictor:
    """Load weights into a network and make it as fast as its device allows.

    Raises
    ------
    ModelError
        If names or shapes of the weights are not the network's.
    """
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ModelError(f"the weights do not fit the network their card names: {error}") from error
    network.eval().requires_grad_(requires_grad=False)
    if isinstance(network, EMNet):
        network = fold_norms(network)
    network = network.to(device, precision)
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return Predictor(network, device, precision)
