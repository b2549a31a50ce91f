"""Predict: raw to probabilities, block by block, each tile once, resumable."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from volseg import __version__
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Progress
from volseg.engine.run import naming, run_blocks
from volseg.geometry.grid import roi_size
from volseg.stages.levels import build_pyramid
from volseg.stages.predict.outputs import (
    CREATED,
    Output,
    Scratch,
    find_lacking,
    find_outdated,
    is_under_way,
    ledger_header,
    record_key,
)
from volseg.stages.predict.plan import PredictPlan
from volseg.stages.predict.tasks import Assemble, Evaluate, PredictTask
from volseg.stages.results import NewImage, create_images, discard, finish
from volseg.storage.arrays import StoredArray
from volseg.storage.handovers import HandoverStore
from volseg.storage.ledger import MARK, Ledger
from volseg.storage.volumes import open_image
from volseg.storage.weights import Card
from volseg.types import Zyx


@dataclass(frozen=True)
class PredictReport:
    """What a run did; ``tiles`` counts only what this run evaluated itself."""

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
    begun, _ = time.monotonic(), plan.known_tone
    written = find_lacking(plan.outputs, overwrite=plan.overwrite)
    if not written:
        # a process that was killed at the very end may have left some
        discard(*(Scratch(plan.scratch, o.path.name).store.folder for o in plan.outputs))
        return PredictReport(plan.voxels, 0, time.monotonic() - begun, True, plan.notes)
    scratch = Scratch(plan.scratch, written[0].path.name)
    ledger = Ledger.open(scratch.ledger, ledger_header(written), anew=plan.overwrite)
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
    model = model_record(plan.card)
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
        tone=plan.known_tone,
        margin=plan.margin,
        choice=plan.choice,
        centerline=lines[0] if lines else None,
    )


def model_record(card: Card) -> dict[str, Any]:
    """Say which model made a result."""
    return {
        "name": card.name,
        "architecture": card.architecture,
        "sha256": card.sha256,
        "threshold": card.threshold,
        "min_probability": card.min_probability,
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
        block = handover.grid.block
        missing = [t for t in handover.targets() if record_key(t) not in done]
        self.progress.start(roi_size(handover.roi), "voxels", "segmenting")
        finished = roi_size(handover.roi) - sum(roi_size(handover.core(t)) for t in missing)
        self.progress.advance(finished)
        waiting = {t: self._lacking(t) for t in missing}
        ready = [Assemble(block(t)) for t, sources in waiting.items() if not sources]
        tiles = 0

        def on_result(item: Evaluate | Assemble, count: int) -> Iterable[Evaluate | Assemble]:
            nonlocal tiles
            if isinstance(item, Assemble):
                self.ledger.record(record_key(item.index))
                self.task.store.discard(handover.sources(item.index), item.index)
                waiting.pop(item.index)
                self.progress.advance(count)
                return []
            tiles += count
            for target in item.targets:
                waiting[target].discard(item.index)
            return [Assemble(block(t)) for t in item.targets if not waiting[t]]

        try:
            work: Iterable[Evaluate | Assemble] = itertools.chain(ready, self._evaluations(waiting))
            with naming(lambda: map(block, waiting)):
                run_blocks(self.task, work, engine, on_result=on_result, on_gpu=self.task.on_gpu)
        finally:
            self.progress.finish()
        return tiles

    def _lacking(self, target: Zyx) -> set[Zyx]:
        """List the blocks that still have to evaluate tiles for a block."""
        sources = self.task.handover.sources(target)
        return {s for s in sources if not self.task.store.exists(s, target)}

    def _evaluations(self, waiting: dict[Zyx, set[Zyx]]) -> Iterator[Evaluate]:
        """Yield what is to be evaluated, in raster order, only for targets that lack it."""
        for source in self.task.handover.evaluators():
            needed = self.task.handover.targets_of(source)
            targets = tuple(t for t in needed if source in waiting.get(t, ()))
            if targets:
                yield Evaluate(self.task.handover.grid.block(source), targets)
