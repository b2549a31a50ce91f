"""Segment: from raw to counted objects, in one go: predict, label, and the pyramids of both."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch

from volseg.engine.clusters import ClusterOptions
from volseg.engine.memory import peak_bytes
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Progress
from volseg.engine.run import same_workers
from volseg.stages.intensities import with_histogram
from volseg.stages.label.rules import (
    LabelOptions,
    LabelReport,
    ObjectRules,
    open_centerlines,
    open_probabilities,
    plan_label,
)
from volseg.stages.label.run import label
from volseg.stages.predict.outputs import Output
from volseg.stages.predict.plan import (
    PredictOptions,
    PredictPlan,
    choose_network,
    plan_prediction,
)
from volseg.stages.predict.run import PredictReport, model_record, predict
from volseg.stages.predict.tasks import predictor_for
from volseg.stages.repair import Mended, mend_labels, mend_probabilities
from volseg.stages.results import fingerprint, is_complete
from volseg.storage.attributes import update_attributes
from volseg.storage.locations import check_writable
from volseg.storage.volumes import Image, labels_path

UNCOUNTED = "the volume has no histogram yet, so a run first reads all of it to count intensities"

FASTER_ELSEWHERE = (
    "workers elsewhere run in float32, which all CPUs are fast in; where all of them multiply "
    "bfloat16 in hardware, --precision bfloat16 is faster"
)


@dataclass(frozen=True)
class SegmentOptions(ObjectRules):
    """What to segment, and how.

    Attributes
    ----------
    predict : model, region, blocks, device, workers.
    repair : look for damage in what is complete first, and make what is damaged again.
    """

    predict: PredictOptions = field(default_factory=PredictOptions)
    repair: bool = False

    @property
    def prediction(self) -> PredictOptions:
        """What is to be predicted: centerlines too, where objects are split by them."""
        store = self.predict.store_centerline or self.split == "centerline"
        return replace(self.predict, store_centerline=store)

    @property
    def labelling(self) -> LabelOptions:
        """How objects are to be found in what was predicted."""
        return LabelOptions(
            **{rule.name: getattr(self, rule.name) for rule in fields(ObjectRules)},
            block=self.predict.block,
            shard=self.predict.shard,
            engine=self.predict.engine,
            overwrite=self.predict.overwrite,
        )


@dataclass(frozen=True)
class SegmentReport:
    """What a run did, stage by stage; ``mended`` is what it found damaged."""

    predict: PredictReport
    label: LabelReport
    seconds: float
    mended: tuple[Mended, ...] = ()


@dataclass(frozen=True)
class SegmentEstimate:
    """What a run would take.

    Attributes
    ----------
    blocks, tiles, voxels : the work.
    processes : that run blocks.
    memory_bytes : peak of each process: what it takes after one tile, and the arrays of blocks.
    disk_bytes : of the results before compression, pyramids included.
    seconds : from one tile evaluated just now; None where the workers are elsewhere.
    notes : what the user should know.
    """

    blocks: int
    tiles: int
    voxels: int
    processes: int
    memory_bytes: int
    disk_bytes: int
    seconds: float | None
    device: str
    precision: str
    notes: tuple[str, ...]


def segment(volume: Path, options: SegmentOptions, progress: Progress) -> SegmentReport:
    """Write ``probabilities/<name>`` and ``labels/<name>`` of a volume.

    On request, and to split objects by them, also ``probabilities/<name>-centerline``.

    Running it again does only what is missing.

    Raises
    ------
    InputError
        If something cannot be used, or a different result is already there.
    BlockError
        If blocks failed.
    """
    begun = time.monotonic()
    prediction, labelling = options.prediction, options.labelling
    plan = plan_prediction(volume, prediction, uncounted=True)
    check_labels(volume, plan, labelling)
    engine = one_worker_per_gpu(prediction)
    with same_workers(engine):
        if not plan.counted:
            freeze_histogram(plan.image, engine, progress)
            check_labels(volume, plan_prediction(volume, prediction), labelling)
        mended = mend_probabilities(volume, prediction, progress) if options.repair else ()
        predicted = predict(volume, prediction, progress)
        if options.repair:
            mended += mend_labels(volume, prediction.name, labelling, progress)
        labelled = label(volume, prediction.name, labelling, progress)
    return SegmentReport(predicted, labelled, time.monotonic() - begun, mended)


def check_labels(volume: Path, plan: PredictPlan, options: LabelOptions) -> None:
    """Refuse before the network runs, maybe for hours, what labelling would refuse after it.

    Raises
    ------
    InputError
        If a rule cannot be applied, or a different result is already there.
    """
    if not plan.counted and plan.output.exists():
        return  # what it was made from is not known yet

    def stands(output: Output) -> bool:
        return is_complete(output.path, output.header, overwrite=options.overwrite)

    mask, *lines = plan.outputs
    name, image = mask.path.name, plan.image
    if stands(mask):
        source = open_probabilities(volume, name)
    else:
        noted = {"fingerprint": fingerprint(mask.header), "model": model_record(plan.card)}
        source = Image(mask.path, image.levels, image.factors, image.voxel_size, noted)
    header = plan_label(source, options)
    if options.split == "centerline":
        line = lines[0]
        made = open_centerlines(volume, name).attributes if stands(line) else {}
        header["centerlines"] = made.get("fingerprint", fingerprint(line.header))
    is_complete(labels_path(volume, name), header, overwrite=options.overwrite)


def freeze_histogram(image: Image, engine: EngineOptions, progress: Progress) -> None:
    """Count the intensities of a volume that others wrote, and note them in it.

    Raises
    ------
    VolumeError
        If the voxels are not those of an image.
    StorageError
        If the volume cannot be written to, which is said before all of it is read.
    """
    check_writable(image.path)
    noted = with_histogram(image, engine, progress).attributes
    update_attributes(image.path, {name: noted[name] for name in ("histogram", "fingerprint")})


def one_worker_per_gpu(options: PredictOptions) -> EngineOptions:
    """Start a worker for each GPU of this machine, where there are several, and no other wish."""
    engine, gpus = options.engine, torch.cuda.device_count()
    gpus = min(gpus, engine.workers or gpus)
    asked = engine.scheduler is not None or engine.cluster is not None
    if asked or gpus < 2 or options.device == "cpu":
        return engine
    cores = max(engine.threads // gpus, 1)
    return replace(engine, workers=None, cluster=ClusterOptions(workers=gpus, cores=cores, gpus=1))


def estimate(volume: Path, options: SegmentOptions) -> SegmentEstimate:
    """Say what a run would take; nothing is written.

    One tile of noise is evaluated, because nothing else tells how fast this machine is; none for
    workers elsewhere, whose device this machine may lack.
    """
    prediction = options.prediction
    plan = plan_prediction(volume, prediction, uncounted=True)
    check_labels(volume, plan, options.labelling)
    maps = len(plan.outputs)
    engine = one_worker_per_gpu(prediction)
    arrays = engine.threads * _bytes_per_block(plan)
    seconds, notes = None, plan.notes
    if engine.elsewhere:
        note = (
            f"the workers are elsewhere, so no tile was evaluated: the time is unknown, and memory "
            f"is that of {engine.threads} block(s) at a time in one worker, without its network"
        )
        notes = (*notes, note)
        if (plan.header["device"], prediction.precision) == ("cpu", "auto"):
            notes = (*notes, FASTER_ELSEWHERE)
    else:
        seconds = plan.tiles * _seconds_per_tile(plan, prediction)
    return SegmentEstimate(
        blocks=sum(1 for _ in plan.handover.targets()),
        tiles=plan.tiles,
        voxels=plan.voxels,
        processes=engine.processes,
        memory_bytes=peak_bytes() + arrays,
        disk_bytes=int(np.prod(_shape(plan)) * (maps + 4) * 8 / 7),
        seconds=seconds,
        device=str(plan.header["device"]),
        precision=str(plan.header["precision"]),
        notes=notes if plan.counted else (*notes, UNCOUNTED),
    )


def _bytes_per_block(plan: PredictPlan) -> int:
    """Say what a task holds: all that its tiles see, what they add up to, and what is written."""
    raw, grid, maps = plan.image.levels[plan.level], plan.handover.grid, len(plan.outputs)
    seen, added, written = 1, 1, 1
    for axis in range(3):
        lattice, factor = plan.handover.lattice.axes[axis], plan.image.factors[plan.level][axis]
        block, shape = grid.size[axis], grid.shape[axis]
        reach = block + (lattice.tile + 2 * plan.margin[axis]) * lattice.scale
        seen *= min(math.ceil(reach / factor), raw.shape[axis])
        added *= min(math.ceil(reach), shape)
        written *= min(block, shape)
    return seen * (raw.dtype.itemsize + 4) + maps * (2 * added + 3 * written)


def _shape(plan: PredictPlan) -> tuple[int, int, int]:
    return plan.handover.grid.shape


def _seconds_per_tile(plan: PredictPlan, options: PredictOptions) -> float:
    predictor = predictor_for(choose_network(plan, options))
    axes = zip(plan.handover.lattice.axes, plan.margin, strict=True)
    z, y, x = (a.tile + 2 * m for a, m in axes)
    tile = np.random.default_rng(0).uniform(-1, 1, (z, y, x)).astype(np.float32)
    predictor(tile)
    begun = time.monotonic()
    predictor(tile)
    return time.monotonic() - begun
