"""Load the network of a prediction, once in each process."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from volseg.models.compiled import OPENVINO, compile_predictor
from volseg.models.devices import choose_device, choose_precision
from volseg.models.inference import Predictor, build_predictor
from volseg.models.registry import Views, find_architecture
from volseg.storage.weights import load_card, load_weights


@dataclass(frozen=True)
class NetworkChoice:
    """A network, and how it evaluates tiles; see `volseg.models.inference`.

    Attributes
    ----------
    model : path of the weights.
    device, precision : never ``auto``: what was chosen when the run was planned, for all workers.
    centerline : whether what the network says of centerlines is wanted, too.
    """

    model: str
    device: str
    precision: str
    tta: bool = False
    rotations: bool = False
    views: Views = "xy"
    centerline: bool = False


_LOADING = threading.Lock()


def predictor_for(choice: NetworkChoice) -> Predictor:
    """Load a model once per process."""
    with _LOADING:
        return _load_predictor(choice)


@lru_cache(maxsize=2)
def _load_predictor(choice: NetworkChoice) -> Predictor:
    card, compiled = load_card(choice.model), choice.device == OPENVINO
    name, precision = ("cpu", "float32") if compiled else (choice.device, choice.precision)
    device, form = choose_device(name), find_architecture(card.architecture)
    predictor = build_predictor(
        form.build(card.width),
        load_weights(Path(choice.model), card),
        device,
        choose_precision(precision, device),
        architecture=form,
        tta=choice.tta,
        rotations=choice.rotations,
        centerline=choice.centerline,
    )
    ranges = card.ranges if choice.precision == "int8" else None
    return compile_predictor(predictor, form, ranges) if compiled else predictor
