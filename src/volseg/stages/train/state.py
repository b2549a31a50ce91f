"""The state of a training run: from the seed, from other weights, or from a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from volseg.errors import ModelError, ParameterError
from volseg.models.devices import choose_precision
from volseg.models.maps import MapSpec
from volseg.models.registry import Architecture, find_architecture
from volseg.stages.train.data import SAME_SIZE
from volseg.storage.cards import UNSTATED, Card, load_card
from volseg.storage.checkpoints import (
    Checkpoint,
    optimizer_tensors,
    prefixed,
    restore_optimizer,
    unprefixed,
)
from volseg.storage.weights import load_weights
from volseg.training.config import TrainConfig
from volseg.training.network import build_network, memory_format, pair_maps
from volseg.types import VoxelSize, extent

SAFE_DEPTH = 3
"""Slices at the network's deepest level from which gradients in bfloat16 can be trusted."""


@dataclass
class Run:
    """A training run in progress.

    Attributes
    ----------
    network, averaged : the network that is trained, and the average of its weights.
    losses : of the steps since the last row of the log.
    best : row of the log with the best validation so far.
    stale : validations since the best one.
    hard : where the network was wrong when it was last looked at, for each training source.
    """

    config: TrainConfig
    form: Architecture
    network: nn.Module
    averaged: nn.Module
    optimizer: torch.optim.Optimizer
    precision: torch.dtype
    epoch_steps: int = 1
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    best: Mapping[str, float] | None = None
    stale: int = 0
    hard: list[NDArray[np.int64]] = field(default_factory=list)

    @property
    def steps(self) -> int | None:
        """The steps that the run is to have; None where its time is limited."""
        if self.config.epochs is not None:
            return self.config.epochs * self.epoch_steps
        return self.config.steps

    @property
    def progress(self) -> float:
        """The part of the run that is done."""
        if self.steps is not None:
            return self.step / self.steps
        return self.seconds / 60 / (self.config.minutes or 1)

    @property
    def epoch(self) -> float:
        """The epochs that are done."""
        return self.step / self.epoch_steps

    @property
    def stopped_early(self) -> bool:
        """Tell whether validation has stopped improving for the recipe's patience."""
        return 0 < self.config.patience <= self.stale

    @property
    def finished(self) -> bool:
        """Tell whether the run is complete."""
        return self.progress >= 1 or self.stopped_early

    @property
    def gpus(self) -> list[torch.device]:
        """GPUs whose random generators the run uses."""
        device = next(self.network.parameters()).device
        return [device] if device.type == "cuda" else []

    def checkpoint(self, configuration: str) -> Checkpoint:
        """Return everything that a resumed run needs."""
        tensors = {
            **prefixed("network", self.network.state_dict()),
            **prefixed("averaged", self.averaged.state_dict()),
            **prefixed("optimizer", optimizer_tensors(self.optimizer)),
            **prefixed("hard", {str(k): torch.from_numpy(m) for k, m in enumerate(self.hard)}),
        }
        return Checkpoint(
            self.step,
            self.seconds,
            configuration,
            tensors,
            tuple(self.losses),
            self.best,
            self.stale,
        )


def training_precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """Choose bfloat16 where it is fast and right.

    On CPUs the weight gradients of kernels three slices deep are wrong in bfloat16, up to infinity,
    where there are fewer slices than that (torch 2.13; `test_gradients_can_be_trusted`).
    """
    form = find_architecture(config.architecture)
    shallow = form.dimensions == 3 and config.patch[0] // form.stride[0] < SAFE_DEPTH
    if device.type == "cpu" and shallow:
        return torch.float32
    return choose_precision("auto", device)


def build_optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer that the recipe names."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), rate, config.momentum, weight_decay=decay)
    rules: dict[str, Any] = {"betas": config.betas, "eps": config.epsilon}
    if config.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), rate, **rules)
    return torch.optim.AdamW(network.parameters(), rate, weight_decay=decay, **rules)


def start_run(
    config: TrainConfig,
    saved: Checkpoint | None,
    device: torch.device,
    precision: torch.dtype,
    *,
    epoch_steps: int = 1,
    start: Start | None = None,
) -> Run:
    """Build the network from the seed or from other weights, or continue from a checkpoint."""
    form = find_architecture(config.architecture)
    begin = Start() if saved or start is None else start
    layout: dict[str, Any] = {"memory_format": memory_format(form)}
    network = build_network(config, begin.tensors, begin.maps).to(device).to(**layout)
    averaged = copy.deepcopy(network)
    optimizer = build_optimizer(config, network)
    run = Run(config, form, network, averaged, optimizer, precision, epoch_steps)
    if saved is not None:
        try:
            network.load_state_dict(unprefixed("network", saved.tensors))
            averaged.load_state_dict(unprefixed("averaged", saved.tensors))
            restore_optimizer(optimizer, unprefixed("optimizer", saved.tensors))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ModelError("the checkpoint does not fit its configuration") from error
        kept = unprefixed("hard", saved.tensors)
        run.hard = [kept[str(k)].numpy() for k in range(len(kept))]
        run.step, run.seconds = saved.step, saved.seconds
        run.losses, run.best, run.stale = list(saved.losses), saved.best, saved.stale
        if run.finished and run.best is None:
            raise ModelError(
                "the checkpoint is damaged: its run has ended, but was never validated; move it "
                "away to start anew"
            )
    return run


FLAGS = {
    "architecture": "--architecture",
    "width": "--width",
    "preprocessing": "--gamma, --equalise and [recipe.preprocessing]",
}
"""Settings that weights decide, and where a user may have set them differently."""


@dataclass(frozen=True)
class Start:
    """Initial weights of a run, and their origin.

    Attributes
    ----------
    card : of the weights; None for random weights.
    """

    card: Card | None = None
    tensors: Mapping[str, Tensor] | None = None

    @property
    def origin(self) -> dict[str, Any] | None:
        """Return the record of the weights' origin."""
        if self.card is None:
            return None
        return {
            "name": self.card.name,
            "sha256": self.card.sha256,
            "voxel_size": list(self.card.voxel_size),
            "preprocessing": asdict(self.card.preprocessing),
        }

    @property
    def maps(self) -> tuple[MapSpec, ...]:
        """Return the maps of the weights; none where the card names none."""
        return self.card.maps if self.card else ()

    def join_terms(self, own: str) -> str:
        """Put the terms of the weights before those of the data: new weights are made of both."""
        theirs = str(self.card.training.get("terms", "")) if self.card else ""
        if theirs in ("", UNSTATED):
            return own
        if theirs.endswith(own):
            return theirs
        return f"{theirs}; those of the data of later training: {own}"

    def compare(self, size: VoxelSize, maps: Sequence[MapSpec] = ()) -> tuple[str, ...]:
        """List notes for the user on starting the weights on voxels of a size in nm, and maps."""
        if self.card is None:
            return ()
        known = pair_maps(maps, self.maps)
        new = [m.name for k, m in enumerate(maps) if m.is_class and k not in known]
        had = ", ".join(m.name for m in self.maps if m.is_class) or "one class"
        notes = (f"{self.card.name} has {had}: {', '.join(new)} begin as found nowhere",)
        theirs = self.card.voxel_size
        if all(abs(a / b - 1) <= SAME_SIZE for a, b in zip(size, theirs, strict=True)):
            return notes if new else ()
        ours, told = extent(size), extent(theirs)
        note = (
            f"{self.card.name} was trained on voxels of {told} nm, the data have {ours} nm: the "
            f"weights have to learn the difference, and will be for {ours} nm"
        )
        return (*(notes if new else ()), note)


def find_start(model: str | None, config: TrainConfig) -> Start:
    """Load the weights to start from, if any."""
    if model is None:
        return Start()
    card = load_card(model)
    for name, flags in FLAGS.items():
        found, wanted = getattr(card, name), getattr(config, name)
        if found != wanted:
            raise ParameterError(
                f"{card.name} has the {name} {found}, the recipe says {wanted}; leave {flags} "
                f"out to take the weights', or start from others"
            )
    return Start(card, load_weights(model, card))
