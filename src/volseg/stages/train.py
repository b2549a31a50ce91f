"""Train: a network from a volume and its labels, resumable, exported ready for use."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from volseg.errors import ConflictError, ParameterError, StorageError
from volseg.io.checkpoints import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    trim_log,
)
from volseg.io.ledger import describe_difference
from volseg.models.inference import choose_device
from volseg.models.registry import find_architecture
from volseg.stages.progress import Progress
from volseg.stages.results import discard
from volseg.stages.train_data import TrainingData, open_training_data
from volseg.stages.train_export import Export
from volseg.stages.train_loop import (
    CHECKPOINT,
    LOG,
    Events,
    Run,
    start_run,
    train_steps,
    training_precision,
)
from volseg.training.config import TrainConfig


@dataclass(frozen=True)
class TrainOptions:
    """What to train on, how, and where to put it.

    Attributes
    ----------
    labels : name of labels in the volume, or a path.
    output : folder of the run.
    config : the recipe.
    roi, validation : regions, ``z0:z1,y0:y1,x0:x1``; see `choose_regions`.
    name : of the exported weights; None takes the folder's.
    terms : under which the data may be used, for the card.
    device : auto, cpu or cuda.
    workers : threads that draw patches; None is one per core, at most four.
    overwrite : discard another run that the folder holds.
    """

    labels: str
    output: Path
    config: TrainConfig
    roi: str | None = None
    validation: str | None = None
    name: str | None = None
    terms: str = "not stated"
    device: str = "auto"
    workers: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class TrainReport:
    """What a run came to.

    Attributes
    ----------
    weights : the exported file; its card stands beside it.
    step, minutes : of the whole run.
    best : row of the log that the exported weights stand for.
    steps_now, seconds : of this call; no steps where the run was finished before.
    """

    weights: Path
    step: int
    minutes: float
    best: Mapping[str, float]
    steps_now: int
    seconds: float


def train(
    volume: Path,
    options: TrainOptions,
    progress: Progress,
    on_row: Callable[[Mapping[str, float]], None] | None = None,
) -> TrainReport:
    """Train a network, or go on with a run that was interrupted.

    Parameters
    ----------
    volume : Path
    options : TrainOptions
    progress : Progress
    on_row : callable, optional
        Is told every row of the log.

    Raises
    ------
    InputError
        If data or options cannot be used; nothing was written. `ConflictError` if the output
        folder holds another run.
    TrainingError
        If the loss is not finite.
    StorageError
        If something cannot be read or written.
    """
    begun = time.monotonic()
    config = options.config
    name = check_options(options)
    device = choose_device(options.device)
    data = open_training_data(volume, options.labels, options.roi, options.validation)
    configuration = json.loads(json.dumps({**data.description, "name": name, **asdict(config)}))
    weights = options.output / f"{name}.safetensors"
    saved = open_folder(weights, configuration, overwrite=options.overwrite)
    run = start_run(config, saved, device, training_precision(config, device))
    first, export = run.step, Export(weights, data, options.terms)
    if not run.finished:
        meter = _Meter(run, progress)
        events = Events(meter, on_row or (lambda _row: None), export)
        try:
            meter.start()
            _continue(run, data, options, json.dumps(configuration), events)
        finally:
            progress.finish()
    return TrainReport(
        weights=weights,
        step=run.step,
        minutes=run.seconds / 60,
        best=run.best or {},
        steps_now=run.step - first,
        seconds=time.monotonic() - begun,
    )


def _continue(
    run: Run, data: TrainingData, options: TrainOptions, configuration: str, events: Events
) -> None:
    folder, workers = options.output, options.workers or min(os.cpu_count() or 1, 4)
    trim_log(folder / LOG, run.step)
    if run.step == 0:
        save_checkpoint(folder / CHECKPOINT, run.checkpoint(configuration))
    train_steps(run, (data.training, data.validation), folder, configuration, workers, events)


@dataclass
class _Meter:
    """Tells the progress of a run, in steps or in seconds."""

    run: Run
    progress: Progress
    told: int = 0

    def _done(self) -> int:
        return int(self.run.seconds) if self.run.config.steps is None else self.run.step

    def start(self) -> None:
        config = self.run.config
        if config.steps is None:
            self.progress.start(round((config.minutes or 0) * 60), "seconds", "training")
        else:
            self.progress.start(config.steps, "steps", "training")
        self(self.run)

    def __call__(self, _run: Run) -> None:
        done = self._done()
        self.progress.advance(done - self.told)
        self.told = done


def check_options(options: TrainOptions) -> str:
    """Check what can be checked without reading anything; return the weights' name.

    Raises
    ------
    ParameterError
        If width or patch do not suit the network, or the name is no file name.
    ModelError
        If there is no such architecture.
    """
    config = options.config
    architecture = find_architecture(config.architecture)
    with torch.device("meta"):
        architecture.build(config.width)
    multiple = architecture.multiple
    if any(n < 1 or n % m for n, m in zip(config.patch, multiple, strict=True)):
        raise ParameterError(
            f"a patch for {config.architecture} is a multiple of {multiple} voxels (z, y, x), "
            f"found {config.patch}"
        )
    name = options.name or options.output.resolve().name
    if not name or Path(name).name != name or name.startswith("."):
        raise ParameterError(f"--name becomes a file's name, found {name!r}")
    if f"{name}.safetensors" == CHECKPOINT:
        raise ParameterError(f"--name {name} is taken by the checkpoint; choose another")
    return name


def open_folder(
    weights: Path, configuration: Mapping[str, Any], *, overwrite: bool
) -> Checkpoint | None:
    """Make a run's folder, or find the checkpoint to go on from.

    Parameters
    ----------
    weights : Path
        That the run exports into its folder.
    configuration : mapping
        Everything that decides the run.
    overwrite : bool
        Whether another run may be discarded.

    Raises
    ------
    ConflictError
        If the folder holds another run that may not be replaced, weights of unknown origin, or a
        run whose weights are gone.
    ModelError
        If the checkpoint cannot be read.
    StorageError
        If the folder cannot be made.
    """
    folder, card = weights.parent, weights.with_suffix(".json")
    own = (folder / CHECKPOINT, folder / LOG, weights, card)
    try:
        if overwrite:
            discard(*own)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {folder}: {error.strerror}") from error
    saved = load_checkpoint(own[0])
    remedy = "choose another --output, or give --overwrite to discard it"
    if saved is None:
        standing = next((path for path in own if path.exists()), None)
        if standing is not None:
            raise ConflictError(f"{standing} stands where this run would write; {remedy}")
        return None
    theirs = json.loads(saved.config)
    if theirs != configuration:
        raise ConflictError(
            f"{folder} holds a run with another configuration "
            f"({describe_difference(theirs, configuration)}); {remedy}"
        )
    if saved.best is not None and not (weights.exists() and card.exists()):
        raise ConflictError(f"{folder} holds a run whose weights {weights.name} are gone; {remedy}")
    return saved
