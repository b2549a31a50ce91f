"""Predict: raw to probabilities, block by block, each tile once, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from volseg import __version__
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress
from volseg.engine.run import naming, run_blocks
from volseg.engine.steps import Step
from volseg.geometry.grid import Block, full_roi, roi_size
from volseg.models.maps import find_vector
from volseg.stages.levels import build_pyramid
from volseg.stages.predict.loading import predictor_for
from volseg.stages.predict.meter import TileMeter
from volseg.stages.predict.outputs import (
    Output,
    find_lacking,
    is_under_way,
    ledger_header,
    with_maps,
)
from volseg.stages.predict.plan import PredictPlan
from volseg.stages.predict.tasks import Evaluate, PredictTask
from volseg.stages.predict.tiles import tiles_of
from volseg.stages.survey.likeness import Region, look_at_tissue
from volseg.stages.survey.notes import usual_median
from volseg.storage.arrays import StoredArray
from volseg.storage.cards import sizes_of_objects
from volseg.storage.files import discard
from volseg.storage.ledger import CREATED, MARK, Ledger, block_key
from volseg.storage.predictions import Scratch, find_outdated
from volseg.storage.results import NewImage, create_images, finish
from volseg.storage.scratch import HandoverStore
from volseg.storage.volumes import open_image, volume_tone
from volseg.types import FULL_PROBABILITY, Zyx
from volseg.voxels.blend import reflected


@dataclass(frozen=True)
class PredictReport:
    """Work that a run did.

    Attributes
    ----------
    tiles : only those that this run evaluated itself.
    work : network voxels of all tiles for each one of the region.
    """

    voxels: int
    tiles: int
    work: float
    seconds: float
    resumed: bool
    notes: tuple[str, ...]


def predict(plan: PredictPlan, progress: Progress) -> PredictReport:
    """Write ``probabilities/<name>`` of a volume, on request with its centerlines."""
    begun, _ = time.monotonic(), plan.known_look
    engine, overwrite = plan.options.engine, plan.options.overwrite
    written = find_lacking(plan.outputs, plan.scratch, overwrite=overwrite)
    if not written:
        # a process that was killed at the very end may have left some
        discard(*(Scratch(plan.scratch, o.path.name).store.folder for o in plan.outputs))
        return _report(plan, 0, begun, resumed=True)
    scratch = Scratch(plan.scratch, written[0].path.name)
    header = ledger_header(written, resampled=plan.resampled)
    with Ledger.open(scratch.ledger, header, anew=overwrite) as ledger:
        resumed = not overwrite and is_under_way(written, ledger)
        if not resumed:
            ledger.restart()
            discard(scratch.store.folder)
            create_outputs(plan, written, ledger.mark)
            ledger.record(CREATED)
        images = {o.place: open_image(o.path) for o in written}
        arrays = {place: image.levels[0] for place, image in images.items()}
        task = build_task(plan, arrays, scratch.store)
        tiles = run_task(task, ledger, engine, progress)
        for image in images.values():
            build_pyramid(image, engine, progress, label=False)
        for output in reversed(written):
            # the mask last: while it is incomplete, the same command makes sure of both
            finish(output.path, ledger, output.header)
        discard(scratch.store.folder)
    return _report(plan, tiles, begun, resumed=resumed)


def _report(plan: PredictPlan, tiles: int, begun: float, *, resumed: bool) -> PredictReport:
    work, seconds = plan.handover.count_work(), time.monotonic() - begun
    return PredictReport(plan.voxels, tiles, work, seconds, resumed, plan.notes)


def create_outputs(plan: PredictPlan, written: tuple[Output, ...], mark: str) -> None:
    """Create what a run writes, empty, in place of what is there."""
    work = round(plan.handover.count_work(), 3)
    common = {"complete": False, "version": __version__, MARK: mark, "work": work}
    if tissue := _compare_tissue(plan):
        common["tissue"] = tissue
    images = [
        NewImage(
            output.path,
            plan.spec,
            plan.image.space,
            {**common, "run": output.header, "model": model_record(plan, output.of)},
        )
        for output in written
    ]
    # maps of a class that is complete stay, even where a run that goes on writes it once more
    overwrite = plan.options.overwrite
    replaced = with_maps(written, [o for o in written if not o.stands(overwrite=overwrite)])
    classes = [o.path for o in replaced if o.is_class]
    create_images(images, *find_outdated(classes, plan.scratch, [o.path for o in replaced]))


def _compare_tissue(plan: PredictPlan) -> dict[str, Any]:
    """Compare the tissue with what the network was trained on."""
    look, invert = plan.known_look, plan.options.invert
    return look_at_tissue(
        plan.image,
        plan.choice.model,
        plan.card,
        [along.scale for along in plan.handover.lattices[0].axes],
        tone=look.apart or volume_tone(plan.image, plan.card.preprocessing, invert=invert),
        region=Region(plan.handover.roi, None if plan.level else look.find_nothing),
    )


def build_task(
    plan: PredictPlan, arrays: Mapping[int, StoredArray], store: HandoverStore
) -> PredictTask:
    """Say what workers do to write the images of a run."""
    choice = replace(plan.choice, maps=tuple(arrays))
    return PredictTask(tiles_of(plan), tuple(arrays.values()), store, choice)


def model_record(plan: PredictPlan, place: int = 0) -> dict[str, Any]:
    """Say which model made a result, and by which rules its objects are kept.

    Voxels of unknown size that were taken as larger are fewer in any length of the model's. Slices
    that do not continue one another have no median.
    """
    card, zoom = plan.card, plan.options.zoom
    rules, splitting = card.rules_of(place), card.splitting_of(place)
    # of voxels of a known size, these are volumes, whatever scale the network sees them at
    times = 1.0 if plan.image.voxel_size else zoom**-3
    faint = 0 if place else card.faint_size
    sizes = [math.ceil(size * times) for size in (rules.min_size, faint)]
    vectors = find_vector(card.maps, card.maps[place].of) if card.maps else []
    reach = card.maps[vectors[0]].reach_nm / zoom if vectors else 0.0
    return {
        "name": card.name,
        "architecture": card.architecture,
        "sha256": card.sha256,
        "threshold": rules.threshold,
        "min_probability": rules.min_probability,
        **usual_median(card.median_nm, plan.image),
        **sizes_of_objects(replace(card, min_size=sizes[0], faint_size=sizes[1])),
        **({"splitting": splitting} if splitting else {}),
        **({"offsets": {"reach_nm": reach, "voxel_size": list(card.voxel_size)}} if reach else {}),
    }


def run_task(task: PredictTask, ledger: Ledger, engine: EngineOptions, progress: Progress) -> int:
    """Evaluate and write what a ledger does not have on record; return the tiles evaluated."""
    handover, done = task.handover, ledger.records
    missing = {t for t in handover.targets() if block_key("written", t) not in done}
    lacking = sum(roi_size(handover.core(t)) for t in missing)
    wanted = roi_size(handover.roi)
    tiles = 0

    def on_result(item: Evaluate | Block, count: int) -> None:
        nonlocal tiles
        if isinstance(item, Evaluate):
            tiles += count
            return
        ledger.record(block_key("written", item.index))
        task.store.discard(handover.sources(item.index), item.index)
        missing.discard(item.index)

    whole = sum(handover.count_tiles())
    meter = TileMeter(progress, lacking, whole * lacking / max(wanted, 1))

    def count_voxels(item: Evaluate | Block, count: int) -> int:
        if isinstance(item, Evaluate):
            return meter.finish_block(item.index, count)
        return 0 if missing else meter.finish()

    job = Job(progress, wanted, "voxels", "segmenting", wanted - lacking, count_voxels)
    with (
        naming(lambda: map(handover.grid.block, sorted(missing))),
        meter.listening(task.store.folder),
    ):
        steps = _steps(task, frozenset(missing))
        run_blocks(task, steps, engine, on_result=on_result, progress=job)
    return tiles


def _steps(task: PredictTask, missing: frozenset[Zyx]) -> Iterator[Step[Evaluate | Block]]:
    """Yield what is to be evaluated, in raster order, and each block after its last source."""
    handover, store = task.handover, task.store
    for source in handover.evaluators():
        wanted = [t for t in handover.targets_of(source) if t in missing]
        targets = tuple(t for t in wanted if not store.exists(source, t))
        if targets:
            item = Evaluate(handover.grid.block(source), targets)
            yield Step(item, name=source, on_gpu=task.on_gpu)
        for target in wanted:
            sources = handover.sources(target)
            if sources[-1] == source:
                yield Step(handover.grid.block(target), after=tuple(sources))


LITTLE = 0.05
"""Mean probability of a volume below which its polarity is looked at."""
MUCH, MORE = 0.05, 5
"""Part of the middle found in the inverted data, and how many times what is found as they are."""
LOOKED_AT = (16, 128, 128)
"""Network voxels of the middle that are looked at."""
LEAST = 96
"""Side of a slice from which more than half of that is its own, and not reflected."""


def hint_inverted(plan: PredictPlan) -> tuple[str, ...]:
    """Say if a complete prediction holds little, and would hold much of inverted data."""
    if plan.options.engine.elsewhere:
        return ()
    coarse = open_image(plan.mask.path).levels[-1]
    if coarse[full_roi(coarse.shape)].mean() >= LITTLE * FULL_PROBABILITY:
        return ()
    if min(plan.image.levels[plan.level].shape[1:]) < LEAST:
        return ()
    tile = _cut_middle(plan)
    if tile is None:
        return ()
    # a window maps inverted intensities to their negatives
    plain, inverted = (_part_found(plan, seen) for seen in (tile, -tile))
    if inverted < max(MUCH, MORE * plain):
        return ()
    other = "leave --invert out" if plan.options.invert else "give --invert"
    hint = f"{plain:.0%} of the middle were found, but {inverted:.0%} if it is inverted"
    return (f"{hint}: if membranes are bright, {other}",)


def _cut_middle(plan: PredictPlan) -> Tensor | None:
    """Cut out what a tile in the middle sees; None where there is no tissue."""
    form = plan.card.form
    indices = []
    for size, margin, n in zip(
        form.fit(LOOKED_AT), form.margin, plan.image.levels[plan.level].shape, strict=True
    ):
        start = (n - size) // 2 - margin
        indices.append(reflected(start, start + size + 2 * margin, n))
    z, y, x = (slice(int(i.min()), int(i.max()) + 1) for i in indices)
    return plan.known_look.read((z, y, x)).send().cut(indices)


def _part_found(plan: PredictPlan, tile: Tensor) -> float:
    predictor = predictor_for(plan.choice)
    mask = predictor.evaluate(tile.to(predictor.device))[0]
    threshold = plan.card.rules_of(plan.mask.place).threshold
    return float((mask >= threshold).float().mean())
