"""Choose where the network of a run computes, and in which precision: once, for all workers."""

from __future__ import annotations

import torch

from volseg.engine.options import EngineOptions
from volseg.models.devices import (
    check_device,
    check_precision,
    choose_device,
    choose_precision,
    multiplies_bfloat16,
)

AUTO_ELSEWHERE = {"cpu": "float32", "cuda": "bfloat16"}
"""The precision where workers are other machines, which nobody sees when a run is planned: what any
CPU is fast in, and GPUs of compute capability 8.0 or higher; workers with others refuse to work."""


def find_device(device: str, precision: str, engine: EngineOptions) -> tuple[str, str]:
    """Choose where the network runs, and in which precision.

    Workers elsewhere may have what is lacking here, and lack what is here; so what this machine
    can do does not decide their precision. One that cannot do what was chosen ends the run.

    Parameters
    ----------
    device : ``auto``, ``cpu``, ``cuda``, ``mps`` or ``xpu``
    precision : ``auto``, ``float32`` or ``bfloat16``
    engine : EngineOptions

    Returns
    -------
    device : the same, but for ``auto``
    precision : ``float32`` or ``bfloat16``

    Raises
    ------
    ParameterError
        If it cannot run there, as far as that is known here.
    """
    if not engine.elsewhere:
        here = choose_device(device)
        return here.type, str(choose_precision(precision, here)).removeprefix("torch.")
    gpus = device == "auto" and engine.cluster is not None and engine.cluster.gpus > 0
    where = "cuda" if gpus else device
    if where == "auto":
        where = choose_device(where).type
    check_device(where)
    name = AUTO_ELSEWHERE.get(where, "float32") if precision == "auto" else precision
    check_precision(name)
    return where, name


def note_emulation(device: str, precision: str, engine: EngineOptions) -> tuple[str, ...]:
    """Warn of a precision that this machine's CPU can only emulate."""
    here = device == "cpu" and not engine.elsewhere
    if precision != "bfloat16" or not here or multiplies_bfloat16(torch.device(device)):
        return ()
    note = "this CPU does not multiply bfloat16 in hardware, so it takes about five times as long"
    return (f"{note} as in --precision float32",)
