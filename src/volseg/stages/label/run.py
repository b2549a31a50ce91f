"""Label: probabilities to numbered objects, in two passes over the blocks, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from volseg import __version__
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress, returned
from volseg.engine.run import naming, run_blocks, same_workers
from volseg.errors import ConflictError, StorageError
from volseg.geometry.grid import Block, Grid
from volseg.objects.joining import Numbering, label_type
from volseg.stages.components import (
    Evidence,
    JoinBlock,
    LabelBlock,
    begin_at,
    number_components,
)
from volseg.stages.label.holes import FindHoles, HoleFilling
from volseg.stages.label.plan import Foundation, LabelPlan, coarse_levels
from volseg.stages.label.report import LabelReport, report_on
from volseg.stages.label.split import Splitting
from volseg.stages.label.tasks import (
    Layer,
    Numbered,
    WriteBlock,
)
from volseg.stages.levels import build_pyramid
from volseg.storage.arrays import StoredArray
from volseg.storage.files import discard
from volseg.storage.ledger import MARK, Ledger, block_key
from volseg.storage.results import NewImage, create_images, finish, is_told_of
from volseg.storage.scratch import ComponentStore
from volseg.storage.volumes import Image, open_image, register_label
from volseg.types import Zyx


def label(plan: LabelPlan, progress: Progress) -> LabelReport:
    """Write ``labels/<name>`` of a volume from ``probabilities/<name>``.

    Objects are connected components of at least the threshold, numbered from 1 by their first
    voxel in raster order. Running it again does only what is missing.

    Raises
    ------
    InputError
        If the probabilities are no longer those of the plan, or a different result is already
        there.
    BlockError
        If blocks failed.
    """
    begun = time.monotonic()
    if plan.stands():
        discard(plan.store.folder)
        return report_on(plan, time.monotonic() - begun)
    probabilities = open_planned(plan.source)
    begin = Ledger.open(plan.ledger, plan.ledger_header, anew=plan.overwrite)
    with same_workers(plan.engine), begin as ledger:
        if plan.overwrite:
            # only now: there are workers, and no other process works on it
            discard(plan.store.folder)
        if not is_told_of(plan.path, ledger) and "objects" in ledger.records:
            ledger.restart()
        run = Labelling(plan, probabilities, ledger, progress)
        with naming(run.missing):
            run.write(run.find())
        discard(plan.store.folder)
    return report_on(plan, time.monotonic() - begun)


def open_planned(source: Foundation) -> StoredArray:
    """Open the probabilities that labels were planned on.

    Raises
    ------
    VolumeError
        If they cannot be opened.
    ConflictError
        If others stand there, or incomplete ones.
    """
    image = open_image(source.path)
    complete = image.attributes.get("complete")
    if not complete or image.attributes.get("fingerprint") != source.fingerprint:
        raise ConflictError(
            f"{source.path} was changed by another process meanwhile; give the command again"
        )
    return image.levels[0]


@dataclass(frozen=True)
class Labelling:
    """The client's side of a run: both passes, and what the ledger is told."""

    plan: LabelPlan
    probabilities: StoredArray
    ledger: Ledger
    progress: Progress

    @property
    def grid(self) -> Grid:
        """The blocks."""
        return self.plan.grid

    @property
    def store(self) -> ComponentStore:
        """Components, between the passes."""
        return self.plan.store

    @property
    def engine(self) -> EngineOptions:
        """Workers and scheduler."""
        return self.plan.engine

    @property
    def connectivity(self) -> int:
        """The neighbours that belong to one object: 6, 18 or 26."""
        return int(self.ledger.header["connectivity"])

    def missing(self) -> Iterator[Block]:
        """List the blocks whose labels are not on record."""
        return (
            b
            for b in self.grid.blocks()
            if block_key("written", b.index) not in self.ledger.records
        )

    def find(self) -> dict[Zyx, int]:
        """Pass 1; return the number of components of each block, in raster order."""
        records = self.ledger.records
        blocks = list(self.grid.blocks())
        # after a complete pass 1 the number of objects is on record, and that is all it is for
        missing = [
            b
            for b in blocks
            if block_key("found", b.index) not in records or not self.store.exists(b.index)
        ]

        def on_result(block: Block, count: int) -> None:
            self.ledger.record(block_key("found", block.index), count)

        level = int(self.plan.header["threshold_of_255"])
        task = LabelBlock(self.probabilities, level, self.connectivity, self.store)
        done = len(blocks) - len(missing)
        job = Job(self.progress, len(blocks), "blocks", "labelling", done)
        run_blocks(task, missing, self.engine, on_result=on_result, progress=job)
        return {b.index: int(records[block_key("found", b.index)]) for b in blocks}

    def number(self, offsets: dict[Zyx, int], components: int) -> Numbering:
        """Join components across borders and number the objects; return them."""
        header = self.ledger.header
        seed, least = header.get("seed_threshold_of_255"), header.get("min_probability")
        evidence = Evidence(self.probabilities, seed, least is not None)
        return number_components(
            JoinBlock(self.grid, self.store, self.connectivity, evidence),
            offsets,
            components,
            self.engine,
            min_size=int(header["min_size"]),
            min_probability=least or 0,
        )

    def write(self, counts: dict[Zyx, int]) -> None:
        """Give every object its number and write it."""
        header = self.plan.header
        offsets, components = begin_at(counts)
        records = self.ledger.records
        if "objects" not in records or self._lacks_scratch():
            counts_of = self._number_all(offsets, components)
            # numbers are the same each time, so what was written with them before stays valid
            if "objects" not in records:
                self._create(counts_of)
                self.ledger.record("objects", counts_of["objects"])
        image, layers_of = open_image(self.plan.path), self._layers(offsets)
        pieces = self._splitting(offsets).pieces() if "split" in header else {}
        missing = (
            Numbered(b, layers_of(b.index) + pieces.get(b.index, ()))
            for b in self.grid.blocks()
            if block_key("written", b.index) not in records
        )
        self._write_blocks(image, missing)
        register_label(self.plan.volume, self.plan.name)
        finish(image.path, self.ledger, header)

    def _number_all(self, offsets: dict[Zyx, int], components: int) -> dict[str, int]:
        """Find all numbers; return what is counted: objects, and those that rules did not keep."""
        numbering, header = self.number(offsets, components), self.ledger.header
        counted = {"objects": numbering.objects}
        if "min_probability" in header:
            counted["below_min_probability"] = numbering.faint
        self.store.save_numbers(numbering.numbers)
        if "fill_holes" in header:
            self._holes.fill(offsets, numbering.numbers)
        if "split" not in header:
            return counted
        split = self._splitting(offsets).split(offsets, numbering)
        self.store.save_numbers(split.table[numbering.numbers])
        if "fill_holes" in header:
            holes, count = self._holes.find.holes, sum(self._holes.counts().values())
            holes.save_numbers(split.table[holes.load_numbers(0, count)])
        return counted | {"objects": split.objects, "too_large_to_split": split.too_large}

    def _lacks_scratch(self) -> bool:
        """Tell whether numbers, holes or pieces are gone since all was numbered."""
        try:
            self.store.load_numbers(0, 0)
        except StorageError:
            return True
        header, blocks = self.ledger.header, list(self.grid.blocks())
        holes, splitting = self._holes.find.holes, self._splitting({})
        return ("fill_holes" in header and not all(holes.exists(b.index) for b in blocks)) or (
            "split" in header and any(splitting.lacks(b.index) for b in blocks)
        )

    @property
    def _holes(self) -> HoleFilling:
        store = ComponentStore(self.store.folder / "holes")
        find = FindHoles(self.grid, self.store, store, self.connectivity)
        return HoleFilling(find, self.ledger, self.engine, self.progress)

    def _splitting(self, offsets: dict[Zyx, int]) -> Splitting:
        parts = self.grid, self.store, self.ledger, self.engine, self.progress
        planned = self.plan.source.centerlines
        lines = None if planned is None else open_image(planned[0]).levels[0]
        return Splitting(*parts, self._layers(offsets), lines)

    def _layers(self, offsets: dict[Zyx, int]) -> Callable[[Zyx], tuple[Layer, ...]]:
        """Tell what is painted into a block: its objects, and the holes in them."""
        filled = bool(offsets) and "fill_holes" in self.ledger.header
        holes = begin_at(self._holes.counts())[0] if filled else {}

        def layers(index: Zyx) -> tuple[Layer, ...]:
            whole = Layer(self.store, offsets[index])
            return (whole, Layer(self._holes.find.holes, holes[index])) if filled else (whole,)

        return layers

    def _write_blocks(self, image: Image, missing: Iterable[Numbered]) -> None:
        """Pass 2, and the pyramid."""

        def on_result(item: Numbered, _: int) -> None:
            self.ledger.record(block_key("written", item.block.index))

        coarse = coarse_levels(image)
        task = WriteBlock(image.levels[0], coarse)
        voxels = math.prod(self.grid.shape)
        job = Job(self.progress, voxels, "voxels", "writing labels", size=returned)
        run_blocks(task, missing, self.engine, on_result=on_result, progress=job)
        first = 1 + len(coarse)
        build_pyramid(image, self.engine, self.progress, label=True, first=first)

    def _create(self, counted: dict[str, int]) -> None:
        source = self.plan.source
        spec = replace(self.plan.spec, dtype=label_type(counted["objects"]).name)
        attributes = {
            "complete": False,
            "version": __version__,
            MARK: self.ledger.mark,
            "run": self.plan.header,
            **counted,
            "roi": source.roi,
            "model": source.model,
        }
        image = NewImage(self.plan.path, spec, source.voxel_size, attributes, label=True)
        create_images([image], *self.plan.tables)
