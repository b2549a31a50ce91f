"""Apply: labels as they are but for what corrections touch, which is computed; resumable."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import naming, run_blocks, same_workers
from volseg.geometry.grid import Block, Grid, coarsen, roi_size
from volseg.objects.joining import label_type
from volseg.stages.apply.plan import ApplyPlan, Painted
from volseg.stages.apply.resolve import Resolved, SplitObject, box_of, resolve
from volseg.stages.apply.table import Changes, find_known, find_table, write_tables
from volseg.stages.apply.tasks import (
    CorrectBlock,
    Corrected,
    Placed,
    cut_object,
    pieces_path,
    take_over_row,
)
from volseg.stages.components.masks import store_objects
from volseg.stages.levels import reduce_task, step_factor
from volseg.storage.arrays import open_array
from volseg.storage.attributes import update_attributes
from volseg.storage.files import discard
from volseg.storage.ledger import CREATED, Ledger, block_key
from volseg.storage.results import (
    NewImage,
    create_images,
    fingerprint,
    finish,
    is_told_of,
    note_begun,
)
from volseg.storage.volumes import Image, open_image, register_label
from volseg.types import Zyx, zyx


@dataclass(frozen=True)
class ApplyReport:
    """Outcome of corrections.

    Attributes
    ----------
    blocks : files of level 0 that were computed; all others are those of the labels before.
    table : of objects, brought up to date; None if there was none of the labels before.
    """

    path: Path
    objects: int
    blocks: int
    table: Path | None
    fingerprint: str
    seconds: float
    notes: tuple[str, ...] = ()


def apply(plan: ApplyPlan, progress: Progress) -> ApplyReport:
    """Write corrected labels; running it again does only what is missing."""
    begun = time.monotonic()
    if plan.stands():
        # the same objects may go by another rule, or another result than before
        if open_image(plan.path).attributes.get("corrections") != plan.provenance:
            update_attributes(plan.path, {"corrections": plan.provenance})
        discard(plan.scratch)
        return _report(plan, 0, begun)
    with same_workers(plan.engine):
        table = find_table(plan)
        resolved = resolve(plan, find_known(plan, table, progress))
        with Ledger.open(plan.ledger, plan.ledger_header, anew=plan.overwrite) as ledger:
            if plan.overwrite:
                discard(plan.scratch)
            if not is_told_of(plan.path, ledger) and CREATED in ledger.records:
                ledger.restart()
            run = Correcting(plan, resolved, ledger, progress)
            with naming(run.missing):
                changes = run.write()
                notes = write_tables(plan, resolved, changes, table, progress)
                register_label(plan.volume, plan.name)
                finish(plan.path, ledger, plan.header)
            discard(plan.scratch)
    return _report(plan, len(changes.blocks), begun, notes)


def _report(plan: ApplyPlan, blocks: int, begun: float, notes: tuple[str, ...] = ()) -> ApplyReport:
    objects, table = open_image(plan.path).attributes["objects"], plan.tables[1][0]
    notes += () if plan.broken is None else plan.broken.tell(plan.image)
    if not objects:
        notes += (f"no object is left in {plan.path}",)
    return ApplyReport(
        plan.path,
        objects,
        blocks,
        table if table.exists() else None,
        fingerprint(plan.header),
        time.monotonic() - begun,
        notes,
    )


@dataclass(frozen=True)
class Correcting:
    """The client's side of a run."""

    plan: ApplyPlan
    resolved: Resolved
    ledger: Ledger
    progress: Progress

    def missing(self) -> Iterator[Block]:
        """List the blocks that are touched, and not on record; none before all are known."""
        wanted = self.ledger.records.get(CREATED) or ()
        return self.ledger.lacking(self.plan.grid.block(zyx(index)) for index in wanted)

    def write(self) -> Changes:
        """Write all levels; return what has changed."""
        sizes = self._cut()
        counter = itertools.count(self.resolved.highest + 1)
        cuts = [self._place_cut(*item, counter) for item in enumerate(self.resolved.cuts)]
        paintings = [self._place_painting(*item, counter) for item in enumerate(self.plan.painted)]
        highest = next(counter) - 1
        if CREATED not in self.ledger.records:
            self._create(highest)
        image = open_image(self.plan.path)
        touched = self._touched(image)
        renamed = sorted(self.resolved.renamed.items())
        old, new = np.array(renamed or np.zeros((0, 2)), np.uint64).T
        source = self.plan.source
        task = CorrectBlock(source, image.levels[0], old, new, tuple(cuts), tuple(paintings))
        self._write_blocks(task)
        self._write_coarse(image, touched)
        found = [self._found(b) for b in sorted(touched[0])]
        pieces = {
            int(number): size
            for cut, voxels in zip(cuts, sizes, strict=True)
            for number, size in zip(cut.numbers, voxels, strict=True)
        }
        changes = Changes.gather(self.resolved, self.plan.grid, found, pieces, sorted(touched[0]))
        # another rule may have begun the run
        told = {"objects": changes.objects, "corrections": self.plan.provenance}
        update_attributes(self.plan.path, told)
        return changes

    def _cut(self) -> list[list[int]]:
        """Split objects; return the voxels of each one's pieces."""
        folder, records = self.plan.scratch, self.ledger.records
        items = list(enumerate(self.resolved.cuts))
        missing = [
            item
            for item in items
            if block_key("split", (item[0], 0, 0)) not in records
            or not pieces_path(folder, item[0]).exists()
        ]

        def on_result(item: tuple[int, SplitObject], voxels: list[int]) -> None:
            self.ledger.record(block_key("split", (item[0], 0, 0)), voxels)

        job = Job(self.progress, len(items), "objects", "splitting", len(items) - len(missing))
        task = partial(cut_object, self.plan.source, self.plan.spacing, folder)
        run_blocks(task, missing, self.plan.engine, on_result=on_result, progress=job)
        return [records[block_key("split", (k, 0, 0))] for k, _ in items]

    def _place_cut(self, k: int, cut: SplitObject, counter: Iterator[int]) -> Placed:
        """Give pieces their numbers: the first keeps the object's label."""
        count = len(cut.seeds)
        numbers = [cut.label, *itertools.islice(counter, count - 1)]
        pieces = open_array(pieces_path(self.plan.scratch, k))
        return Placed(pieces, cut.box, _whole(range(1, count + 1)), _whole(numbers))

    def _place_painting(self, k: int, found: Painted, counter: Iterator[int]) -> Placed:
        """Give paintings their numbers; the objects of a mask are its components."""
        onto, labels, values = self.resolved.onto[k], found.labels, list(found.values)
        alone = onto is None and not found.painting.instances
        if alone and labels.is_mask(_whole(values)):
            labels, count = self._components(k, found)
            values = list(range(1, count + 1))
        numbers = list(itertools.islice(counter, len(values))) if onto is None else []
        return Placed(labels, found.box, _whole(values), _whole(numbers or [onto] * len(values)))

    def _components(self, k: int, found: Painted) -> tuple[Any, int]:
        folder, key = self.plan.scratch / f"painting-{k}", block_key("painted", (k, 0, 0))
        count, objects = self.ledger.records.get(key), folder / "objects"
        if count is None or not objects.exists():
            discard(folder)
            _, count = store_objects(found.labels, folder, self.plan.engine, self.progress)
            self.ledger.record(key, count)
        array = open_array(objects)
        return replace(found.labels, array=array, block=array.shard), count

    def _create(self, highest: int) -> None:
        """Create the outcome, empty; keep on record which blocks are touched."""
        plan, before = self.plan, self.plan.image
        kept = {
            k: before.attributes[k] for k in ("roi", "model", "tissue") if k in before.attributes
        }
        attributes = {
            **note_begun(self.ledger, plan.header),
            "corrections": plan.provenance,
            "highest": highest,
            **kept,
        }
        dtype = label_type(highest)
        spec = replace(plan.spec, dtype=dtype.name)
        image = NewImage(plan.path, spec, before.space, attributes, label=True)
        create_images([image], *plan.tables[1])
        blocks = {b.index for box in self._boxes() for b in plan.grid.blocks(box)}
        blocks.update(*(p.blocks for p in plan.painted))
        if not self._is_alike(open_image(plan.path)):
            blocks = {b.index for b in plan.grid.blocks()}
        self.ledger.record(CREATED, sorted(blocks))

    def _boxes(self) -> Iterator[Any]:
        """List the boxes of what becomes another label."""
        yield from (box_of(self.resolved.known, label) for label in self.resolved.renamed)
        yield from (cut.box for cut in self.resolved.cuts)

    def _is_alike(self, image: Image) -> bool:
        """Tell whether the files of the labels before are such as the outcome's are."""
        ours, theirs = image.levels, self.plan.image.levels
        alike = len(ours) == len(theirs) and image.factors == self.plan.image.factors
        return alike and all(
            a.compression is not None and replace(a, path=b.path) == b
            for a, b in zip(ours, theirs, strict=True)
        )

    def _touched(self, image: Image) -> tuple[frozenset[Zyx], ...]:
        """List the positions of the files of each level that are written anew."""
        found: list[frozenset[Zyx]] = []
        (first, *others) = image.levels
        found.append(frozenset(map(zyx, self.ledger.records[CREATED])))
        before = Grid(first.shape, first.shard)
        for k, level in enumerate(others, 1):
            grid, factor = Grid(level.shape, level.shard), step_factor(image, k)
            indices: set[Zyx] = set()
            for core in (before.block(index).core for index in found[-1]):
                indices |= {b.index for b in grid.blocks(coarsen(core, factor))}
            found.append(frozenset(indices))
            before = grid
        return tuple(found)

    def _write_blocks(self, task: CorrectBlock) -> None:
        def on_result(block: Block, found: Corrected) -> None:
            record = [found.areas, sorted(found.changed.items())]
            self.ledger.record(block_key("written", block.index), record)

        missing = list(self.missing())
        voxels = sum(roi_size(b.core) for b in missing)
        job = Job(self.progress, voxels, "voxels", "correcting", size=core_voxels)
        run_blocks(task, missing, self.plan.engine, on_result=on_result, progress=job)

    def _write_coarse(self, image: Image, touched: tuple[frozenset[Zyx], ...]) -> None:
        """Take over what is untouched, and reduce what is touched, level by level."""
        if self._is_alike(image):
            pairs = tuple(zip(self.plan.image.levels, image.levels, strict=True))
            rows = [
                (k, z, y)
                for k, level in enumerate(image.levels)
                for z, y in np.ndindex(Grid(level.shape, level.shard).counts[:2])
            ]
            job = Job(self.progress, len(rows), "rows", "taking over")
            take = partial(take_over_row, pairs, touched)
            run_blocks(take, rows, self.plan.engine, progress=job, batch=8)
        for k, level in enumerate(image.levels[1:], 1):
            grid = Grid(level.shape, level.shard)
            blocks = [grid.block(index) for index in sorted(touched[k])]
            run_blocks(reduce_task(image, k, label=True), blocks, self.plan.engine)

    def _found(self, index: Zyx) -> Corrected:
        areas, changed = self.ledger.records[block_key("written", index)]
        return Corrected(areas, {int(label): int(count) for label, count in changed})


def _whole(numbers: Any) -> Any:
    return np.array(list(numbers), np.uint64)
