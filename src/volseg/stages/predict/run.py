"""Predict: raw to probabilities, block by block, each tile once, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from volseg import __version__
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress
from volseg.engine.run import naming, run_blocks
from volseg.engine.steps import Step
from volseg.geometry.grid import roi_size
from volseg.stages.levels import build_pyramid
from volseg.stages.predict.meter import TileMeter
from volseg.stages.predict.outputs import (
    CREATED,
    Output,
    Scratch,
    find_lacking,
    find_outdated,
    is_under_way,
    ledger_header,
)
from volseg.stages.predict.plan import PredictPlan
from volseg.stages.predict.tasks import Assemble, Evaluate, PredictTask
from volseg.storage.arrays import StoredArray
from volseg.storage.files import discard
from volseg.storage.ledger import MARK, Ledger, block_key
from volseg.storage.results import NewImage, create_images, finish
from volseg.storage.scratch import HandoverStore
from volseg.storage.volumes import open_image
from volseg.storage.weights import Card, smallest_object
from volseg.types import Zyx


@dataclass(frozen=True)
class PredictReport:
    """Work that a run did; ``tiles`` counts only those that this run evaluated itself."""

    voxels: int
    tiles: int
    seconds: float
    resumed: bool
    notes: tuple[str, ...]


def predict(plan: PredictPlan, progress: Progress) -> PredictReport:
    """Write ``probabilities/<name>`` of a volume, on request with its centerlines.

    Raises
    ------
    InputError
        If intensities have not been counted, or a different result is already there.
    BlockError
        If blocks failed; the same command again does only those.
    """
    begun, _ = time.monotonic(), plan.known_look
    written = find_lacking(plan.outputs, overwrite=plan.overwrite)
    if not written:
        # a process that was killed at the very end may have left some
        discard(*(Scratch(plan.scratch, o.path.name).store.folder for o in plan.outputs))
        return PredictReport(plan.voxels, 0, time.monotonic() - begun, True, plan.notes)
    scratch = Scratch(plan.scratch, written[0].path.name)
    header = ledger_header(written)
    with Ledger.open(scratch.ledger, header, anew=plan.overwrite) as ledger:
        resumed = not plan.overwrite and is_under_way(written, ledger)
        if not resumed:
            ledger.restart()
            discard(scratch.store.folder)
            create_outputs(plan, written, ledger.mark)
            ledger.record(CREATED)
        arrays = {o.path: open_image(o.path).levels[0] for o in written}
        task = build_task(plan, [arrays.get(o.path) for o in plan.outputs], scratch.store)
        tiles = Prediction(task, ledger, progress).run(plan.engine)
        for output in written:
            build_pyramid(open_image(output.path), plan.engine, progress, label=False)
        for output in reversed(written):
            # the mask last: while it is incomplete, the same command makes sure of both
            finish(output.path, ledger, output.header)
        discard(scratch.store.folder)
    return PredictReport(plan.voxels, tiles, time.monotonic() - begun, resumed, plan.notes)


def create_outputs(plan: PredictPlan, written: tuple[Output, ...], mark: str) -> None:
    """Create what a run writes, empty, in place of what is there."""
    common = {"complete": False, "version": __version__, MARK: mark}
    model = model_record(plan.card, plan.options.zoom)
    images = [
        NewImage(
            output.path,
            plan.spec,
            plan.image.voxel_size,
            {**common, "run": output.header, "model": model},
        )
        for output in written
    ]
    create_images(images, *find_outdated(written, plan.scratch))


def build_task(
    plan: PredictPlan, arrays: Sequence[StoredArray | None], store: HandoverStore
) -> PredictTask:
    """Say what workers do to write the images of a run.

    Parameters
    ----------
    plan : PredictPlan
    arrays : level 0 of each of the plan's outputs; None for one that is not written
    store : where blocks exchange what they evaluated

    Raises
    ------
    VolumeError
        If intensities have not been counted.
    """
    mask, *lines = arrays
    return PredictTask(
        raw=plan.image.levels[plan.level],
        factor=plan.image.factors[plan.level],
        output=mask,
        handover=plan.handover,
        store=store,
        look=plan.known_look,
        margin=plan.margin,
        choice=plan.choice,
        centerline=lines[0] if lines else None,
    )


def model_record(card: Card, zoom: float) -> dict[str, Any]:
    """Say which model made a result, and by which rules its objects are kept.

    Voxels that were taken as larger are fewer in the smallest object.
    """
    return {
        "name": card.name,
        "architecture": card.architecture,
        "sha256": card.sha256,
        "threshold": card.threshold,
        "min_probability": card.min_probability,
        **smallest_object(replace(card, min_size=math.ceil(card.min_size / zoom**3))),
    }


@dataclass(frozen=True)
class Prediction:
    """The client's side of a run: which item may run when, and what the ledger is told."""

    task: PredictTask
    ledger: Ledger
    progress: Progress

    def run(self, engine: EngineOptions) -> int:
        """Do what is missing; return the number of tiles evaluated."""
        handover, done = self.task.handover, self.ledger.done()
        missing = {t for t in handover.targets() if block_key("written", t) not in done}
        lacking = sum(roi_size(handover.core(t)) for t in missing)
        wanted = roi_size(handover.roi)
        tiles = 0

        def on_result(item: Evaluate | Assemble, count: int) -> None:
            nonlocal tiles
            if isinstance(item, Evaluate):
                tiles += count
                return
            self.ledger.record(block_key("written", item.index))
            self.task.store.discard(handover.sources(item.index), item.index)
            missing.discard(item.index)

        whole = handover.count_tiles()
        meter = TileMeter(self.progress, lacking, whole * lacking / max(wanted, 1))

        def count_voxels(item: Evaluate | Assemble, count: int) -> int:
            if isinstance(item, Evaluate):
                return meter.finish_block(item.index, count)
            return 0 if missing else meter.finish()

        job = Job(self.progress, wanted, "voxels", "segmenting", wanted - lacking, count_voxels)
        with (
            naming(lambda: map(handover.grid.block, sorted(missing))),
            meter.listening(self.task.store.folder),
        ):
            run_blocks(
                self.task,
                self._steps(frozenset(missing)),
                engine,
                on_result=on_result,
                progress=job,
            )
        return tiles

    def _steps(self, missing: frozenset[Zyx]) -> Iterator[Step[Evaluate | Assemble]]:
        """Yield what is to be evaluated, in raster order, and each block after its last source."""
        handover, store = self.task.handover, self.task.store
        for source in handover.evaluators():
            wanted = [t for t in handover.targets_of(source) if t in missing]
            targets = tuple(t for t in wanted if not store.exists(source, t))
            if targets:
                item = Evaluate(handover.grid.block(source), targets)
                yield Step(item, name=source, on_gpu=self.task.on_gpu)
            for target in wanted:
                sources = handover.sources(target)
                if sources[-1] == source:
                    yield Step(Assemble(handover.grid.block(target)), after=tuple(sources))
