"""Stats: measure every object of a volume, block by block, and summarise the volume in one row."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg import __version__
from volseg.blocks import Block, Grid, roi_size, whole_multiples
from volseg.errors import ParameterError, ShapeError, StorageError
from volseg.io.label_sources import LabelSource, open_label_path, open_labels
from volseg.io.tables import check_table_path, write_table
from volseg.io.volumes import open_image, table_path
from volseg.stages.engine import EngineOptions, run_blocks
from volseg.stages.progress import Progress
from volseg.statistics import Moments, Summary, measure_block, merge, object_table, summarise

BLOCK_VOXELS = 1 << 24
MERGE_EVERY = 64
"""Blocks whose sums are kept apart before they are added up."""


@dataclass(frozen=True)
class StatsOptions:
    """What to measure.

    Attributes
    ----------
    name : of the labels in the volume.
    labels : labels from elsewhere, Zarr or TIFF, in place of the volume's.
    engine : workers and scheduler.
    """

    name: str = "mitochondria"
    labels: Path | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True)
class VolumeStats:
    """What was measured in one volume.

    Attributes
    ----------
    volume : Path
    summary : one row
    columns, units : one row per object, see `volseg.statistics.object_table`
    table : where those rows were written
    notes : what the user should know
    """

    volume: Path
    summary: Summary
    columns: dict[str, NDArray[Any]]
    units: dict[str, str]
    table: Path
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class MeasureBlock:
    """Measure what one block holds of each object."""

    source: LabelSource

    def __call__(self, block: Block) -> Moments:
        """Measure one block."""
        return measure_block(self.source[block.core], block.core)


def stats(volume: Path, options: StatsOptions, progress: Progress) -> VolumeStats:
    """Measure the objects of a volume and write their table into it.

    Raises
    ------
    InputError
        If there are no labels, or they do not fit the volume.
    BlockError
        If blocks could not be read.
    """
    begun = time.monotonic()
    image = open_image(volume)
    source, name = _open(volume, options)
    if source.shape != image.levels[0].shape:
        raise ShapeError(
            f"{source.path} has the shape {source.shape}, {volume} {image.levels[0].shape}; give "
            f"labels of the volume's own size"
        )
    size = image.voxel_size or source.voxel_size
    moments = measure(source, options.engine, progress)
    columns, units = object_table(moments, source.region, size)
    notes = []
    if size is None:
        notes.append(
            f"the voxel size of {volume} is unknown, so sizes are in voxels; convert it again with "
            f"--voxel-size to get nm"
        )
    path = table_path(volume, name)
    provenance = {"volseg": __version__, "labels": source.fingerprint or str(source.path)}
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write in {volume}: {error.strerror}") from error
    write_table(path, columns, units, provenance)
    summary = summarise(columns, source.region, size)
    seconds = time.monotonic() - begun
    return VolumeStats(volume, summary, columns, units, path, seconds, tuple(notes))


def _open(volume: Path, options: StatsOptions) -> tuple[LabelSource, str]:
    if options.labels is None:
        return open_labels(volume, options.name), options.name
    return open_label_path(options.labels), options.labels.stem


def measure(source: LabelSource, engine: EngineOptions, progress: Progress) -> Moments:
    """Measure all objects; at no time are more than a few blocks in memory."""
    z, y, x = source.block
    # rows of whole shards, as many as make a block of the usual size
    deep = max(BLOCK_VOXELS // math.prod(source.block), 1)
    grid = Grid(source.shape, whole_multiples((z, y, min(x * deep, source.shape[2])), source.block))
    kept: list[Moments] = []
    progress.start(math.prod(source.shape), "voxels", "measuring")

    def on_result(block: Block, found: Moments) -> Iterable[Block]:
        kept.append(found)
        if len(kept) > MERGE_EVERY:
            kept[:] = [merge(kept)]
        progress.advance(roi_size(block.core))
        return []

    try:
        run_blocks(MeasureBlock(source), grid.blocks(), engine, on_result=on_result)
    finally:
        progress.finish()
    return merge(kept)


def write_objects(results: list[VolumeStats], output: Path) -> None:
    """Write the objects of several volumes into one table, with a column that names the volume.

    Raises
    ------
    ParameterError
        If the volumes' columns differ because some voxel sizes are unknown.
    """
    check_table_path(output)
    first = results[0]
    if any(set(r.columns) != set(first.columns) for r in results):
        unknown = [str(r.volume) for r in results if r.summary.voxel_size is None]
        raise ParameterError(
            f"one table cannot hold volumes with and without a voxel size; unknown in: "
            f"{', '.join(unknown)}"
        )
    columns = {k: np.concatenate([r.columns[k] for r in results]) for k in first.columns}
    if len(results) > 1:
        names = np.concatenate([np.full(len(r.columns["label"]), str(r.volume)) for r in results])
        columns = {"volume": names, **columns}
    write_table(output, columns, first.units, {"volseg": __version__})
