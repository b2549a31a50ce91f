"""Find where the objects of one result touch those of another, block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks
from volseg.errors import ShapeError
from volseg.geometry.grid import Block, Grid, gather_chunks, roi_shape
from volseg.measures.contacts import contact_table, count_contacts, merge_contacts
from volseg.measures.sums import keep_part
from volseg.sources.labels import OWN, LabelSource, open_labels
from volseg.storage.tables import write_table
from volseg.types import VoxelSize, zyx

BLOCK_VOXELS = 1 << 23
"""Of both results a block is read whole, which takes some 12 bytes of each voxel."""


@dataclass(frozen=True)
class Contacts:
    """Contacts of a result with another.

    Attributes
    ----------
    touching : number of objects that touch one of the other at all.
    area_nm2 : of all contacts; None where the voxel size is unknown.
    shared_voxels : that are of both.
    """

    name: str
    touching: int
    area_nm2: float | None
    shared_voxels: int
    table: Path


def _count_block(
    ours: LabelSource, theirs: LabelSource, planar: bool, block: Block
) -> NDArray[np.int64]:
    """Count contacts, of which those at faces behind a block are its own."""
    ends = zip(block.core, ours.shape, strict=True)
    box = zyx(slice(s.start, min(s.stop + 1, n)) for s, n in ends)
    return count_contacts(ours[box], theirs[box], roi_shape(block.core), planar=planar)


def open_other(volume: Path, ours: LabelSource, name: str, *, planar: bool) -> LabelSource:
    """Open the other result; labels of unrelated images mean another object in each."""
    theirs = open_labels(volume, name)
    if theirs.shape != ours.shape:
        raise ShapeError(f"labels/{name} has {theirs.shape}, {ours.path} has {ours.shape}")
    return theirs.as_images() if planar else theirs


def find_contacts(
    objects: Path,
    pair: tuple[LabelSource, LabelSource],
    voxel_size: VoxelSize | None,
    engine: EngineOptions,
    progress: Progress,
    *,
    planar: bool,
) -> Contacts:
    """Find contacts; their table is ``<ours>-<theirs>-contacts.parquet`` beside ours of objects.

    Where slices are unrelated images (``planar``), nothing touches what is in another one.
    """
    ours, theirs = pair
    kept: list[NDArray[np.int64]] = []

    def on_result(_: Block, found: NDArray[np.int64]) -> None:
        keep_part(kept, found, merge_contacts)

    grid = Grid(ours.shape, gather_chunks(ours.block, ours.shape, BLOCK_VOXELS))
    job = Job(progress, math.prod(grid.shape), "voxels", "finding contacts", size=core_voxels)
    task = partial(_count_block, ours, theirs, planar)
    run_blocks(task, grid.blocks(), engine, on_result=on_result, progress=job)
    rows = merge_contacts(kept)
    columns, units = contact_table(rows, voxel_size)
    for name, source in (("label", ours), ("touched", theirs)):
        columns[name] = columns[name] & int(OWN) if source.apart else columns[name]
    table = objects.with_name(f"{objects.stem}-{theirs.path.name}-contacts.parquet")
    write_table(table, columns, units, {"labels": ours.identity, "touched": theirs.identity})
    area = None if voxel_size is None else float(columns["area_nm2"].sum())
    shared = int(columns["shared_voxels"].sum())
    return Contacts(theirs.path.name, len(np.unique(rows[:, 0])), area, shared, table)
