"""Repair: what is damaged in a complete result is forgotten, so that a run makes just that again.

What `volseg verify` finds by reading and by comparing the levels of a pyramid is damage; the ledger
is written anew without the blocks that it concerns, as if the run had been killed before them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress
from volseg.engine.run import run_blocks
from volseg.errors import ConflictError, ParameterError, list_some
from volseg.geometry.grid import Block, Grid
from volseg.models.maps import CENTERLINE
from volseg.stages.label.plan import LabelPlan
from volseg.stages.label.tasks import coarse_levels
from volseg.stages.levels import step_factor
from volseg.stages.predict.outputs import OF_CLASS, Output, ledger_header, with_maps
from volseg.stages.predict.plan import PredictPlan
from volseg.stages.verify.tasks import CheckLevel, LevelChecked, absent_shards
from volseg.storage.attributes import update_attributes
from volseg.storage.files import discard
from volseg.storage.ledger import CREATED, MARK, Ledger, block_key, new_mark
from volseg.storage.predictions import KIND, Scratch
from volseg.storage.shards import shard_path
from volseg.storage.volumes import Image, open_image
from volseg.types import Zyx

Shard = tuple[int, Zyx]
"""A level of the pyramid, and the position of a written block in it."""


@dataclass(frozen=True)
class Mended:
    """Damage that was found in a result.

    Attributes
    ----------
    array : ``probabilities/<name>`` or ``labels/<name>``.
    shards : how many written blocks of all levels; more may be written again.
    blocks : that have to be made again; none if only coarser levels are damaged.
    """

    array: str
    shards: int
    blocks: tuple[Block, ...]

    def __str__(self) -> str:
        """Say it in a sentence."""
        again = list_some(self.blocks, 3) or "coarser levels only"
        return f"{self.array}: {self.shards} damaged file(s); made again: {again}"


def mend_probabilities(plan: PredictPlan, progress: Progress) -> tuple[Mended, ...]:
    """Make complete probabilities incomplete where they are damaged; prediction does the rest."""
    complete = [o for o in plan.outputs if o.stands(same_blocks=True)]
    engine = plan.options.engine
    found = {o.path: _find_damage(open_image(o.path), engine, progress) for o in complete}
    damaged = tuple(o for o in complete if found[o.path])
    if not damaged:
        return ()
    if lacking := [o for o in plan.outputs if o not in complete]:
        raise ParameterError(
            f"{damaged[0].path} is damaged, and {lacking[0].path.name} is not complete: repair it "
            f"{_apart(damaged[0], lacking)} first"
        )
    written = with_maps(plan.outputs, damaged)
    grid, wanted = plan.handover.grid, list(plan.handover.targets())
    lost = {o.path: _blocks(found[o.path], open_image(o.path), grid) for o in damaged}
    again = {b.index for blocks in lost.values() for b in blocks}
    kept = (block_key("written", t) for t in wanted if t not in again)
    mark = new_mark()
    records = {MARK: mark, CREATED: None, **dict.fromkeys(kept)}
    scratch = Scratch(plan.scratch, written[0].path.name)
    discard(scratch.store.folder)
    Ledger.replace(scratch.ledger, ledger_header(written, resampled=plan.resampled), records)
    _forget(written, found, mark)
    return tuple(
        Mended(f"probabilities/{o.path.name}", len(found[o.path]), lost[o.path]) for o in damaged
    )


def _apart(damaged: Output, lacking: Sequence[Output]) -> str:
    """Say by which flags a damaged image is repaired without those that are not complete."""
    if not any(o.is_class for o in lacking):
        lines = lacking[0].header[KIND] == CENTERLINE
        return "without " + ("--store-centerline and --split centerline" if lines else "--split")
    # of a single class, the maps are made again together with it
    named = damaged.header.get(OF_CLASS)
    return f"with --classes {named}" if named else "without --repair"


def mend_labels(plan: LabelPlan, progress: Progress) -> tuple[Mended, ...]:
    """Make complete labels incomplete where they are damaged; labelling does the rest."""
    if not plan.stands():
        return ()
    image = open_image(plan.path)
    found = _find_damage(image, plan.engine, progress)
    if not found:
        return ()
    if image.levels[0].shard != plan.spec.shard:
        raise ConflictError(
            f"{plan.path} is written in blocks of {image.levels[0].shard} voxels, expected "
            f"{plan.spec.shard}; remove it, and make it again"
        )
    # each shard of these levels is written with the one of level 0 that it stands for
    together = 1 + len(coarse_levels(image))
    lost = _blocks([(0, index) for k, index in found if k < together], image, plan.grid)
    again = {b.index for b in lost}
    mark = new_mark()
    records: dict[str, Any] = {MARK: mark, "objects": image.attributes["objects"]}
    kept = (b for b in plan.grid.blocks() if b.index not in again)
    records |= {block_key("written", b.index): None for b in kept}
    Ledger.replace(plan.ledger, plan.ledger_header, records)
    _forget((Output(plan.path, plan.header),), {plan.path: found}, mark)
    return (Mended(f"labels/{plan.name}", len(found), lost),)


def _find_damage(image: Image, engine: EngineOptions, progress: Progress) -> list[Shard]:
    """List the written blocks that cannot be read, are lost, or contradict their pyramid."""
    label = image.levels[0].dtype.itemsize > 1
    found: set[Shard] = set()
    for k, fine in enumerate(image.levels):
        last = k + 1 == len(image.levels)
        factor = (1, 1, 1) if last else step_factor(image, k + 1)
        coarse = None if last else image.levels[k + 1]
        task = CheckLevel(image.path.name, k, fine, coarse, factor, label, counted=False)
        z, y, x = (math.lcm(s, f) for s, f in zip(fine.shard, factor, strict=True))

        def on_result(block: Block, checked: LevelChecked, task: CheckLevel = task) -> None:
            found.update(_shards(task, block, checked))

        voxels, title = math.prod(fine.shape), f"looking for damage in level {k}"
        job = Job(progress, voxels, "voxels", title, size=lambda _, checked: checked.voxels)
        blocks = Grid(fine.shape, (z, y, x)).blocks()
        run_blocks(task, blocks, engine, on_result=on_result, progress=job)
    return sorted(found)


def _shards(task: CheckLevel, block: Block, checked: LevelChecked) -> Iterator[Shard]:
    """Tell which written blocks are to blame for what was found in one block of a level."""
    for finding in checked.findings:
        if finding.block is None:
            continue
        if finding.kind == "unreadable":
            yield task.level, finding.block
            continue
        # a lost block reads as 0, which what it was reduced to contradicts
        absent = absent_shards(task.fine, block.core)
        yield from ((task.level, index) for index in absent)
        if not absent:
            yield task.level + 1, finding.block


def _blocks(found: Iterable[Shard], image: Image, grid: Grid) -> tuple[Block, ...]:
    """List the blocks of a run in which shards of level 0 lie."""
    shards = Grid(image.levels[0].shape, image.levels[0].shard)
    corners = ([s.start for s in shards.block(index).core] for k, index in found if k == 0)
    return tuple(grid.block(i) for i in sorted({grid.index_at((z, y, x)) for z, y, x in corners}))


def _forget(outputs: Sequence[Output], damaged: Mapping[Path, Sequence[Shard]], mark: str) -> None:
    """Mark images as those that a ledger tells of, incomplete, then remove what is damaged in them.

    In this order, after the ledger: a process that is killed in between leaves either a result that
    is complete and damaged, or one that a run completes.
    """
    for output in outputs:
        update_attributes(output.path, {"complete": False, MARK: mark})
    for path, shards in damaged.items():
        for level, index in shards:
            shard_path(open_image(path).levels[level], index).unlink(missing_ok=True)
