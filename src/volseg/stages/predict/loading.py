"""Load the network of a prediction, once in each process."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from volseg.errors import ModelError, ParameterError
from volseg.models.compiled import OPENVINO, compile_predictor
from volseg.models.devices import CPU_SLICES, TF32, choose_device, choose_precision, gpu_name
from volseg.models.inference import Predictor, build_predictor
from volseg.models.registry import Views
from volseg.storage.cards import load_card
from volseg.storage.weights import load_weights


@dataclass(frozen=True)
class NetworkChoice:
    """A network, and how it evaluates tiles; see `volseg.models.inference`.

    Attributes
    ----------
    device, precision : never ``auto``: what was chosen when the run was planned, for all workers.
    gpu : name of the GPU; None for others, and where any will do.
    sha256 : of the weights when the run was planned; None takes those that are there.
    """

    model: str
    device: str
    precision: str
    tta: bool = False
    rotations: bool = False
    views: Views = "xy"
    maps: tuple[int, ...] = (0,)
    batch: int = CPU_SLICES
    gpu: str | None = None
    sha256: str | None = None


_LOADING = threading.RLock()
if hasattr(os, "register_at_fork"):
    # a child must not find it held by a thread that it lacks
    os.register_at_fork(
        before=_LOADING.acquire, after_in_parent=_LOADING.release, after_in_child=_LOADING.release
    )


def predictor_for(choice: NetworkChoice) -> Predictor:
    """Load a model once per process."""
    # others may ask the same network for gradients
    with _LOADING, torch.inference_mode(mode=False):
        return _load_predictor(choice)


@lru_cache(maxsize=2)
def _load_predictor(choice: NetworkChoice) -> Predictor:
    card, compiled = load_card(choice.model), choice.device == OPENVINO
    if choice.sha256 not in (None, card.sha256):
        raise ModelError(
            f"{choice.model} was replaced by other weights since this run was planned; run the "
            f"command again"
        )
    name, given = ("cpu", "float32") if compiled else (choice.device, choice.precision)
    device, form = choose_device(name), card.form
    if choice.gpu is not None and choice.gpu != gpu_name(device):
        raise ParameterError(
            f"the GPU of {socket.gethostname()} is a {gpu_name(device)}, and this run is for a "
            f"{choice.gpu}, which rounds otherwise; run it on one kind"
        )
    network = form.build(card.width, outputs=card.outputs)
    weights, precision = load_weights(Path(choice.model), card), choose_precision(given, device)
    predictor = replace(
        build_predictor(network, weights, device, precision, form),
        tta=choice.tta,
        rotations=choice.rotations,
        maps=card.maps,
        wanted=choice.maps,
        batch=choice.batch,
        tf32=given == TF32,
    )
    ranges = card.ranges if choice.precision == "int8" else None
    return compile_predictor(predictor, form, ranges) if compiled else predictor
