"""Train a network: draw patches, step, average, validate, checkpoint."""

from __future__ import annotations

import copy
import csv
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from volseg.errors import ConflictError, TrainingError
from volseg.io.checkpoints import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    prefixed,
    restore_optimizer,
    save_checkpoint,
    unprefixed,
)
from volseg.models.emnet import EMNet
from volseg.models.registry import find_architecture
from volseg.training.config import TrainConfig, learning_rate
from volseg.training.losses import emnet_loss
from volseg.training.sampling import Source, draw_patch, normalise

CHECKPOINT_SECONDS = 120.0
MARGIN = (4, 16, 16)
"""What a validation window gives to context on every side."""


@dataclass(frozen=True)
class Validation:
    """One validation: the best Jaccard index over all thresholds, and that threshold."""

    jaccard: float
    threshold: float


class Patches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Item n is the batch of step n, whoever loads it."""

    def __init__(self, sources: list[Source], config: TrainConfig) -> None:
        self.sources, self.config = sources, config
        sizes = np.array([math.prod(s.stop - s.start for s in v.roi) for v in sources], float)
        self.shares = sizes / sizes.sum()

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the batch of a step: raw, target and centerline, each (n, 1, z, y, x)."""
        config, batch = self.config, []
        for n in range(config.batch):
            rng = np.random.default_rng([config.seed, step, n])
            source = self.sources[rng.choice(len(self.sources), p=self.shares)]
            batch.append(
                draw_patch(
                    source,
                    rng,
                    config.patch,
                    config.augmentation,
                    foreground_share=config.foreground_share,
                )
            )
        arrays = ([p.raw for p in batch], [p.target for p in batch], [p.centerline for p in batch])
        raw, target, centerline = (torch.from_numpy(np.stack(a)[:, None]) for a in arrays)
        return raw, target, centerline


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


def validation_windows(
    source: Source, shape: tuple[int, int, int], count: int
) -> list[tuple[slice, slice, slice]]:
    """Spread up to ``count`` windows evenly over a source's roi, none overlapping another."""
    starts = [
        range(s.start, max(s.stop - n, s.start) + 1, n)
        for s, n in zip(source.roi, shape, strict=True)
    ]
    every = [(z, y, x) for z in starts[0] for y in starts[1] for x in starts[2]]
    chosen = np.linspace(0, len(every) - 1, min(count, len(every))).round().astype(int)
    return [tuple(slice(o, o + n) for o, n in zip(every[k], shape, strict=True)) for k in chosen]  # type: ignore[misc]


@torch.no_grad()
def validate(network: nn.Module, sources: list[Source], config: TrainConfig) -> Validation:
    """Measure the Jaccard index on held-out windows, at the best of 255 thresholds.

    Windows are scored without a margin, where a full segmentation would blend in a neighbour.
    """
    network.eval()
    shape = tuple(max(p, 3 * m) for p, m in zip((32, 128, 128), MARGIN, strict=True))
    inner = tuple(slice(m, n - m) for m, n in zip(MARGIN, shape, strict=True))
    histogram = np.zeros((2, 256), np.int64)
    for source in sources:
        for box in validation_windows(source, shape, 16):
            raw = torch.from_numpy(normalise(source.raw[box], source.window))[None, None]
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(raw.contiguous(memory_format=torch.channels_last_3d))
            level = (logits[0, 0].float().sigmoid() * 255).round().byte().numpy()[inner]
            truth = np.asarray(source.labels[box])[inner] > 0
            for side in (0, 1):
                histogram[side] += np.bincount(level[truth == side], minlength=256)
    above = histogram[:, ::-1].cumsum(axis=1)[:, ::-1]
    jaccard = above[1] / np.maximum(histogram[1].sum() + above[0], 1)
    best = int(jaccard[1:].argmax()) + 1
    return Validation(float(jaccard[best]), best / 255)


@dataclass
class Run:
    """A training run in progress."""

    config: TrainConfig
    network: EMNet
    averaged: EMNet
    optimizer: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0

    @property
    def progress(self) -> float:
        """The part of the run that is done."""
        if self.config.steps is not None:
            return self.step / self.config.steps
        return self.seconds / 60 / (self.config.minutes or 1)

    def checkpoint(self) -> Checkpoint:
        """Everything that a resumed run needs."""
        tensors = {
            **prefixed("network", self.network.state_dict()),
            **prefixed("averaged", self.averaged.state_dict()),
            **prefixed("optimizer", optimizer_tensors(self.optimizer)),
        }
        return Checkpoint(self.step, self.seconds, config_json(self.config), tensors)


def config_json(config: TrainConfig) -> str:
    """Write a configuration as JSON."""
    return json.dumps(asdict(config), indent=1)


def start_run(config: TrainConfig, directory: Path) -> Run:
    """Build the network, or resume from the directory's checkpoint.

    Raises
    ------
    ConflictError
        If the checkpoint belongs to another configuration.
    """
    torch.manual_seed(config.seed)
    network = find_architecture(config.architecture).build(config.width)
    network = network.to(memory_format=torch.channels_last_3d)
    averaged = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    run = Run(config, network, averaged, optimizer)
    saved = load_checkpoint(directory / "checkpoint.safetensors")
    if saved is not None:
        if saved.config != config_json(config):
            raise ConflictError(
                f"{directory} holds a run with another configuration; use another directory, or "
                f"--overwrite to start it anew"
            )
        network.load_state_dict(unprefixed("network", saved.tensors))
        averaged.load_state_dict(unprefixed("averaged", saved.tensors))
        restore_optimizer(optimizer, unprefixed("optimizer", saved.tensors))
        run.step, run.seconds = saved.step, saved.seconds
    return run


def take_step(run: Run, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    """Take one optimizer step and return the loss.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    raw, target, centerline = batch
    config, rate = run.config, learning_rate(run.config, run.progress)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.network.train()
    if run.progress >= config.freeze_norms_after:
        freeze_norms(run.network)
    with torch.autocast("cpu", torch.bfloat16):
        logits, lines = run.network.both(raw.contiguous(memory_format=torch.channels_last_3d))
    loss = emnet_loss(
        logits,
        target,
        None if lines is None else (lines, centerline),
        balance=config.balance,
        centerline_weight=config.centerline_weight,
    )
    if not torch.isfinite(loss):
        raise TrainingError(
            f"the loss of step {run.step} is {loss.item()}; resume with a smaller learning rate"
        )
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(run.network.parameters(), config.clip)
    run.optimizer.step()
    run.step += 1
    average_weights(run.averaged, run.network, min(config.ema, run.step / (run.step + 10)))
    return loss.item()


def train_steps(
    run: Run, training: list[Source], validation: list[Source], directory: Path
) -> Iterator[dict[str, float]]:
    """Train until the run's end; yield one log row per validation, also appended to ``log.csv``."""
    log = directory / "log.csv"
    loader = DataLoader(
        Patches(training, run.config),
        batch_size=None,
        sampler=range(run.step, 1 << 40),
        num_workers=1,
        prefetch_factor=4,
    )
    losses: list[float] = []
    saved = clock = time.monotonic()
    for batch in loader:
        if run.progress >= 1:
            break
        losses.append(take_step(run, batch))
        now = time.monotonic()
        run.seconds += now - clock
        clock = now
        if now - saved > CHECKPOINT_SECONDS:
            save_checkpoint(directory / "checkpoint.safetensors", run.checkpoint())
            saved = now
        if run.step % run.config.validate_every == 0 or run.progress >= 1:
            result = validate(run.averaged, validation, run.config)
            row = {
                "step": run.step,
                "minutes": round(run.seconds / 60, 2),
                "loss": float(np.mean(losses)),
                "jaccard": result.jaccard,
                "threshold": result.threshold,
            }
            losses.clear()
            append_row(log, row)
            save_checkpoint(directory / "checkpoint.safetensors", run.checkpoint())
            yield row
            saved = clock = time.monotonic()


def append_row(path: Path, row: dict[str, float]) -> None:
    """Append to a CSV log, with a header where the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row.keys())
        if new:
            writer.writeheader()
        writer.writerow(row)
