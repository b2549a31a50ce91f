"""The training loop: step, average, validate, log, checkpoint."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from volseg.engine.memory import physical_bytes
from volseg.errors import TrainingError
from volseg.geometry.grid import roi_size
from volseg.models.logits import as_binary
from volseg.models.maps import OFFSETS, count_exclusive
from volseg.models.parts import crop
from volseg.stages.train.scored import held_out_loss, score_held_out
from volseg.stages.train.state import Run
from volseg.storage.checkpoints import append_row, save_checkpoint
from volseg.training.config import TrainConfig, learning_rate
from volseg.training.hard_examples import find_hard_examples
from volseg.training.loader import Batch, load_batches
from volseg.training.losses import EMNET, LOSSES, centerline_loss, emnet_loss, maps_loss
from volseg.training.network import as_input, as_patches, learns_centerlines
from volseg.training.sampling import CPU, Source, count_classes, hold
from volseg.training.validation import validate

CHECKPOINT_SECONDS = 30.0
BYTES_PER_VOXEL = 8
"""Of training data that are held: raw and labels in half precision, and their coarser levels."""
CHECKPOINT, LOG = "checkpoint.safetensors", "log.csv"


def freeze_norms(network: nn.Module) -> None:
    """Let batch norms use their running statistics from now on."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
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
    """Evaluate the loss of a batch over the voxels that are annotated."""
    config, form, device = run.config, run.form, next(run.network.parameters()).device
    raw, target, centerline = (t.to(device, non_blocking=True) for t in batch)
    network = run.network
    with torch.autocast(device.type, run.precision, enabled=run.precision != torch.float32):
        given = as_input(raw, form)
        both = getattr(network, "both", None) if config.loss == EMNET else None
        logits, lines = both(given) if both else (network(given), None)
    logits = as_patches(logits, len(raw), form)
    target = crop(target, logits.shape[2:])
    if config.maps:
        return _loss_of_maps(config, logits, target, None if lines is None else (lines, centerline))
    known = target >= 0
    if not known.any():  # samples of a shrunk patch may lie between the annotated slices
        return logits.sum() * 0
    if not known.all():
        logits, target, lines = logits[known], target[known], None
    if config.loss != EMNET:
        return LOSSES[config.loss](logits, target)
    return emnet_loss(
        logits,
        target,
        None if lines is None else (lines, centerline),
        balance=config.balance,
        centerline_weight=config.centerline_weight,
        cross_entropy_weight=config.cross_entropy_weight,
    )


def _loss_of_maps(
    config: TrainConfig, logits: Tensor, target: Tensor, lines: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Evaluate the loss of a network of several maps."""
    maps, loss = config.maps, config.loss
    of_class: Callable[[Tensor, Tensor], Tensor]
    if loss == EMNET:  # what it adds to these is the loss of centerlines
        of_class = partial(
            emnet_loss, centerline=None, cross_entropy_weight=config.cross_entropy_weight
        )
    else:
        of_class = LOSSES[loss]
    binary = as_binary(logits, count_exclusive(maps))
    found = maps_loss(binary, target, maps, config.map_weights, of_class)
    if lines is None or not (target >= 0).all():
        return found
    weight = (1 - config.balance) * config.centerline_weight
    return config.balance * found + weight * centerline_loss(*lines)


def step_seed(seed: int, step: int) -> int:
    """Combine a seed and a step into the seed of a network's random numbers in that step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def take_step(run: Run, batch: Batch) -> float:
    """Take one optimizer step and return the loss.

    Random layers of a network, such as drop-out, are seeded by seed and step.
    """
    config, rate = run.config, learning_rate(run.config, run.progress, run.epoch)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.network.train()
    if run.progress >= config.freeze_norms_after:
        freeze_norms(run.network)
    with torch.random.fork_rng(devices=run.gpus):
        torch.manual_seed(step_seed(config.seed, run.step))
        loss = batch_loss(run, batch)
    if not torch.isfinite(loss):
        raise TrainingError(
            f"the loss of step {run.step} is {loss.item()}; train again into another folder with "
            f"a smaller --learning-rate than {config.learning_rate:g}"
        )
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if config.clip:
        nn.utils.clip_grad_norm_(run.network.parameters(), config.clip)
    run.optimizer.step()
    run.step += 1
    average_weights(run.averaged, run.network, min(config.ema, run.step / (run.step + 10)))
    return loss.item()


def validate_run(run: Run, sources: Sequence[Source]) -> dict[str, float]:
    """Validate the averaged weights and describe the run in one row of the log.

    What counts is the mean over the classes, where there are several.
    """
    found = validate(run.averaged, sources, run.form, run.precision)
    result, maps = found[0], run.config.maps
    held = count_classes(sources)
    # classes come first among the maps; one that is not held out says nothing of the network
    classes = [v for v, n in zip(found, held, strict=False) if n or not maps] or [result]
    jaccard, precision, recall = (
        float(np.mean([getattr(v, name) for v in classes]))
        for name in ("jaccard", "precision", "recall")
    )
    row = {
        "step": run.step,
        "epoch": round(run.epoch, 3),
        "minutes": round(run.seconds / 60, 2),
        "learning_rate": float(f"{learning_rate(run.config, run.progress, run.epoch):.4g}"),
        "loss": round(float(np.mean(run.losses)), 6),
        "validation_loss": round(held_out_loss(run, sources, batch_loss), 6),
        "cross_entropy": round(result.cross_entropy, 6),
        "jaccard": round(jaccard, 6),
        "dice": round(2 * jaccard / (1 + jaccard), 6),
        "precision": round(precision, 6),
        "recall": round(recall, 6),
        "threshold": result.threshold,
    }
    row |= score_held_out(run, sources, result.threshold)
    for k, (validation, spec) in enumerate(zip(found, maps, strict=False)):
        if k < len(held) and not held[k]:
            continue
        targets = sources[0].targets
        if spec.kind in OFFSETS and targets is not None:
            row[f"error_nm {spec.name}"] = round(validation.error * 2 * targets.reach_nm, 3)
            continue
        row[f"jaccard {spec.name}"] = round(validation.jaccard, 6)
        row[f"threshold {spec.name}"] = validation.threshold
    run.losses.clear()
    return row


@dataclass(frozen=True)
class Events:
    """Callbacks of the loop: for each step, each row of the log, and each best row so far."""

    on_step: Callable[[Run], None]
    on_row: Callable[[Run, Mapping[str, float]], None]
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

    A checkpoint is written at every validation, after what it led to, and every half minute in
    between: a killed run repeats what came after the last one, and comes out the same.
    """
    training, validation = sources
    batches = draw_batches(run, training, workers)
    saved = clock = time.monotonic()
    with contextlib.closing(batches):
        while not run.finished:
            run.losses.append(take_step(run, next(batches)))
            clock = _spend(run, clock)
            if run.step % run.config.validate_every == 0 or run.finished:
                row = validate_run(run, validation)
                append_row(folder / LOG, row)
                events.on_row(run, row)
                if run.best is None or row["jaccard"] > run.best["jaccard"]:
                    run.best, run.stale = row, 0
                    events.on_best(run)
                else:
                    run.stale += 1
                clock = _spend(run, clock)
                save_checkpoint(folder / CHECKPOINT, run.checkpoint(configuration))
                saved = clock
            elif clock - saved > CHECKPOINT_SECONDS:
                save_checkpoint(folder / CHECKPOINT, run.checkpoint(configuration))
                saved = clock
            events.on_step(run)


def draw_batches(run: Run, sources: Sequence[Source], workers: int) -> Generator[Batch, None, None]:
    """Yield the batch of each step; look for hard examples now and then, if wanted.

    A resumed run draws the same: hard examples are kept in its checkpoint.
    """
    config, device = run.config, next(run.network.parameters()).device
    # what cuts patches has not run on other devices
    made_on = device if device.type == "cuda" else CPU
    sources = hold_sources(sources, made_on)
    lines = learns_centerlines(config)
    while True:
        if config.hard_share:
            if run.step % config.hard_every == 0:
                seed = config.seed, run.step
                run.hard = find_hard_examples(run.averaged, sources, run.form, run.precision, seed)
            pairs = zip(sources, run.hard, strict=True)
            sources = [replace(source, hard=wrong) for source, wrong in pairs]
        batches = load_batches(sources, config, run.step, workers, centerline=lines, device=made_on)
        with contextlib.closing(batches):
            for batch in batches:
                yield batch
                if config.hard_share and run.step % config.hard_every == 0:
                    break


def hold_sources(sources: Sequence[Source], device: torch.device) -> list[Source]:
    """Hold the data on the device where they take a quarter of its memory at most.

    Not of what is free: what is held is rounded, and a resumed run must see the same.
    """
    memory = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else physical_bytes()
    needed = sum(
        roi_size(s.roi) * (BYTES_PER_VOXEL + 4 * len(s.targets.maps if s.targets else ()))
        for s in sources
    )
    if needed > memory // 4:
        return list(sources)
    return [hold(source, device) for source in sources]


def _spend(run: Run, since: float) -> float:
    """Add the time since ``then`` to the run's; return the current time."""
    now = time.monotonic()
    run.seconds += now - since
    return now
