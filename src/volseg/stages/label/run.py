"""Label: probabilities to numbered objects, in two passes over the blocks, resumable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from volseg.engine.progress import Job, Progress, returned
from volseg.engine.run import naming, run_blocks, same_workers
from volseg.errors import ConflictError, StorageError, VolumeError, command
from volseg.geometry.grid import Block
from volseg.objects.dropped import RULES
from volseg.objects.joining import label_type
from volseg.scores.likeness import advise_on, describe_tissue, expect_precision
from volseg.stages.components.blocks import (
    Complement,
    Evidence,
    JoinBlock,
    LabelBlock,
    MedianSlices,
    begin_at,
    number_components,
)
from volseg.stages.label.again import repeat_without
from volseg.stages.label.holes import fill_holes, mask_of
from volseg.stages.label.median import median_step
from volseg.stages.label.plan import Foundation, LabelPlan, contact_tables
from volseg.stages.label.rules import limits_of
from volseg.stages.label.split import Splitting
from volseg.stages.label.tasks import HOLES, Layer, Numbered, Run, WriteBlock, coarse_levels
from volseg.stages.levels import build_pyramid
from volseg.stages.survey.windows import mean_found
from volseg.storage.arrays import StoredArray
from volseg.storage.files import discard
from volseg.storage.ledger import Ledger, block_key
from volseg.storage.results import (
    NewImage,
    create_images,
    dropped_from,
    finish,
    is_told_of,
    note_begun,
)
from volseg.storage.volumes import Image, open_image, register_label
from volseg.types import FULL_PROBABILITY, Zyx


@dataclass(frozen=True)
class LabelReport:
    """Objects that a run found.

    Attributes
    ----------
    threshold : probability from which a voxel was foreground.
    expected : what precision to expect there, in words; empty where nothing is known.
    dropped : by the rules that dropped objects, how many, how large, and the largest one.
    """

    objects: int
    threshold: float
    seconds: float
    notes: tuple[str, ...] = ()
    expected: str = ""
    dropped: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def report_on(plan: LabelPlan, seconds: float) -> LabelReport:
    """Report on complete labels."""
    output, image = plan.path, open_image(plan.path)
    found = image.attributes
    run, notes, objects = found["run"], [], found.get("objects")
    if objects is None:
        raise VolumeError(
            f"the attributes of {output} do not say any more how many objects there are; remove "
            f"it, and make it again: `{command('label', plan.volume, name=plan.name)}`"
        )
    if large := found.get("too_large_to_split"):
        notes.append(
            f"{large} objects were not split, because their bounding boxes hold more than "
            f"{run.get('split_limit')} voxels"
        )
    dropped = dropped_from(image)
    # labels that are made again to verify others lie elsewhere, and their probabilities do not
    images = image.space.planar and not open_image(plan.source.path.parents[1]).space.planar
    for rule in dropped.by_rule:
        again = repeat_without(output, found, rule, images=images)
        notes.append(dropped.tell(rule) + (f"; without this rule: `{again}`" if again else ""))
    noted = found.get("tissue")
    notes += [advice] if (advice := advise_on(noted)) else []
    words = describe_tissue(noted)
    told = tuple(notes), words, dropped.describe()
    return LabelReport(int(objects), plan.threshold, seconds, *told)


def label(plan: LabelPlan, progress: Progress) -> LabelReport:
    """Write ``labels/<name>`` of a volume from ``probabilities/<name>``.

    Objects are connected components of at least the threshold, numbered from 1 by their first
    voxel in raster order. Running it again does only what is missing.
    """
    begun = time.monotonic()
    if plan.stands():
        discard(plan.store.folder)
        return report_on(plan, time.monotonic() - begun)
    predicted = _open_planned(plan.source)
    begin = Ledger.open(plan.ledger, plan.ledger_header, anew=plan.overwrite)
    with same_workers(plan.engine), begin as ledger:
        if plan.overwrite:
            # only now: there are workers, and no other process works on it
            discard(plan.store.folder)
        elif not is_told_of(plan.path, ledger) and "objects" in ledger.records:
            ledger.restart()
        run = Labelling(plan, ledger, progress, predicted)
        with naming(run.missing):
            run.write(run.find())
        discard(plan.store.folder)
    return report_on(plan, time.monotonic() - begun)


def _open_planned(source: Foundation) -> Image:
    """Open the probabilities that labels were planned on."""
    image = open_image(source.path)
    complete = image.attributes.get("complete")
    if not complete or image.attributes.get("fingerprint") != source.fingerprint:
        raise ConflictError(
            f"{source.path} was changed by another process meanwhile; give the command again"
        )
    return image


@dataclass(frozen=True)
class Labelling(Run):
    """Both passes, and what lies between them."""

    predicted: Image

    @property
    def probabilities(self) -> StoredArray:
        """The finest level, in which objects are found."""
        return self.predicted.levels[0]

    @cached_property
    def _seen(self) -> StoredArray | MedianSlices | Complement:
        source, header = self.plan.source, self.plan.header
        found: StoredArray | MedianSlices = self.probabilities
        if "median_nm" in header:
            step = median_step(header["median_nm"], source.space.voxel_size)
            lost = self.predicted.attributes["run"].get("missing", ())
            first, stop = source.roi[0]
            found = MedianSlices(
                self.probabilities, step, first, stop, tuple(lost), mask_of(source)
            )
        return Complement(found, source.sizes) if "complement" in header else found

    def missing(self) -> Iterator[Block]:
        """List the blocks whose labels are not on record."""
        return self.ledger.lacking(self.plan.grid.blocks())

    def find(self) -> dict[Zyx, int]:
        """Pass 1; return the number of components of each block, in raster order."""
        # after a complete pass 1 the number of objects is on record, and that is all it is for
        level, store = int(self.plan.header["threshold_of_255"]), self.plan.store
        if "complement" in self.plan.header:  # below a level, and so many from the other end
            level = FULL_PROBABILITY + 1 - level
        task = LabelBlock(self._seen, level, self.connectivity, store)
        return self.label_blocks("found", "labelling", task, store)

    def write(self, counts: dict[Zyx, int]) -> None:
        """Give every object its number and write it."""
        header, records = self.plan.header, self.ledger.records
        offsets, components = begin_at(counts)
        if "objects" not in records or self._lacks_scratch():
            counted = self._number_all(offsets, components)
            # numbers are the same each time, so what was written with them before stays valid
            if "objects" not in records:
                self._create(counted)
                self.ledger.record("objects", counted["objects"])
        image, layers_of = open_image(self.plan.path), self._layers(offsets)
        pieces = self._splitting(offsets).pieces() if "split" in header else {}
        missing = (
            Numbered(b, layers_of(b.index) + pieces.get(b.index, ())) for b in self.missing()
        )
        self._write_blocks(image, missing)
        register_label(self.plan.volume, self.plan.name)
        finish(image.path, self.ledger, header)

    def _number_all(self, offsets: dict[Zyx, int], components: int) -> dict[str, Any]:
        """Find all numbers; return what is counted: objects, and those that rules did not keep."""
        header, store = self.ledger.header, self.plan.store
        limits = limits_of(header, self.plan.source.space.voxel_size)
        seed = header.get("seed_threshold_of_255")
        sections = "max_section_um2" in header
        evidence = Evidence(self._seen, seed, "min_probability" in header, sections)
        numbering = number_components(
            JoinBlock(self.plan.grid, store, self.connectivity, evidence),
            offsets,
            components,
            self.plan.engine,
            limits,
        )
        dropped = {
            rule: vars(numbering.dropped[each.limit])
            for rule, each in RULES.items()
            if header.get(rule) and each.limit in numbering.dropped
        }
        counted = {
            "objects": numbering.objects,
            "kept_objects": vars(numbering.kept),
            "dropped": dropped,
        }
        store.save_numbers(numbering.numbers)
        if "fill_holes" in header:
            fill_holes(self, offsets, numbering.numbers)
        if "split" not in header:
            return counted
        split = self._splitting(offsets).split(offsets, numbering)
        store.save_numbers(split.table[numbering.numbers])
        if "fill_holes" in header:
            count = sum(self.counted(HOLES).values())
            self.holes.save_numbers(split.table[self.holes.load_numbers(0, count)])
        return counted | {"objects": split.objects, "too_large_to_split": split.too_large}

    def _lacks_scratch(self) -> bool:
        """Tell whether numbers, holes or pieces are gone since all was numbered."""
        try:
            self.plan.store.load_numbers(0, 0)
        except StorageError:
            return True
        header, blocks = self.ledger.header, list(self.plan.grid.blocks())
        splitting = self._splitting({})
        return ("fill_holes" in header and not all(self.holes.exists(b.index) for b in blocks)) or (
            "split" in header and any(splitting.lacks(b.index) for b in blocks)
        )

    def _splitting(self, offsets: dict[Zyx, int]) -> Splitting:
        guides = [open_image(path).levels[0] for path, _ in self.plan.source.guides]
        if self.ledger.header.get("split") in {"contour", "offset"}:
            guides.insert(0, self.probabilities)
        return Splitting(self, self._layers(offsets), tuple(guides))

    def _layers(self, offsets: dict[Zyx, int]) -> Callable[[Zyx], tuple[Layer, ...]]:
        """Tell what is painted into a block: its objects, and the holes in them."""
        filled = bool(offsets) and "fill_holes" in self.ledger.header
        holes = begin_at(self.counted(HOLES))[0] if filled else {}

        def layers(index: Zyx) -> tuple[Layer, ...]:
            whole = Layer(self.plan.store, offsets[index])
            return (whole, Layer(self.holes, holes[index])) if filled else (whole,)

        return layers

    def _write_blocks(self, image: Image, missing: Iterable[Numbered]) -> None:
        """Pass 2, and the pyramid."""

        def on_result(item: Numbered, _: int) -> None:
            self.ledger.record(block_key("written", item.block.index))

        coarse, engine = coarse_levels(image), self.plan.engine
        task = WriteBlock(image.levels[0], coarse)
        voxels = math.prod(self.plan.grid.shape)
        job = Job(self.progress, voxels, "voxels", "writing labels", size=returned)
        run_blocks(task, missing, engine, on_result=on_result, progress=job)
        build_pyramid(image, engine, self.progress, label=True, first=1 + len(coarse))

    def _create(self, counted: dict[str, Any]) -> None:
        source = self.plan.source
        spec = replace(self.plan.spec, dtype=label_type(counted["objects"]).name)
        attributes = {
            **note_begun(self.ledger, self.plan.header),
            **counted,
            "roi": source.roi,
            "model": source.model,
            **self._judge_tissue(counted["objects"]),
        }
        image = NewImage(self.plan.path, spec, source.space, attributes, label=True)
        contacts = contact_tables(self.plan.volume, self.plan.name)
        create_images([image], *self.plan.tables, *contacts)

    def _judge_tissue(self, objects: int) -> dict[str, Any]:
        """Say what precision to expect, from what is noted of the tissue and what was found.

        Of no object there is none to expect.
        """
        noted = self.predicted.attributes.get("tissue")
        if not isinstance(noted, Mapping) or "complement" in self.plan.header:
            return {}
        told = {name: value for name, value in noted.items() if name != "ratios"}
        if not objects:
            return {"tissue": told | {"expected_precision": []}}
        z, y, x = (slice(*ends) for ends in self.plan.source.roi)
        level = int(self.plan.header["threshold_of_255"])
        certainty = mean_found(self.probabilities, (z, y, x), level)
        between = None if certainty is None else expect_precision(noted, certainty)
        return {"tissue": told | ({} if between is None else {"expected_precision": between})}
