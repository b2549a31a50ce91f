"""The training loop: step, average, validate, log, checkpoint."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from volseg.errors import ModelError, TrainingError
from volseg.io.checkpoints import (
    Checkpoint,
    append_row,
    optimizer_tensors,
    prefixed,
    restore_optimizer,
    save_checkpoint,
    unprefixed,
)
from volseg.models.emnet import EMNet
from volseg.models.inference import choose_precision
from volseg.models.registry import find_architecture
from volseg.stages.train_loader import Batch, load_batches
from volseg.stages.train_validation import validate
from volseg.training.config import TrainConfig, learning_rate
from volseg.training.losses import emnet_loss
from volseg.training.sampling import Source

CHECKPOINT_SECONDS = 120.0
CHECKPOINT, LOG = "checkpoint.safetensors", "log.csv"
SAFE_DEPTH = 3
"""Slices at the network's deepest level from which gradients in bfloat16 can be trusted."""


@dataclass
class Run:
    """A training run in progress.

    Attributes
    ----------
    config : the recipe.
    network, averaged : the network that is trained, and the average of its weights.
    optimizer : of the network.
    precision : that the forward pass runs in.
    step, seconds : what is done.
    losses : of the steps since the last row of the log.
    best : row of the log with the best validation so far.
    """

    config: TrainConfig
    network: EMNet
    averaged: EMNet
    optimizer: torch.optim.AdamW
    precision: torch.dtype
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    best: Mapping[str, float] | None = None

    @property
    def progress(self) -> float:
        """The part of the run that is done."""
        if self.config.steps is not None:
            return self.step / self.config.steps
        return self.seconds / 60 / (self.config.minutes or 1)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.progress >= 1

    def checkpoint(self, configuration: str) -> Checkpoint:
        """Everything that a resumed run needs."""
        tensors = {
            **prefixed("network", self.network.state_dict()),
            **prefixed("averaged", self.averaged.state_dict()),
            **prefixed("optimizer", optimizer_tensors(self.optimizer)),
        }
        return Checkpoint(
            self.step, self.seconds, configuration, tensors, tuple(self.losses), self.best
        )


def training_precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """Choose bfloat16 where it is fast and right.

    On CPUs the weight gradients of kernels three slices deep are wrong in bfloat16, up to infinity,
    where there are fewer slices than that (torch 2.13; `test_gradients_can_be_trusted`).
    """
    stride = find_architecture(config.architecture).stride
    if device.type == "cpu" and config.patch[0] // stride[0] < SAFE_DEPTH:
        return torch.float32
    return choose_precision("auto", device)


def start_run(
    config: TrainConfig, saved: Checkpoint | None, device: torch.device, precision: torch.dtype
) -> Run:
    """Build the network from the seed, or continue from a checkpoint.

    Raises
    ------
    ModelError
        If there is no such architecture, or the checkpoint does not fit it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = find_architecture(config.architecture).build(config.width)
    network = network.to(device)
    network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    averaged = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    run = Run(config, network, averaged, optimizer, precision)
    if saved is not None:
        try:
            network.load_state_dict(unprefixed("network", saved.tensors))
            averaged.load_state_dict(unprefixed("averaged", saved.tensors))
            restore_optimizer(optimizer, unprefixed("optimizer", saved.tensors))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ModelError(f"the checkpoint does not fit its configuration: {error}") from error
        run.step, run.seconds = saved.step, saved.seconds
        run.losses, run.best = list(saved.losses), saved.best
    return run


def freeze_norms(network: nn.Module) -> None:
    """Let batch norms use their running statistics from now on."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eval()


@torch.no_grad()
def average_weights(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights, and the norms' statistics, a step towards the network's."""
    for a, b in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if a.is_floating_point():
            a.lerp_(b, 1 - decay)
        else:
            a.copy_(b)


def batch_loss(run: Run, batch: Batch) -> Tensor:
    """Evaluate the loss of a batch."""
    config, device = run.config, next(run.network.parameters()).device
    raw, target, centerline = (t.to(device, non_blocking=True) for t in batch)
    with torch.autocast(device.type, run.precision, enabled=run.precision != torch.float32):
        logits, lines = run.network.both(raw.contiguous(memory_format=torch.channels_last_3d))
    return emnet_loss(
        logits,
        target,
        None if lines is None else (lines, centerline),
        balance=config.balance,
        centerline_weight=config.centerline_weight,
        cross_entropy_weight=config.cross_entropy_weight,
    )


def take_step(run: Run, batch: Batch) -> float:
    """Take one optimizer step and return the loss.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    config, rate = run.config, learning_rate(run.config, run.progress)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.network.train()
    if run.progress >= config.freeze_norms_after:
        freeze_norms(run.network)
    loss = batch_loss(run, batch)
    if not torch.isfinite(loss):
        raise TrainingError(
            f"the loss of step {run.step} is {loss.item()}; train again into another folder with "
            f"a smaller --learning-rate than {config.learning_rate:g}"
        )
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(run.network.parameters(), config.clip)
    run.optimizer.step()
    run.step += 1
    average_weights(run.averaged, run.network, min(config.ema, run.step / (run.step + 10)))
    return loss.item()


def validate_run(run: Run, sources: Sequence[Source]) -> dict[str, float]:
    """Validate the averaged weights and describe the run in one row of the log."""
    multiple = find_architecture(run.config.architecture).multiple
    result = validate(run.averaged, sources, multiple, run.precision)
    row = {
        "step": run.step,
        "minutes": round(run.seconds / 60, 2),
        "learning_rate": float(f"{learning_rate(run.config, run.progress):.4g}"),
        "loss": round(float(np.mean(run.losses)), 6),
        "jaccard": round(result.jaccard, 6),
        "threshold": round(result.threshold, 6),
    }
    run.losses.clear()
    return row


@dataclass(frozen=True)
class Events:
    """What the loop tells: every step, every row of the log, and rows that are the best so far."""

    on_step: Callable[[Run], None]
    on_row: Callable[[Mapping[str, float]], None]
    on_best: Callable[[Run], None]


def train_steps(
    run: Run,
    sources: tuple[Sequence[Source], Sequence[Source]],
    folder: Path,
    configuration: str,
    workers: int,
    events: Events,
) -> None:
    """Train until the run's end.

    A checkpoint is written at every validation, after what it led to, and every two minutes in
    between: a killed run repeats what came after the last one, and comes out the same.

    Parameters
    ----------
    run : Run
    sources : for training, and for validation
    folder : Path
        Of checkpoint and log.
    configuration : JSON
        That the checkpoint is marked with.
    workers : int
        Threads that draw patches.
    events : Events

    Raises
    ------
    TrainingError
        If a loss is not finite.
    StorageError
        If the log or a checkpoint cannot be written.
    """
    training, validation = sources
    batches = load_batches(training, run.config, run.step, workers)
    saved = clock = time.monotonic()
    with contextlib.closing(batches):
        while not run.finished:
            run.losses.append(take_step(run, next(batches)))
            clock = _spend(run, clock)
            if run.step % run.config.validate_every == 0 or run.finished:
                row = validate_run(run, validation)
                append_row(folder / LOG, row)
                events.on_row(row)
                if run.best is None or row["jaccard"] > run.best["jaccard"]:
                    run.best = row
                    events.on_best(run)
                clock = _spend(run, clock)
                save_checkpoint(folder / CHECKPOINT, run.checkpoint(configuration))
                saved = clock
            elif clock - saved > CHECKPOINT_SECONDS:
                save_checkpoint(folder / CHECKPOINT, run.checkpoint(configuration))
                saved = clock
            events.on_step(run)


def _spend(run: Run, since: float) -> float:
    """Add the time since then to the run's; return now."""
    now = time.monotonic()
    run.seconds += now - since
    return now
