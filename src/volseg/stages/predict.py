"""Predict: raw to probabilities, block by block, each tile once, resumable."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.blocks import roi_size
from volseg.io.attributes import update_attributes
from volseg.io.ledger import Ledger
from volseg.io.pieces import Pieces
from volseg.io.volumes import create_image, open_image, scratch_path, volume_tone
from volseg.io.weights import Card
from volseg.stages.engine import EngineOptions, run_blocks
from volseg.stages.predict_block import Assemble, Evaluate, PredictTask
from volseg.stages.predict_plan import PredictOptions, choose_network, plan_prediction
from volseg.stages.progress import Progress
from volseg.stages.pyramid import build_pyramid
from volseg.stages.results import discard, fingerprint, is_complete
from volseg.types import Zyx

CREATED = "created"


@dataclass(frozen=True)
class PredictReport:
    """What a run did; ``tiles`` counts only what this run evaluated itself."""

    voxels: int
    tiles: int
    seconds: float
    resumed: bool
    notes: tuple[str, ...]


def predict(volume: Path, options: PredictOptions, progress: Progress) -> PredictReport:
    """Write ``probabilities/<name>`` of a volume.

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
    scratch = scratch_path(volume)
    ledger_path = scratch / f"predict-{options.name}.jsonl"
    pieces = Pieces(scratch / f"predict-{options.name}")
    if is_complete(plan.output, plan.header, overwrite=options.overwrite):
        return PredictReport(plan.voxels, 0, time.monotonic() - begun, True, plan.notes)
    if options.overwrite:
        discard(plan.output, ledger_path, pieces.folder)
    ledger = Ledger.open(ledger_path, plan.header)
    resumed = bool(ledger.done())
    if CREATED not in ledger.done():
        discard(plan.output, pieces.folder)
        attributes = {"complete": False, "run": plan.header, "model": model_record(plan.card)}
        create_image(plan.output, plan.spec, plan.image.voxel_size, attributes=attributes)
        ledger.record(CREATED)
    task = PredictTask(
        raw=plan.image.levels[plan.level],
        factor=plan.image.factors[plan.level],
        output=open_image(plan.output).levels[0],
        handover=plan.handover,
        pieces=pieces,
        tone=volume_tone(plan.image, plan.card.preprocessing),
        margin=plan.margin,
        choice=choose_network(plan, options),
    )
    tiles = PredictRun(task, ledger, progress).run(options.engine)
    build_pyramid(open_image(plan.output), options.engine, progress, label=False)
    update_attributes(plan.output, {"complete": True, "fingerprint": fingerprint(plan.header)})
    discard(pieces.folder)
    return PredictReport(plan.voxels, tiles, time.monotonic() - begun, resumed, plan.notes)


def model_record(card: Card) -> dict[str, Any]:
    """Say which model made a result."""
    return {
        "name": card.name,
        "architecture": card.architecture,
        "sha256": card.sha256,
        "threshold": card.threshold,
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
        missing = [t for t in handover.targets() if _key(t) not in done]
        self.progress.start(roi_size(handover.roi), "voxels", "segmenting")
        finished = roi_size(handover.roi) - sum(roi_size(handover.core(t)) for t in missing)
        self.progress.advance(finished)
        waiting = {t: self._lacking(t) for t in missing}
        ready = [Assemble(t) for t, sources in waiting.items() if not sources]
        tiles = 0

        def on_result(item: Evaluate | Assemble, count: int) -> Iterable[Evaluate | Assemble]:
            nonlocal tiles
            if isinstance(item, Assemble):
                self.ledger.record(_key(item.index))
                self.task.pieces.discard(handover.sources(item.index), item.index)
                waiting.pop(item.index)
                self.progress.advance(count)
                return []
            tiles += count
            for target in item.targets:
                waiting[target].discard(item.index)
            return [Assemble(t) for t in item.targets if not waiting[t]]

        try:
            work: Iterable[Evaluate | Assemble] = itertools.chain(ready, self._evaluations(waiting))
            run_blocks(self.task, work, engine, on_result=on_result)
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
                yield Evaluate(source, targets)


def _key(index: Zyx) -> str:
    return "-".join(map(str, index))
