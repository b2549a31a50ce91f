"""Stats: measure every object of a volume, block by block, and summarise the volume in one row."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg import __version__
from volseg.defaults import MEASURE, SURFACE
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Progress
from volseg.engine.run import run_blocks, same_workers
from volseg.errors import ParameterError, StorageError, command
from volseg.geometry.grid import Block, roi_size
from volseg.measures.object_table import ObjectSums, Scale, SingleObjects, merge_sums, object_table
from volseg.measures.shape import too_large
from volseg.measures.summary import Summary, slice_table, summarise
from volseg.sources.labels import LabelSource
from volseg.stages.stats.plan import check_one_table, open_measured
from volseg.stages.stats.single_objects import LARGEST_BOX, MeasureObject, measure_singly
from volseg.stages.stats.tasks import MeasureBlock, order_blocks, plan_blocks
from volseg.storage.arrays import StoredArray
from volseg.storage.attributes import read_histogram
from volseg.storage.tables import check_table_path, write_table
from volseg.storage.volumes import (
    Image,
    open_image,
    probabilities_path,
    slices_path,
    table_path,
)

MERGE_EVERY = 64
"""Blocks whose sums are kept apart before they are added up."""

MEASURES = ("full", "shapes", "basic")
SURFACES = ("crofton", "marching-cubes")


@dataclass(frozen=True)
class StatsOptions:
    """What to measure.

    Attributes
    ----------
    name : of the labels in the volume, and of the tables; of labels from elsewhere, their file's.
    labels : labels from elsewhere, Zarr or TIFF, in place of the volume's.
    engine : workers and scheduler.
    measure : ``full``; ``shapes``, without intensities; or ``basic``, voxels, places and boxes
        alone. Each is faster than the one before.
    surface : ``crofton``, or ``marching-cubes``, object by object.
    centerline : also length and branches of each object's centerline.
    """

    name: str | None = None
    labels: Path | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    measure: str = MEASURE
    surface: str = SURFACE
    centerline: bool = False

    def __post_init__(self) -> None:
        for what, found, known in (
            ("measure", self.measure, MEASURES),
            ("surface", self.surface, SURFACES),
        ):
            if found not in known:
                raise ParameterError(f"{what} is one of {', '.join(known)}, found {found!r}")
        if self.measure == "basic" and self.one_by_one:
            raise ParameterError(
                "measure 'basic' has neither surfaces nor centerlines; ask for 'full'"
            )
        if self.one_by_one and importlib.util.find_spec("skimage") is None:
            raise ParameterError(
                "marching cubes and centerlines need scikit-image: pip install 'volseg[measure]'"
            )

    @property
    def one_by_one(self) -> bool:
        """Whether objects are to be read one at a time too."""
        return self.centerline or self.surface == "marching-cubes"


@dataclass(frozen=True)
class VolumeStats:
    """What was measured in one volume.

    Attributes
    ----------
    volume : Path
    summary : one row
    columns, units : one row per object, see `volseg.measures.object_table.object_table`
    table, slices : where those rows were written, and one row per slice
    notes : what the user should know
    """

    volume: Path
    summary: Summary
    columns: dict[str, NDArray[Any]]
    units: dict[str, str]
    table: Path
    slices: Path
    seconds: float
    notes: tuple[str, ...]


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
    image, source, name = open_measured(volume, options.labels, options.name)
    size = image.voxel_size or source.voxel_size
    task, notes = plan_measures(image, source, name, options)
    with same_workers(options.engine):
        sums, areas = measure(task, options.engine, progress)
        singles = None
        if options.one_by_one:
            alone = MeasureObject(
                source,
                size or (1.0, 1.0, 1.0),
                mesh=options.surface == "marching-cubes",
                centerline=options.centerline,
            )
            singles = measure_singly(alone, sums.moments, options.engine, progress)
    columns, units = object_table(sums, source.region, size, singles, task.scale)
    slices, slice_units = slice_table(columns, areas, source.region, size)
    notes += _notes_on(sums, singles, options, volume if size is None else None)
    path = table_path(volume, name)
    provenance = {
        "volseg": __version__,
        "labels": source.fingerprint or str(source.path),
        "surface": options.surface if options.measure != "basic" else "none",
    }
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write in {volume}: {error.strerror}") from error
    by_slice = slices_path(volume, name)
    write_table(by_slice, slices, slice_units, provenance)
    write_table(path, columns, units, provenance)
    summary = summarise(columns, source.region, size)
    seconds = time.monotonic() - begun
    return VolumeStats(volume, summary, columns, units, path, by_slice, seconds, tuple(notes))


def plan_measures(
    image: Image, source: LabelSource, name: str, options: StatsOptions
) -> tuple[MeasureBlock, list[str]]:
    """Choose what is summed besides the labels; say what cannot be."""
    if options.measure == "basic":
        return MeasureBlock(source, shapes=False), []
    if options.measure == "shapes":
        return MeasureBlock(source, shapes=True), []
    notes = []
    raw: StoredArray | None = image.levels[0]
    scale = None
    if image.levels[0].dtype.kind not in "ui" or image.levels[0].dtype.itemsize > 2:
        histogram = image.attributes.get("histogram")
        if histogram:
            _, values = read_histogram(image.path, histogram)
            scale = Scale.between(float(values.min()), float(values.max()))
        else:
            raw = None
            notes.append(
                f"{image.path} holds {image.levels[0].dtype} and no histogram, so there are no "
                f"intensity columns; `{command('convert', image.path, 'VOLUME.zarr')}` makes a "
                f"volume that has them"
            )
    path = probabilities_path(image.path, name)
    probabilities = None
    if path.exists():
        found = open_image(path)
        fits = found.levels[0].shape == source.shape and found.levels[0].dtype == np.uint8
        if fits and found.attributes.get("complete") is not False:
            probabilities = found.levels[0]
        else:
            notes.append(f"{path} is incomplete or of another kind, so its mean is left out")
    return MeasureBlock(source, True, raw, probabilities, scale), notes


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
    progress.start(math.prod(grid.shape), "voxels", "measuring")

    def on_result(block: Block, found: tuple[ObjectSums, NDArray[np.int64]]) -> Iterable[Block]:
        sums, in_slices = found
        areas[block.core[0]] += in_slices
        kept.append(sums)
        if len(kept) > MERGE_EVERY:
            kept[:] = [merge_sums(kept)]
        progress.advance(roi_size(block.core))
        return []

    try:
        blocks = order_blocks(task.source, grid, workers)
        run_blocks(task, blocks, engine, on_result=on_result)
    finally:
        progress.finish()
    return merge_sums(kept), areas


def _notes_on(
    sums: ObjectSums, singles: SingleObjects | None, options: StatsOptions, unknown: Path | None
) -> list[str]:
    notes = []
    if unknown is not None:
        notes.append(
            f"the voxel size of {unknown} is unknown, so sizes are in voxels, and shapes are those "
            f"of cubic voxels; convert it again with --voxel-size to get nm"
        )
    if options.measure != "basic" and (count := int(too_large(sums.moments).sum())):
        notes.append(f"{count} object(s) are too large for principal axes, which are empty there")
    boxes = (sums.moments.stops - sums.moments.starts).prod(axis=1)
    if singles is not None and (count := int((boxes > LARGEST_BOX).sum())):
        notes.append(
            f"{count} object(s) have boxes of more than {LARGEST_BOX} voxels, and no "
            f"{options.surface} surface or centerline: too large to be measured at once"
        )
    return notes


def write_objects(results: list[VolumeStats], output: Path) -> None:
    """Write the objects of several volumes into one table, with a column that names the volume.

    What was measured in some volumes only, such as probabilities, is NaN in the others.

    Raises
    ------
    ParameterError
        If some voxel sizes are unknown, so that columns would not mean the same.
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
