"""Turn rules about a column of the table of objects, and marks, into deletions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks
from volseg.errors import ParameterError, command
from volseg.geometry.grid import Block, Grid, whole_multiples
from volseg.measures.brightness import BRIGHTNESS
from volseg.measures.rules import parse_rule
from volseg.objects.dropped import Dropped, DroppedObjects, tell_part
from volseg.objects.intervals import Intervals, paint_intervals
from volseg.sources.labels import LabelSource
from volseg.storage.attributes import uncorrected
from volseg.storage.marks import load_rounds
from volseg.storage.tables import read_columns
from volseg.storage.volumes import Image, table_path
from volseg.types import Zyx

OUTLINED = ("darkness", "evenness", "solidity", "largest_section_nm2", "largest_section")
"""Columns that `stats` measures on request."""
MARKED = "marks"
"""The key under which objects are counted that are marked as none."""
BLOCK: Zyx = (32, 512, 512)


@dataclass(frozen=True)
class Broken:
    """Objects that are deleted, by the rule that they break, or for being marked.

    Attributes
    ----------
    foreground : voxels of all objects, these among them.
    """

    by_reason: Mapping[str, Dropped]
    foreground: int

    def describe(self) -> dict[str, dict[str, int]]:
        """List objects and voxels, for the record."""
        return {
            reason: {"objects": found.objects, "voxels": found.voxels}
            for reason, found in self.by_reason.items()
        }

    def tell(self, image: Image) -> tuple[str, ...]:
        """Say how many objects each rule drops, and how large they are together."""
        told = []
        for reason, found in self.by_reason.items():
            words = "are marked as none" if reason == MARKED else f"have no {reason}"
            size = DroppedObjects({}, None, {}, image.voxel_size, image.space.planar)
            part = f"{size.size(found.voxels)}, {tell_part(found.voxels, self.foreground)}"
            told.append(
                f"objects dropped that {words}: {found.objects}{f' ({part})' * (found.voxels > 0)}"
            )
        return tuple(told)


def find_deletions(
    volume: Path,
    source: LabelSource,
    texts: Sequence[str],
    engine: EngineOptions,
    progress: Progress,
) -> tuple[Mapping[str, Any], Broken]:
    """Delete what breaks a rule, or without any what is marked as none; count by the reason."""
    return by_rules(volume, source, texts) if texts else by_marks(volume, source, engine, progress)


def by_rules(
    volume: Path, source: LabelSource, texts: Sequence[str]
) -> tuple[Mapping[str, Any], Broken]:
    """Delete what breaks a rule, by the current table of objects; count by the first one broken."""
    name = source.path.name
    rules, path = list(map(parse_rule, texts)), table_path(volume, name)
    columns, _, notes = read_columns(path) if path.is_file() else ({}, {}, {})
    measure = command("stats", volume, "--outline", name=name)
    if notes.get("labels") != source.identity:
        raise ParameterError(
            f"rules need the table of labels/{name} as they are: run `{measure}` first"
        )
    gone, counts = np.zeros(len(columns["label"]), bool), dict[str, Dropped]()
    voxels = columns["voxels"]
    for rule in rules:
        if rule.column in OUTLINED and rule.column not in columns:
            raise ParameterError(f"{rule.column} is not measured yet: run `{measure}` first")
        if rule.column == BRIGHTNESS and BRIGHTNESS not in columns:
            raise ParameterError(
                f"brightness is not measured: run `{command('stats', volume, name=name)}` first; "
                f"unrelated images, and volumes without a histogram, have none"
            )
        more = rule.broken_by(columns) & ~gone
        # a rule that is given twice drops nothing more
        counts.setdefault(str(rule), Dropped(int(more.sum()), int(voxels[more].sum())))
        gone |= more
    if not gone.any():
        kept = " and ".join(counts)
        raise ParameterError(f"all {len(gone)} objects have {kept}: there is nothing to drop")
    return {"delete": columns["label"][gone].tolist()}, Broken(counts, int(voxels.sum()))


def _count_marked(
    labels: LabelSource, no: Intervals, yes: Intervals, block: Block
) -> NDArray[np.int64]:
    """Count the voxels of objects in a block; return rows of object, all, marked no and yes."""
    values = labels[block.core]
    numbers, at = np.unique(values, return_inverse=True)
    said = np.zeros(values.shape, np.uint8)
    counts = [numbers.astype(np.int64), np.bincount(at.ravel())]
    for spans in (no, yes):
        said[:] = 0
        paint_intervals(said, block.core, spans, labels.shape, 1)
        counts.append(np.bincount(at.ravel(), said.ravel(), len(numbers)).astype(np.int64))
    return np.stack(counts, axis=1)[numbers > 0]


def by_marks(
    volume: Path, source: LabelSource, engine: EngineOptions, progress: Progress
) -> tuple[Mapping[str, Any], Broken]:
    """Delete objects of which at least half lies in what `teach` was told is none; count them.

    Objects that marks say yes of, in as many voxels, stay. Numbers may be others than when
    they were marked: what counts is where the objects lie.
    """
    name = uncorrected(volume, source.path.name)
    marks = [m for r in load_rounds(volume, name, source.shape) for m in r.marks]
    no, yes = (
        np.concatenate([np.zeros((0, 2), np.int64), *(m.meant for m in marks if m.yes == said)])
        for said in (False, True)
    )
    if not len(no):
        again = command("teach", volume, "--not", 12, name=name)
        raise ParameterError(
            f"{volume} holds no marks that say no of {name}; mark some, such as `{again}`"
        )
    found = [np.zeros((0, 4), np.int64)]
    blocks = Grid(source.shape, whole_multiples(BLOCK, source.block)).blocks()
    job = Job(progress, math.prod(source.shape), "voxels", "finding marked", size=core_voxels)
    count = partial(_count_marked, source, no, yes)
    run_blocks(count, blocks, engine, on_result=lambda _, rows: found.append(rows), progress=job)
    every = np.concatenate(found)
    numbers, at = np.unique(every[:, 0], return_inverse=True)
    total = np.zeros((len(numbers), 3), np.int64)
    np.add.at(total, at, every[:, 1:])
    most, both = 2 * total[:, 1] >= total[:, 0], total[:, 1] <= total[:, 2]
    dropped, voxels = most & ~both, total[:, 0]
    gone = numbers[dropped]
    if not len(gone):
        little = int(((total[:, 1] > 0) & ~most).sum())
        raise ParameterError(
            f"no object of {source.path} is dropped: marks cover less than half of {little}, and "
            f"{int((most & both).sum())} have as many voxels marked yes as no"
        )
    found_none = Dropped(len(gone), int(voxels[dropped].sum()))
    return {"delete": gone.tolist()}, Broken({MARKED: found_none}, int(voxels.sum()))
