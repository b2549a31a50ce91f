"""Networks in forms that other programs run: TorchScript and ONNX, checked against the original."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit._fuser import optimized_execution
from torch.jit._trace import TracerWarning

from volseg.errors import ModelError, ParameterError, require
from volseg.models.folding import fold_norms
from volseg.models.logits import as_binary
from volseg.models.maps import count_exclusive
from volseg.models.registry import Architecture, fill_network, find_architecture
from volseg.storage.cards import Card, load_card
from volseg.storage.weights import load_weights
from volseg.types import Zyx

OPSET = 17
"""Of ONNX: the newest that the tracing exporter of PyTorch writes without converting."""
TOLERANCE = 1e-4
"""Probabilities that differ by more than this are not those of the same network."""


@dataclass(frozen=True)
class Network:
    """A model that is ready to be exported.

    Attributes
    ----------
    form : how it may be tiled.
    logits : the network for inference: norms folded, float32.
    """

    card: Card
    form: Architecture
    weights: dict[str, Tensor]
    logits: nn.Module

    @property
    def probabilities(self) -> nn.Module:
        """The network with probabilities in place of logits."""
        return Probabilities(self.logits).eval()

    def inputs(self, tile: Zyx, seed: int, batch: int = 1) -> Tensor:
        """Draw random input: float32 in -1..1, shape (n, 1, z, y, x) or (n, 1, y, x)."""
        sizes = self.form.input_shape(tile)[3 - self.form.dimensions :]
        noise = np.random.default_rng(seed).uniform(-1, 1, (batch, 1, *sizes))
        return torch.from_numpy(noise.astype(np.float32))


class Probabilities(nn.Module):
    """A network whose logits become probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Map raw, float, shape (n, 1, *space), to probabilities."""
        return torch.sigmoid(self.network(x))


def build_network(architecture: str, width: int, outputs: int = 1, exclusive: int = 0) -> nn.Module:
    """Build a network with random weights in evaluation mode, as packages do to rebuild theirs.

    Of classes that exclude one another (``exclusive``), it gives the logits of each against the
    others, of which other programs take the sigmoid.
    """
    network = find_architecture(architecture).build(width, outputs=outputs).eval()
    if exclusive:  # not a module around it, which would rename its weights
        network.register_forward_hook(lambda _module, _given, found: as_binary(found, exclusive))
    return network


def load_network(model: str | Path) -> Network:
    """Load a model for export, by its shipped name or its path."""
    card = load_card(model)
    weights = load_weights(model, card)
    exclusive = count_exclusive(card.maps)
    network = build_network(card.architecture, card.width, card.outputs, exclusive)
    network = fill_network(network, weights)
    logits = fold_norms(network.float()).requires_grad_(requires_grad=False)
    return Network(card, card.form, weights, logits)


def smallest_tile(form: Architecture, least: Zyx = (1, 1, 1)) -> Zyx:
    """Find the smallest tile of at least some size, and at least one multiple along each axis.

    Examples
    --------
    >>> smallest_tile(find_architecture("emnet"), (1, 17, 17))
    (4, 24, 24)
    """
    z, y, x = (max(n, m) for n, m in zip(least, form.multiple, strict=True))
    return form.fit((z, y, x))


@contextmanager
def _quiet_tracing() -> Iterator[None]:
    """Silence the warnings of tracing: checks of shapes become constants, as intended.

    Both tracers are deprecated upstream. They stay until their successors write files that
    programs other than PyTorch read; every export is checked, so a silent change would be seen.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def trace_network(network: nn.Module, example: Tensor) -> torch.jit.ScriptModule:
    """Trace a network as TorchScript; sizes stay free."""
    with _quiet_tracing(), torch.no_grad():
        traced: torch.jit.ScriptModule = torch.jit.trace(network, example, check_trace=False)
    return traced


def write_onnx(network: nn.Module, example: Tensor, path: Path) -> None:
    """Write a network as ONNX; batch and sizes stay free."""
    require("onnx", "export", "ONNX files need onnx")
    if any(isinstance(m, nn.InstanceNorm2d | nn.InstanceNorm3d) for m in network.modules()):
        raise ParameterError(
            "instance norms have no ONNX form while sizes stay free; export this model as "
            "torchscript"
        )
    axes = {0: "batch", **dict(enumerate("zyx"[-(example.ndim - 2) :], start=2))}
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with _quiet_tracing(), torch.no_grad():
            torch.onnx.export(
                network,
                (example,),
                str(path),
                dynamo=False,
                input_names=["raw"],
                output_names=["probabilities"],
                dynamic_axes={"raw": axes, "probabilities": axes},
                opset_version=OPSET,
            )
    finally:
        exporter.setLevel(level)


def onnx_runner(path: Path) -> Callable[[Tensor], Tensor]:
    """Open an ONNX file with ONNX Runtime, or with the slow reference where that is missing."""
    if find_spec("onnxruntime") is not None:
        import onnxruntime  # type: ignore[import-untyped]

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    else:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(str(path))
    return lambda x: torch.from_numpy(np.asarray(session.run(None, {"raw": x.numpy()})[0]))


@torch.inference_mode()
def largest_difference(
    original: Callable[[Tensor], Tensor], exported: Callable[[Tensor], Tensor], x: Tensor
) -> float:
    """Find the largest absolute difference of two forms of a network on one input.

    Raises
    ------
    ModelError
        If it is larger than `TOLERANCE`, or shapes differ.
    """
    with optimized_execution(False):  # optimising takes ten times as long as one run
        wanted, found = original(x), exported(x)
    if wanted.shape != found.shape:
        raise ModelError(
            f"the exported network gives shape {tuple(found.shape)}, the original "
            f"{tuple(wanted.shape)}; nothing was written"
        )
    difference = float((wanted - found).abs().max())
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the exported network differs from the original by {difference:g}, more than "
            f"{TOLERANCE:g}; nothing was written"
        )
    return difference
