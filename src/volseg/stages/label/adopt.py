"""Adopt: probabilities or a mask of another program become probabilities of a volume."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import naming, run_blocks, same_workers
from volseg.errors import ConflictError
from volseg.geometry.grid import Block, Grid, full_roi, whole_multiples
from volseg.sources.probabilities import (
    RULES,
    ForeignVoxels,
    Rule,
    Values,
    check_shape,
    choose_rule,
    note_values,
    open_foreign,
    read_probabilities,
)
from volseg.sources.stack import WHOLE, Selection
from volseg.sources.voxel_size import tell_other_size
from volseg.stages.label.plan import Foundation
from volseg.stages.levels import build_pyramid
from volseg.storage.arrays import ArraySpec, StoredArray, fit_spec
from volseg.storage.images import sizes_of
from volseg.storage.ledger import CREATED, Ledger, block_key
from volseg.storage.predictions import Scratch, find_outdated
from volseg.storage.results import (
    NewImage,
    check_place,
    create_images,
    fingerprint,
    finish,
    is_complete,
    is_told_of,
    note_begun,
)
from volseg.storage.volumes import open_image, probabilities_path, scratch_path
from volseg.types import Zyx

FORMAT = 1
"""Raised whenever the same source comes to mean another result."""
SHARD: Zyx = (32, 512, 512)
PAGED = 2
"""Workers of which each holds slabs of whole planes, as many as a conversion does."""
THRESHOLD = 0.5
"""Of probabilities that come without one."""


@dataclass(frozen=True)
class AdoptOptions:
    """Choices for what is adopted; see `volseg.api.making.LabelKeywords`."""

    name: str
    selection: Selection = WHOLE
    engine: EngineOptions = field(default_factory=EngineOptions)
    overwrite: bool = False


@dataclass(frozen=True)
class AdoptPlan:
    """Probabilities of another program, and where they go."""

    source: ForeignVoxels
    rule: Rule
    header: dict[str, Any]
    foundation: Foundation
    spec: ArraySpec
    options: AdoptOptions
    notes: tuple[str, ...]

    @property
    def grid(self) -> Grid:
        """The blocks."""
        z, y, x = self.header["block"]
        return Grid(self.spec.shape, (z, y, x))

    @property
    def ledger(self) -> Path:
        """The ledger's path, which is that of predictions of the same name."""
        return Scratch(scratch_path(self.foundation.path.parents[1]), self.options.name).ledger


def _note_block(source: ForeignVoxels, block: Block) -> Values:
    return note_values(source, block.core)


def _adopt_block(source: ForeignVoxels, rule: Rule, output: StoredArray, block: Block) -> None:
    """Read one block, and write it as probabilities."""
    output.write(block.core, read_probabilities(source, block.core, rule))


def plan_adoption(
    volume: Path, source: Path, options: AdoptOptions, progress: Progress
) -> AdoptPlan:
    """Read all of a source, and say what it becomes; nothing is written."""
    image, path = open_image(volume), probabilities_path(volume, options.name)
    check_place(image)
    if source.resolve().is_relative_to(path.resolve()):
        raise ConflictError(f"{source} lies in {path}; give another --name")
    shape, voxels = image.levels[0].shape, open_foreign(source, options.selection)
    check_shape(voxels, volume, shape)
    spec = fit_spec(shape, "uint8", shard=SHARD)
    size = (SHARD[0], *shape[1:]) if voxels.paged else SHARD
    grid = Grid(shape, whole_multiples(size, spec.shard))
    engine = options.engine
    if voxels.paged and engine.scheduler is None and engine.cluster is None:
        options = replace(options, engine=replace(engine, workers=min(engine.threads, PAGED)))
    values, content = _read_all(voxels, grid, options.engine, progress)
    rule = choose_rule(source, voxels.dtype, values)
    header = {
        "format": FORMAT,
        "imported": content,
        "rule": rule,
        "dtype": voxels.dtype,
        "roi": [[s.start, s.stop] for s in full_roi(shape)],
        "block": list(grid.size),
        "shard": list(spec.shard),
    }
    stack = voxels.open()
    told = tell_other_size(source, stack.axis_sizes, volume, image.voxel_size)
    read_as = f"{source} is read as {RULES[rule]} ({voxels.dtype})"
    model = {
        "name": source.name,
        "threshold": THRESHOLD,
        "imported": {"files": len(stack.files), "dtype": voxels.dtype, "rule": rule}
        | json.loads(json.dumps(stack.metadata, default=str)),
    }
    decided = fingerprint(header)
    sizes = sizes_of(image)
    founded = Foundation(path, shape, image.space, decided, model, header["roi"], sizes=sizes)
    notes = (read_as, *told, *stack.warnings)
    return AdoptPlan(voxels, rule, header, founded, spec, options, notes)


def _read_all(
    voxels: ForeignVoxels, grid: Grid, engine: EngineOptions, progress: Progress
) -> tuple[Values, str]:
    """Read a source as a whole; return its values, and a hash of them."""
    found: dict[Zyx, Values] = {}

    def on_result(block: Block, values: Values) -> None:
        found[block.index] = values

    title = "reading probabilities"
    job = Job(progress, math.prod(grid.shape), "voxels", title, size=core_voxels)
    run_blocks(
        partial(_note_block, voxels), grid.blocks(), engine, on_result=on_result, progress=job
    )
    checksums = np.array([found[index].checksum for index in sorted(found)], "<u4")
    told = hashlib.blake2b(checksums.tobytes(), digest_size=16)
    told.update(f"{voxels.shape} {voxels.dtype} {grid.size}".encode())
    joined, *others = found.values()
    for values in others:
        joined |= values
    return joined, told.hexdigest()


def adopt(plan: AdoptPlan, progress: Progress) -> None:
    """Write ``probabilities/<name>`` of a volume; running it again does only what is missing."""
    path, options = plan.foundation.path, plan.options
    if stands(plan):
        return
    with Ledger.open(plan.ledger, plan.header, anew=options.overwrite) as ledger:
        if CREATED not in ledger.records or not is_told_of(path, ledger):
            ledger.restart()
            _create(plan, ledger)
        image = open_image(path)

        def missing() -> Iterator[Block]:
            return ledger.lacking(plan.grid.blocks())

        def on_result(block: Block, _: None) -> None:
            ledger.record(block_key("written", block.index))

        job = Job(progress, math.prod(plan.spec.shape), "voxels", "importing", size=core_voxels)
        task = partial(_adopt_block, plan.source, plan.rule, image.levels[0])
        with naming(missing), same_workers(options.engine):
            run_blocks(task, missing(), options.engine, on_result=on_result, progress=job)
            build_pyramid(image, options.engine, progress, label=False)
        finish(path, ledger, plan.header)


def stands(plan: AdoptPlan) -> bool:
    """Tell whether this very result is already there."""
    founded, overwrite = plan.foundation, plan.options.overwrite
    name = str(founded.model["name"])
    return is_complete(founded.path, plan.header, overwrite=overwrite, model=name)


def _create(plan: AdoptPlan, ledger: Ledger) -> None:
    path, outdated = plan.foundation.path, tuple[Path, ...]()
    if path.exists():
        outdated = find_outdated([path], plan.ledger.parent)
    attributes = note_begun(ledger, plan.header) | {"model": plan.foundation.model}
    create_images([NewImage(path, plan.spec, plan.foundation.space, attributes)], *outdated)
    ledger.record(CREATED)
