"""State of training runs: checkpoints, and the log, a row of a CSV file for each validation.

A checkpoint holds tensors as safetensors, and beside them the state as JSON.

A checkpoint is replaced by renaming a finished file, so a run may be killed at any moment.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from volseg.errors import ModelError, StorageError, own_words
from volseg.storage.files import drafting, write_file
from volseg.storage.stores import parse_json

STATE = ("step", "seconds", "losses", "best", "stale")
"""Fields of a checkpoint that are kept beside its tensors."""
DAMAGED = (OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError)
"""Errors of reading a damaged checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training run after a step.

    Attributes
    ----------
    config : the run's configuration, as JSON.
    tensors : ``network.*``, ``averaged.*`` and ``optimizer.*``.
    losses : of the steps since the last row of the log.
    best : row of the log with the best validation so far; None before the first.
    stale : validations since that one.
    """

    step: int
    seconds: float
    config: str
    tensors: dict[str, Tensor]
    losses: tuple[float, ...] = ()
    best: Mapping[str, float] | None = None
    stale: int = 0


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint durably, replacing an older one only when complete."""
    state = {name: getattr(checkpoint, name) for name in STATE}
    metadata = {"state": json.dumps(state), "config": checkpoint.config}
    tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.tensors.items()}
    try:
        with drafting(path, parents=False) as draft:
            save_file(tensors, draft, metadata)
    except (StorageError, SafetensorError) as error:
        older = "; the one before it stands" if path.exists() else ""
        why = own_words(error, "the disk may be full")
        raise StorageError(f"cannot write the checkpoint {path}: {why}{older}") from error


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint, or return None where there is none yet."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        state = parse_json(metadata["state"])
        if not isinstance(parse_json(metadata["config"]), dict):
            raise TypeError("its configuration is no JSON object")
        return Checkpoint(
            _count(state["step"]),
            float(state["seconds"]),
            metadata["config"],
            tensors,
            tuple(map(float, state.get("losses", ()))),
            _best(state.get("best")),
            _count(state.get("stale", 0)),
        )
    except (*DAMAGED, SafetensorError) as error:
        raise ModelError(
            f"{path} is not a readable checkpoint; move it away to start anew"
        ) from error


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a number of steps, found {value!r:.40}")
    return value


def _best(row: Any) -> Mapping[str, float] | None:
    """Read a row of the log."""
    if row is None:
        return None
    best = {str(name): float(value) for name, value in row.items()}
    missing = {"step", "jaccard", "threshold"} - set(best)
    if missing:
        raise ValueError(f"its best validation lacks {', '.join(sorted(missing))}")
    return {**best, "step": int(best["step"])}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a prefix before every name."""
    return {f"{prefix}.{k}": v for k, v in tensors.items()}


def unprefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the names that have a prefix, and cut it off."""
    start = f"{prefix}."
    return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten the optimizer's state to ``<parameter index>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo `optimizer_tensors`.

    Moments lie in memory as their parameters do, so that the next step is the same to the bit.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)  # noqa: PLW2901
        entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the rows of a log; none where there is no log yet."""
    try:
        return [{k: float(v) for k, v in row.items()} for row in _read_rows(path)]
    except (ValueError, TypeError) as error:
        raise StorageError(f"cannot read the log {path}: its rows are no numbers") from error


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append to a CSV log, with a header where the file is new; a kill leaves no torn row."""
    _write_rows(path, [*_read_rows(path), row])


def trim_log(path: Path, step: int) -> None:
    """Drop the rows of a CSV log that lie after a step: a resumed run writes them again."""
    rows = _read_rows(path)
    kept = [r for r in rows if None not in r.values() and all(r.values())]
    kept = [r for r in kept if str(r.get("step")).isdigit() and int(r["step"]) <= step]
    if kept and kept != rows:
        _write_rows(path, kept)
    elif not kept:
        path.unlink(missing_ok=True)


def _read_rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        why = own_words(error, "it is no CSV")
        raise StorageError(f"cannot read the log {path}: {why}") from error


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    write_file(path, text.getvalue().encode(), parents=False)
