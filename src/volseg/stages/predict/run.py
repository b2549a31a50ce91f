"""Predict: raw to probabilities, block by block, each tile once, resumable."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
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
    discard_outdated,
    find_lacking,
    is_under_way,
    ledger_header,
    record_key,
)
from volseg.stages.predict.plan import PredictOptions, PredictPlan, choose_network, plan_prediction
from volseg.stages.predict.tasks import Assemble, Evaluate, NetworkChoice, PredictTask
from volseg.stages.results import discard, finish
from volseg.storage.handovers import Pieces
from volseg.storage.ledger import MARK, Ledger
from volseg.storage.volumes import create_image, open_image, scratch_path, volume_tone
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


def predict(volume: Path, options: PredictOptions, progress: Progress) -> PredictReport:
    """Write ``probabilities/<name>`` of a volume, on request with its centerlines.

    Parameters
    ----------
    volume : Path
        An OME-Zarr image.
    options : PredictOptions
    progress : Progress

    Raises
    ------
    InputError
        If something cannot be used, or a different result is already there.
    BlockError
        If blocks failed; the same command again does only those.
    """
    begun = time.monotonic()
    plan = plan_prediction(volume, options)
    written = find_lacking(plan.outputs, overwrite=options.overwrite)
    if not written:
        # a process that was killed at the very end may have left some
        discard(*(Scratch(scratch_path(volume), o.path.name).pieces.folder for o in plan.outputs))
        return PredictReport(plan.voxels, 0, time.monotonic() - begun, True, plan.notes)
    scratch = Scratch(scratch_path(volume), written[0].path.name)
    ledger = Ledger.open(scratch.ledger, ledger_header(written), anew=options.overwrite)
    resumed = not options.overwrite and is_under_way(written, ledger)
    if not resumed:
        ledger.restart()
        discard(scratch.pieces.folder)
        create_outputs(plan, written, scratch.folder, ledger.mark)
        ledger.record(CREATED)
    task = build_task(plan, choose_network(plan, options), written, scratch.pieces)
    tiles = PredictRun(task, ledger, progress).run(options.engine)
    for output in written:
        build_pyramid(open_image(output.path), options.engine, progress, label=False)
    for output in reversed(written):
        # the mask last: while it is incomplete, the same command makes sure of both
        finish(output.path, ledger, output.header)
    discard(scratch.pieces.folder)
    return PredictReport(plan.voxels, tiles, time.monotonic() - begun, resumed, plan.notes)


def create_outputs(
    plan: PredictPlan, written: tuple[Output, ...], scratch: Path, mark: str
) -> None:
    """Create what a run writes, empty, in place of what is there."""
    discard_outdated(written, scratch)
    for output in written:
        attributes = {
            "complete": False,
            "version": __version__,
            MARK: mark,
            "run": output.header,
            "model": model_record(plan.card),
        }
        create_image(output.path, plan.spec, plan.image.voxel_size, attributes=attributes)


def build_task(
    plan: PredictPlan, choice: NetworkChoice, written: tuple[Output, ...], pieces: Pieces
) -> PredictTask:
    """Say what workers do to write the images of a run."""
    arrays = {o.path: open_image(o.path).levels[0] for o in written}
    mask, *lines = plan.outputs
    return PredictTask(
        raw=plan.image.levels[plan.level],
        factor=plan.image.factors[plan.level],
        output=arrays.get(mask.path),
        handover=plan.handover,
        pieces=pieces,
        tone=volume_tone(plan.image, plan.card.preprocessing),
        margin=plan.margin,
        choice=choice,
        centerline=arrays[lines[0].path] if lines else None,
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
class PredictRun:
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
                self.task.pieces.discard(handover.sources(item.index), item.index)
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
        return {s for s in sources if not self.task.pieces.exists(s, target)}

    def _evaluations(self, waiting: dict[Zyx, set[Zyx]]) -> Iterator[Evaluate]:
        """Yield what is to be evaluated, in raster order, only for targets that lack it."""
        for source in self.task.handover.evaluators():
            needed = self.task.handover.targets_of(source)
            targets = tuple(t for t in needed if source in waiting.get(t, ()))
            if targets:
                yield Evaluate(self.task.handover.grid.block(source), targets)
