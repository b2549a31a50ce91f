"""Checkpoints of a training run: tensors as safetensors, numbers in their metadata.

A checkpoint is replaced by renaming a finished file, so a run may be killed at any moment.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from volseg.errors import ModelError


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training run after a step.

    Attributes
    ----------
    step : steps done.
    seconds : time spent on them.
    config : the run's configuration, as JSON.
    tensors : ``network.*``, ``averaged.*`` and ``optimizer.*``.
    """

    step: int
    seconds: float
    config: str
    tensors: dict[str, Tensor]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint durably, replacing an older one only when complete."""
    state = {"step": checkpoint.step, "seconds": checkpoint.seconds}
    metadata = {"state": json.dumps(state), "config": checkpoint.config}
    temporary = path.with_suffix(".tmp")
    save_file(
        {k: v.detach().contiguous() for k, v in checkpoint.tensors.items()}, temporary, metadata
    )
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint, or return None where there is none yet.

    Raises
    ------
    ModelError
        If the file is damaged or is no checkpoint.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        state = json.loads(metadata["state"])
        return Checkpoint(state["step"], state["seconds"], metadata["config"], tensors)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path} is not a readable checkpoint ({error}); move it away to start anew"
        ) from error


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put a prefix before every name."""
    return {f"{prefix}.{k}": v for k, v in tensors.items()}


def unprefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Select the names that have a prefix, and cut it off."""
    start = f"{prefix}."
    return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten the optimizer's state to ``<parameter index>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `optimizer_tensors`."""
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
