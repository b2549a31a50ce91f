"""Train: a network from images and their labels, resumable, exported ready for use."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from volseg.engine.options import available_cores, check_workers
from volseg.engine.progress import Job, Progress
from volseg.fields import as_json
from volseg.models.devices import choose_device
from volseg.stages.survey.likeness import note_reference
from volseg.stages.train.data import TrainingData, open_training_data
from volseg.stages.train.export import Export
from volseg.stages.train.folder import LOCK, RECIPE, choose_name, open_folder, replacing_run
from volseg.stages.train.held_out import HeldOut
from volseg.stages.train.loop import CHECKPOINT, LOG, Events, train_steps
from volseg.stages.train.median import choose_median
from volseg.stages.train.objects import choose_objects
from volseg.stages.train.recipe import RunSettings, save_recipe
from volseg.stages.train.record import Record, open_record, show_patches
from volseg.stages.train.regions import Pair
from volseg.stages.train.scored import note_training_scores
from volseg.stages.train.state import Run, Start, find_start, start_run, training_precision
from volseg.stages.train.touching import choose_splitting
from volseg.storage.checkpoints import save_checkpoint, trim_log
from volseg.storage.ledger import locked
from volseg.storage.locations import refuse_file
from volseg.training.annotation import without_folder
from volseg.training.config import TrainConfig, steps_per_epoch
from volseg.training.network import check_network

LOADERS = 4
"""At most this many threads draw patches, unless more are asked for."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunSettings):
    """Options of `train`.

    Attributes
    ----------
    workers : threads that draw patches; None is one per core, at most four.
    """

    output: Path
    config: TrainConfig
    device: str = "auto"
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers)
        refuse_file(self.output)


@dataclass(frozen=True)
class TrainReport:
    """Result of a training run.

    Attributes
    ----------
    weights : the exported file; its card stands beside it.
    best : row of the log that the exported weights stand for.
    stopped_early : whether validation stopped improving before the run's end.
    objects : how the rules for objects in the card were chosen.
    median : what the median of slices does to held-out ones, if that is known.
    training : Jaccard, precision and recall on the training data, at their own best threshold.
    steps_now, seconds : of this call; no steps where the run was finished before.
    """

    weights: Path
    step: int
    minutes: float
    best: Mapping[str, float]
    stopped_early: bool
    objects: Mapping[str, Any]
    median: Mapping[str, Any]
    training: Mapping[str, float]
    steps_now: int
    seconds: float


def train(
    pairs: Sequence[Pair],
    options: TrainOptions,
    progress: Progress,
    on_row: Callable[[Mapping[str, float]], None] | None = None,
) -> TrainReport:
    """Train a network, or continue an interrupted run.

    Raises
    ------
    InputError
        If data or options cannot be used; nothing was written. `ConflictError` if the output
        folder holds another run, or another process trains in it.
    TrainingError
        If the loss is not finite.
    """
    begun = time.monotonic()
    config, name = options.config, choose_name(options.output, options.name)
    check_network(config)
    device, start = choose_device(options.device), find_start(options.start, config)
    data = open_training_data(pairs, config, options.voxel_size, progress)
    for note in (*data.notes, *start.compare(data.voxel_size, config.maps)):
        warnings.warn(note, stacklevel=1)
    configuration = json.dumps(described := describe_run(name, config, data, start))
    weights = options.output / f"{name}.safetensors"
    with locked(options.output / LOCK):
        saved = open_folder(weights, described, overwrite=options.overwrite)
        precision, length = training_precision(config, device), steps_per_epoch(config, data.voxels)
        run = start_run(config, saved, device, precision, epoch_steps=length, start=start)
        first, export = (
            run.step,
            Export(weights, data, start.join_terms(options.terms), start.origin),
        )
        if not run.finished:
            if run.step == 0:  # also of a run that was killed before it had discarded another one
                with replacing_run(weights):
                    save_checkpoint(options.output / CHECKPOINT, run.checkpoint(configuration))
                show_patches(options.output, data.training, config)
            trim_log(options.output / LOG, run.step)
            record = open_record(options.output, data.validation, run.step)
            with closing(record), _shown(run, progress) as on_step:
                if not (options.output / RECIPE).exists():
                    settings = replace(options, name=name)
                    save_recipe(options.output / RECIPE, config, settings, pairs, data.description)
                events = Events(on_step, _tell_both(record, on_row), export)
                workers = options.workers or min(available_cores(), LOADERS)
                sources = data.training, data.validation
                train_steps(run, sources, options.output, configuration, workers, events)
        noted = _complete_card(weights, data, device, precision)
    return TrainReport(
        weights=weights,
        step=run.step,
        minutes=run.seconds / 60,
        best=run.best or {},
        stopped_early=run.stopped_early,
        steps_now=run.step - first,
        seconds=time.monotonic() - begun,
        **noted,
    )


def _complete_card(
    weights: Path, data: TrainingData, device: torch.device, precision: torch.dtype
) -> dict[str, Any]:
    """Choose rules for objects on what is held out, and note them and scores in the card."""
    held = HeldOut(weights, data.validation, device, precision, data.images)
    noted = {"median": choose_median(held), "objects": choose_objects(held)}
    choose_splitting(held)
    training = note_training_scores(held, data.training)
    note_reference(weights, data.training)
    return {**noted, "training": training}


def _tell_both(
    record: Record, on_row: Callable[[Mapping[str, float]], None] | None
) -> Callable[[Run, Mapping[str, float]], None]:
    """Give each row of the log to the record of the run, and to the caller."""

    def tell(run: Run, row: Mapping[str, float]) -> None:
        record(run, row)
        if on_row is not None:
            on_row(row)

    return tell


def describe_run(
    name: str, config: TrainConfig, data: TrainingData, start: Start
) -> dict[str, Any]:
    """List all settings that determine a run, flat, as JSON reads them back."""
    listed = {
        f"data {k} {key}": value
        for k, entry in enumerate(data.description, 1)
        for key, value in entry.items()
    }
    listed |= {"name": name, "voxel_size": data.voxel_size, "from": start.origin, **asdict(config)}
    listed |= {"images": data.images, "classes": [*map(without_folder, config.classes)]}
    described: dict[str, Any] = as_json(listed)
    return described


@contextmanager
def _shown(run: Run, progress: Progress) -> Iterator[Callable[[Run], None]]:
    """Show the progress of a run, in steps or in seconds; yield what is told of each step."""
    told = 0

    def tell(_run: Run) -> None:
        nonlocal told
        done = int(run.seconds) if run.steps is None else run.step
        progress.advance(done - told)
        told = done

    seconds = round((run.config.minutes or 0) * 60)
    total, unit = (seconds, "seconds") if run.steps is None else (run.steps, "steps")
    with Job(progress, total, unit, "training").shown():
        tell(run)
        yield tell
