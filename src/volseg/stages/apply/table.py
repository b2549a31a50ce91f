"""Bring the table of objects up to date: only what corrections touched is measured again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg import __version__
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks
from volseg.errors import command
from volseg.geometry.grid import Block, Grid, grow, roi_size
from volseg.measures.brightness import BRIGHTNESS
from volseg.measures.object_table import (
    ObjectSums,
    choose_sums,
    merge_sums,
    read_moments,
    replace_rows,
)
from volseg.measures.summary import slice_table
from volseg.measures.sums import Moments, keep_part
from volseg.sources.labels import LabelSource
from volseg.stages.apply.plan import ApplyPlan
from volseg.stages.apply.resolve import Resolved, box_of
from volseg.stages.apply.tasks import Corrected
from volseg.stages.stats.plan import StatsOptions, StatsPlan, plan_stats
from volseg.stages.stats.run import measure, measure_singly
from volseg.stages.stats.tasks import MeasureBlock
from volseg.storage.results import fingerprint
from volseg.storage.tables import publish_table, read_columns, write_table
from volseg.storage.volumes import open_image
from volseg.types import Roi, Zyx


@dataclass(frozen=True)
class TableBefore:
    """Table of the objects before, with that of slices.

    Attributes
    ----------
    areas : voxels of objects in each slice of the volume.
    """

    columns: Mapping[str, NDArray[Any]]
    units: Mapping[str, str]
    areas: NDArray[np.int64]
    surface: str


@dataclass(frozen=True)
class Changes:
    """Changes that corrections made.

    Attributes
    ----------
    touched : labels whose objects are others now, and are there.
    gone : those, and labels that are no more.
    areas : voxels of objects in each slice, more than before.
    """

    objects: int
    touched: frozenset[int]
    gone: frozenset[int]
    areas: NDArray[np.int64]
    blocks: tuple[Zyx, ...]

    @classmethod
    def gather(
        cls,
        resolved: Resolved,
        grid: Grid,
        found: Iterable[Corrected],
        pieces: Mapping[int, int],
        blocks: Sequence[Zyx],
    ) -> Changes:
        """Gather what has changed.

        Parameters
        ----------
        pieces : voxels of what objects were split into, by label
        """
        known = resolved.known
        voxels = dict(zip(known.labels.tolist(), known.voxels.tolist(), strict=True))
        for old, new in resolved.renamed.items():
            moved = voxels.pop(old)
            if new:
                voxels[new] += moved
        voxels |= pieces
        areas, painted = np.zeros(grid.shape[0], np.int64), set[int]()
        for index, block in zip(blocks, found, strict=True):
            areas[grid.block(index).core[0]] += block.areas
            for label, count in block.changed.items():
                voxels[label] = voxels.get(label, 0) + count
                painted.add(label)
        there = {label for label, count in voxels.items() if count > 0}
        targets = {new for new in resolved.renamed.values() if new}
        touched = targets | set(pieces) | painted
        gone = touched | set(resolved.renamed)
        return cls(len(there), frozenset(touched & there), frozenset(gone), areas, tuple(blocks))


def find_table(plan: ApplyPlan) -> TableBefore | None:
    """Read the tables of the labels before, if they are of these."""
    objects, slices = plan.tables[0]
    if plan.source.fingerprint is None or not (objects.is_file() and slices.is_file()):
        return None
    columns, units, notes = read_columns(objects)
    rows, _, noted = read_columns(slices)
    if not notes.get("labels") == noted.get("labels") == plan.source.fingerprint:
        return None
    areas = np.zeros(plan.grid.shape[0], np.int64)
    areas[rows["z"]] = rows["area"]
    return TableBefore(columns, units, areas, notes.get("surface", "none"))


def find_known(plan: ApplyPlan, table: TableBefore | None, progress: Progress) -> Moments:
    """Find all objects, their voxels and boxes: in their table, or else in the labels."""
    if table is not None:
        return read_moments(table.columns)
    sums, _ = measure(MeasureBlock(plan.source, shapes=False), plan.engine, progress)
    return sums.moments


def write_tables(
    plan: ApplyPlan,
    resolved: Resolved,
    changes: Changes,
    before: TableBefore | None,
    progress: Progress,
) -> tuple[str, ...]:
    """Write the tables of the corrected labels, if those before have current ones; return notes."""
    if before is None or plan.source.path.parents[1] != plan.volume:
        return ()
    measured, image = _plan_alike(plan, before), open_image(plan.path)
    source = replace(plan.source, path=plan.path, array=image.levels[0], block=plan.grid.size)
    size, after = measured.voxel_size, None
    if changes.touched:
        after = _measure(plan, resolved, changes, _on(measured, source), progress)
        if set(before.columns) not in (set(after), set(after) - {BRIGHTNESS}):
            measure_all = command("stats", plan.volume, name=plan.name)
            return (f"{plan.tables[0][0]} has other columns, so run `{measure_all}`",)
        # a table of earlier versions lacks it
        after = {name: after[name] for name in before.columns}
    apart = measured.images is not None
    columns = replace_rows(before.columns, sorted(changes.gone), after, size, apart=apart)
    areas = before.areas + changes.areas
    slices, units = slice_table(columns, areas, source.region, size)
    noted = {"volseg": __version__, "labels": fingerprint(plan.header), "surface": before.surface}
    write_table(plan.tables[1][1], slices, units, noted)
    write_table(plan.tables[1][0], columns, before.units, noted)
    publish_table(plan.tables[1][0], columns)
    return ()


def _plan_alike(plan: ApplyPlan, before: TableBefore) -> StatsPlan:
    """Plan to measure as the objects before were."""
    columns = before.columns
    full = "intensity_mean" in columns or "probability_mean" in columns
    options = StatsOptions(
        name=plan.source.path.name,
        engine=plan.engine,
        measure="full" if full else "shapes" if "sphericity" in columns else "basic",
        surface="marching-cubes" if before.surface == "marching-cubes" else "crofton",
        centerline="centerline_branches" in columns,
        outline="solidity" in columns,
    )
    return plan_stats(plan.source.path.parents[1], options)


def _on(measured: StatsPlan, source: LabelSource) -> StatsPlan:
    single = measured.single
    return replace(
        measured,
        task=replace(measured.task, source=source),
        single=None if single is None else replace(single, source=source),
    )


def _measure(
    plan: ApplyPlan, resolved: Resolved, changes: Changes, measured: StatsPlan, progress: Progress
) -> dict[str, NDArray[Any]]:
    """Measure the objects that are touched, in the blocks that they may reach."""
    grid, wanted, kept = plan.grid, sorted(changes.touched), list[ObjectSums]()
    boxes = [*_reached(plan, resolved, changes)]
    near = (grow(box, (1, 1, 1), grid.shape) for box in boxes)
    blocks = [grid.block(i) for i in sorted({b.index for box in near for b in grid.blocks(box)})]

    def on_result(_: Block, found: tuple[ObjectSums, NDArray[np.int64]]) -> None:
        keep_part(kept, choose_sums(found[0], wanted), merge_sums)

    voxels = sum(roi_size(b.core) for b in blocks)
    job = Job(progress, voxels, "voxels", "measuring what is touched", size=core_voxels)
    run_blocks(measured.task, blocks, plan.engine, on_result=on_result, progress=job)
    sums, single = merge_sums(kept), measured.single
    singles = (
        None if single is None else measure_singly(single, sums.moments, plan.engine, progress)
    )
    return measured.tabulate(sums, singles, plan.source.region)[0]


def _reached(plan: ApplyPlan, resolved: Resolved, changes: Changes) -> Iterable[Roi]:
    """List boxes that together hold all objects that are touched."""
    joined = {label for label, new in resolved.renamed.items() if new}
    known = set(resolved.known.labels.tolist())
    yield from (box_of(resolved.known, label) for label in (changes.touched | joined) & known)
    yield from (cut.box for cut in resolved.cuts)
    for painted in plan.painted:
        yield from (plan.grid.block(index).core for index in painted.blocks)
