"""Train: a network from images and their labels, resumable, exported ready for use."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from volseg.engine.options import available_cores, check_workers
from volseg.engine.progress import Progress
from volseg.models.devices import choose_device
from volseg.stages.train.data import DataOptions, TrainingData, open_training_data
from volseg.stages.train.export import Export
from volseg.stages.train.folder import (
    LOCK,
    RECIPE,
    choose_name,
    open_folder,
    replacing_run,
)
from volseg.stages.train.loop import CHECKPOINT, LOG, Events, train_steps
from volseg.stages.train.objects import choose_objects
from volseg.stages.train.recipe import RunSettings, save_recipe
from volseg.stages.train.record import Record, open_record
from volseg.stages.train.regions import Pair, Share
from volseg.stages.train.start import Start, find_start
from volseg.stages.train.state import Run, start_run, training_precision
from volseg.storage.checkpoints import save_checkpoint, trim_log
from volseg.storage.ledger import locked
from volseg.training.config import TrainConfig, steps_per_epoch
from volseg.training.network import check_network
from volseg.types import VoxelSize

LOADERS = 4
"""At most this many threads draw patches, unless more are asked for."""


@dataclass(frozen=True)
class TrainOptions:
    """Options of `train`.

    Attributes
    ----------
    output : folder of the run.
    config : the recipe.
    start : shipped name or path of weights to start from; None for random weights.
    voxel_size : nm (z, y, x); overrides what the data say.
    name : of the exported weights; None takes the folder's.
    terms : under which the data may be used, for the card.
    device : auto, cpu or cuda.
    workers : threads that draw patches; None is one per core, at most four.
    overwrite : discard another run that the folder holds.
    """

    output: Path
    config: TrainConfig
    start: str | None = None
    voxel_size: VoxelSize | None = None
    name: str | None = None
    terms: str = "not stated"
    device: str = "auto"
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers)


@dataclass(frozen=True)
class TrainReport:
    """Result of a training run.

    Attributes
    ----------
    weights : the exported file; its card stands beside it.
    step, minutes : of the whole run.
    best : row of the log that the exported weights stand for.
    stopped_early : whether validation stopped improving before the run's end.
    objects : how the rules for objects in the card were chosen.
    steps_now, seconds : of this call; no steps where the run was finished before.
    """

    weights: Path
    step: int
    minutes: float
    best: Mapping[str, float]
    stopped_early: bool
    objects: Mapping[str, Any]
    steps_now: int
    seconds: float


def train(
    pairs: Sequence[Pair],
    options: TrainOptions,
    progress: Progress,
    on_row: Callable[[Mapping[str, float]], None] | None = None,
) -> TrainReport:
    """Train a network, or continue an interrupted run.

    Parameters
    ----------
    pairs : of images and labels
    options : TrainOptions
    progress : Progress
    on_row : callable, optional
        Is told every row of the log.

    Raises
    ------
    InputError
        If data or options cannot be used; nothing was written. `ConflictError` if the output
        folder holds another run, or another process trains in it.
    TrainingError
        If the loss is not finite.
    StorageError
        If something cannot be read or written.
    """
    begun = time.monotonic()
    config, name = options.config, choose_name(options.output, options.name)
    form, device = check_network(config), choose_device(options.device)
    start = find_start(options.start, config)
    share = Share(config.fraction, config.seed)
    looked_at = DataOptions(
        form.dimensions, share, config.preprocessing, options.voxel_size, config.resample_to
    )
    data = open_training_data(pairs, looked_at, progress)
    for note in (*data.notes, *start.compare(data.voxel_size)):
        warnings.warn(note, stacklevel=1)
    configuration = describe_run(name, config, data, start)
    weights = options.output / f"{name}.safetensors"
    with locked(options.output / LOCK):
        saved = open_folder(weights, configuration, overwrite=options.overwrite)
        precision, length = training_precision(config, device), steps_per_epoch(config, data.voxels)
        run = start_run(config, saved, device, precision, epoch_steps=length, start=start.tensors)
        first, export = run.step, Export(weights, data, options.terms, start.origin)
        if not run.finished:
            with replacing_run(weights) if options.overwrite else nullcontext():
                _begin(run, options.output, json.dumps(configuration))
            meter = _Meter(run, progress)
            record = open_record(options.output, data.validation, run.step)

            try:
                meter.start()
                _keep_recipe(name, pairs, data, options)
                events = Events(meter, _tell_both(record, on_row), export)
                _continue(run, data, options, json.dumps(configuration), events)
            finally:
                record.close()
                progress.finish()
        images = any(pair.images for pair in pairs)
        objects = choose_objects(weights, data.validation, device, precision, images=images)
    return TrainReport(
        weights=weights,
        step=run.step,
        minutes=run.seconds / 60,
        best=run.best or {},
        stopped_early=run.stopped_early,
        objects=objects,
        steps_now=run.step - first,
        seconds=time.monotonic() - begun,
    )


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
    described: dict[str, Any] = json.loads(json.dumps(listed))
    return described


def _begin(run: Run, folder: Path, configuration: str) -> None:
    if run.step == 0:
        save_checkpoint(folder / CHECKPOINT, run.checkpoint(configuration))
    trim_log(folder / LOG, run.step)


def _keep_recipe(
    name: str, pairs: Sequence[Pair], data: TrainingData, options: TrainOptions
) -> None:
    path = options.output / RECIPE
    if not path.exists():
        settings = RunSettings(options.start, options.voxel_size, name, options.terms)
        save_recipe(path, options.config, settings, pairs, data.description)


def _continue(
    run: Run, data: TrainingData, options: TrainOptions, configuration: str, events: Events
) -> None:
    folder, workers = options.output, options.workers or min(available_cores(), LOADERS)
    train_steps(run, (data.training, data.validation), folder, configuration, workers, events)


@dataclass
class _Meter:
    """Progress of a run, in steps or in seconds."""

    run: Run
    progress: Progress
    told: int = 0

    def _done(self) -> int:
        return int(self.run.seconds) if self.run.steps is None else self.run.step

    def start(self) -> None:
        if self.run.steps is None:
            seconds = round((self.run.config.minutes or 0) * 60)
            self.progress.start(seconds, "seconds", "training")
        else:
            self.progress.start(self.run.steps, "steps", "training")
        self(self.run)

    def __call__(self, _run: Run) -> None:
        done = self._done()
        self.progress.advance(done - self.told)
        self.told = done
