"""Stats: measure every object of a volume, block by block, and summarise the volume in one row."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg import __version__
from volseg.defaults import NAME
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks, same_workers
from volseg.errors import StorageError, command
from volseg.geometry.grid import Block
from volseg.measures.brightness import BRIGHT, BRIGHTNESS, find_bright
from volseg.measures.object_table import ObjectSums, merge_sums
from volseg.measures.shape import too_large
from volseg.measures.single_object import AROUND, OUTLINE, SINGLE, SingleObjects
from volseg.measures.summary import Summary, slice_table, summarise
from volseg.measures.sums import Moments, keep_part
from volseg.objects.dropped import tell_part
from volseg.scores.likeness import VERY_UNLIKE, tell_tissue
from volseg.sources.labels import COMPONENTS, OWN, LabelSource
from volseg.stages.components.masks import store_objects, taken_as_mask
from volseg.stages.stats.contacts import Contacts, find_contacts
from volseg.stages.stats.plan import StatsPlan, check_one_table
from volseg.stages.stats.tasks import (
    LARGEST_BOX,
    MeasureBlock,
    MeasureObject,
    ObjectBox,
    order_blocks,
    plan_blocks,
)
from volseg.storage.results import dropped_from
from volseg.storage.scratch import lend_scratch
from volseg.storage.tables import check_table_path, publish_table, write_table
from volseg.storage.volumes import open_image, scratch_path

UNLIKE = ("unlike", VERY_UNLIKE)
SHOWN = 5
"""Objects that a note names."""


@dataclass(frozen=True)
class VolumeStats:
    """Measurements of one volume.

    Attributes
    ----------
    columns, units : one row per object, see `volseg.measures.object_table.object_table`
    table, slices : where those rows were written, and one row per slice
    expected : what precision to expect there, in words; empty where nothing is known
    contacts : with another result, if they were asked for
    dropped : by the rules that dropped objects, how many and how large
    """

    volume: Path
    summary: Summary
    columns: dict[str, NDArray[Any]]
    units: dict[str, str]
    table: Path
    slices: Path
    seconds: float
    notes: tuple[str, ...]
    expected: str = ""
    contacts: Contacts | None = None
    dropped: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def stats(plan: StatsPlan, progress: Progress) -> VolumeStats:
    """Measure the objects of a volume and write their table into it."""
    with same_workers(plan.engine), lend_scratch(scratch_path(plan.volume), "stats") as folder:
        return _stats_with(plan, folder, progress)


def _stats_with(plan: StatsPlan, scratch: Path, progress: Progress) -> VolumeStats:
    begun = time.monotonic()
    source, size = plan.task.source, plan.voxel_size
    objects, sums, areas, singles, masked = _measure_all(plan, scratch, progress)
    columns, units = plan.tabulate(sums, singles, source.region)
    columns["label"] = columns["label"] & OWN if source.apart else columns["label"]
    made = open_image(source.path) if source.fingerprint else None
    tissue = made.attributes.get("tissue") if made else None
    told = [*masked, *_tell_bright(plan, tissue, columns)]
    dropped = dropped_from(made).describe() if made else {}
    slices, slice_units = slice_table(columns, areas, source.region, size)
    provenance = {
        "volseg": __version__,
        "labels": source.identity,
        "surface": plan.surface,
        **({"objects": COMPONENTS} if masked else {}),
        **({"dropped": json.dumps(dropped)} if dropped else {}),
    }
    with _tables_folder(plan.table.parent):
        write_table(plan.slices, slices, slice_units, provenance)
        write_table(plan.table, columns, units, provenance)
        publish_table(plan.table, columns)
        touched = None
        if plan.other is not None:
            pair, planar = (objects, plan.other), plan.images is not None
            touched = find_contacts(plan.table, pair, size, plan.engine, progress, planar=planar)
    return VolumeStats(
        plan.volume,
        summarise(columns, source.region, size, plan.images),
        columns,
        units,
        plan.table,
        plan.slices,
        time.monotonic() - begun,
        (*plan.notes, *told, *_notes_on(sums, singles, plan, columns), *_images(plan, slices)),
        tell_tissue(tissue),
        touched,
        dropped,
    )


def _measure_all(
    plan: StatsPlan, scratch: Path, progress: Progress
) -> tuple[LabelSource, ObjectSums, NDArray[np.int64], SingleObjects | None, list[str]]:
    """Measure all objects; those of a mask are its components, which are found first."""
    sums, areas = measure(plan.task, plan.engine, progress)
    source, singles, told = plan.task.source, None, list[str]()
    if not plan.instances and source.is_mask(sums.moments.labels):
        source, count = store_objects(plan.task.source, scratch, plan.engine, progress)
        told.append(taken_as_mask(plan.task.source, count))
        sums, areas = measure(replace(plan.task, source=source), plan.engine, progress)
    if plan.single is not None:
        single = replace(plan.single, source=source)
        singles = measure_singly(single, sums.moments, plan.engine, progress)
    return source, sums, areas, singles, told


@contextmanager
def _tables_folder(folder: Path) -> Iterator[None]:
    """Make the folder of tables; remove a new one if nothing could be written into it."""
    made = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write in {folder.parent}: {error.strerror}") from error
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):  # one of the tables is in it
                folder.rmdir()
        raise


def measure(
    task: MeasureBlock, engine: EngineOptions, progress: Progress
) -> tuple[ObjectSums, NDArray[np.int64]]:
    """Measure all objects; at no time are more than a few slabs in memory.

    Returns
    -------
    sums : of the whole volume
    areas : int64, voxels of objects in each slice
    """
    workers = engine.processes * engine.threads
    grid = plan_blocks(task.source, workers)
    kept: list[ObjectSums] = []
    areas = np.zeros(grid.shape[0], np.int64)

    def on_result(block: Block, found: tuple[ObjectSums, NDArray[np.int64]]) -> None:
        sums, in_slices = found
        areas[block.core[0]] += in_slices
        keep_part(kept, sums, merge_sums)

    blocks = order_blocks(task.source, grid, workers)
    job = Job(progress, math.prod(grid.shape), "voxels", "measuring", size=core_voxels)
    run_blocks(task, blocks, engine, on_result=on_result, progress=job)
    return merge_sums(kept), areas


def measure_singly(
    task: MeasureObject, moments: Moments, engine: EngineOptions, progress: Progress
) -> SingleObjects:
    """Measure one object after another."""
    found = np.full((len(moments.labels), len(SINGLE)), np.nan)

    def items() -> Iterable[ObjectBox]:
        corners = zip(moments.labels, moments.starts.tolist(), moments.stops.tolist(), strict=True)
        for k, (label, start, stop) in enumerate(corners):
            z, y, x = map(slice, start, stop)
            yield ObjectBox(k, int(label), (z, y, x))

    def on_result(item: ObjectBox, values: tuple[float, ...]) -> None:
        found[item.row] = values

    job = Job(progress, len(found), "objects", "measuring")
    run_blocks(task, items(), engine, on_result=on_result, progress=job)
    wanted = {
        "mesh_areas": task.mesh,
        **dict.fromkeys(("lengths", "branches"), task.centerline),
        **dict.fromkeys(OUTLINE, task.outline),
        **dict.fromkeys(AROUND, task.raw is not None),
    }
    columns = zip(SINGLE, found.T, strict=True)
    return SingleObjects(**{name: column for name, column in columns if wanted[name]})


def _images(plan: StatsPlan, slices: Mapping[str, NDArray[Any]]) -> list[str]:
    """Say how many objects unrelated images hold."""
    if plan.images is None:
        return []
    each = slices["objects"]
    spread = f"standard deviation {each.std():.1f}, from {each.min()} to {each.max()}"
    held = f"{len(each)} images hold {each.mean():.1f} objects on average ({spread})"
    return [f"{held}; {plan.slices.name} has one row for each"]


def _notes_on(
    sums: ObjectSums,
    singles: SingleObjects | None,
    plan: StatsPlan,
    columns: Mapping[str, NDArray[Any]],
) -> list[str]:
    notes = []
    if plan.voxel_size is None:
        notes.append(
            f"the voxel size of {plan.volume} is unknown, so sizes are in voxels, and shapes are "
            f"those of cubic voxels; convert it again with --voxel-size to get nm"
        )
    if "sphericity" in columns:
        (surfaces,) = (c for n, c in columns.items() if n.startswith("surface_area"))
        if count := int((np.isnan(columns["sphericity"]) & np.isfinite(surfaces)).sum()):
            notes.append(
                f"{count} object(s) have too few voxels, or too few along an axis, for sphericity "
                f"and complexity index, which are empty there"
            )
    if plan.task.shapes and (count := int(too_large(sums.moments).sum())):
        notes.append(f"{count} object(s) are too large for principal axes, which are empty there")
    boxes = (sums.moments.stops - sums.moments.starts).prod(axis=1)
    if singles is not None and (count := int((boxes > LARGEST_BOX).sum())):
        notes.append(
            f"{count} object(s) have boxes of more than {LARGEST_BOX} voxels, and no "
            f"{plan.surface} surface, centerline or outline: too large to be measured at once"
        )
    return notes


def _tell_bright(
    plan: StatsPlan, tissue: object, columns: Mapping[str, NDArray[Any]]
) -> Iterator[str]:
    """Say how much of what was found in unlike tissue is brighter than mitochondria are."""
    unlike = isinstance(tissue, Mapping) and tissue.get("likeness") in UNLIKE
    if not unlike or plan.table.stem != NAME or BRIGHTNESS not in columns:
        return
    rows = find_bright(columns)
    if len(rows):
        part = tell_part(int(columns["voxels"][rows].sum()), int(columns["voxels"].sum()))
        largest = ", ".join(map(str, columns["label"][rows[:SHOWN]].tolist()))
        drop = command("apply", plan.volume, "--keep", f"{BRIGHTNESS}<{BRIGHT:g}")
        yield (
            f"{len(rows)} object(s), {part}, are brighter than mitochondria mostly are: look at "
            f"some, such as {largest}; to drop all: `{drop}`"
        )


def write_objects(results: list[VolumeStats], output: Path) -> None:
    """Write the objects of several volumes into one table, with a column that names the volume.

    Columns of some volumes only, such as probabilities, are NaN for the others.
    """
    check_table_path(output)
    check_one_table({r.volume: r.summary.voxel_size for r in results})
    units = {name: unit for r in results for name, unit in r.units.items()}
    columns = {
        name: np.concatenate(
            [r.columns.get(name, np.full(r.summary.objects, np.nan)) for r in results]
        )
        for name in units
    }
    if len(results) > 1:
        names = np.concatenate([np.full(r.summary.objects, str(r.volume)) for r in results])
        columns = {"volume": names, **columns}
    write_table(output, columns, units, {"volseg": __version__})
