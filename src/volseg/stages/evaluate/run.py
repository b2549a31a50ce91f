"""Evaluate: compare the objects of a volume with the truth, block by block."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks, same_workers
from volseg.errors import ParameterError
from volseg.geometry.grid import Block, cut_blocks, describe, roi_size
from volseg.measures.border import Borders
from volseg.scores.boundary import BoundaryScores
from volseg.scores.contingency import Contingency, add_table, merge_tables, without_small
from volseg.scores.curves import LEVELS, Curves, score_curves
from volseg.scores.matching import (
    Matches,
    MeanPrecision,
    ObjectScores,
    Overlaps,
    excuse_cut,
    find_matches,
    find_overlaps,
    mean_precision,
    score_objects,
)
from volseg.scores.mistakes import REPORTED, ObjectErrors, SizeBin, find_errors, recall_by_size
from volseg.scores.overlap import (
    ForegroundScores,
    RandScores,
    Variation,
    adapted_rand,
    foreground_scores,
    variation_of_information,
)
from volseg.sources.labels import OWN
from volseg.stages.components.masks import number_mask, taken_as_mask
from volseg.stages.evaluate.boundary import measure_boundary, plan_boundary
from volseg.stages.evaluate.plan import EvaluatePlan
from volseg.stages.evaluate.tasks import ReadBlock, compare_block, read_stored
from volseg.storage.arrays import StoredArray
from volseg.storage.scratch import ComponentStore, lend_scratch
from volseg.types import Roi, VoxelSize

Histograms: TypeAlias = NDArray[np.int64] | None
SPECK = 2
"""Voxels of the largest object that is taken for a slip of an annotator's pen."""


@dataclass(frozen=True)
class ImageScores:
    """Scores of one of several unrelated images.

    Attributes
    ----------
    image : its name, or its number from 0
    truth, predicted, matched : objects, at the IoU asked for
    """

    image: str
    voxels: int
    dice: float
    jaccard: float
    accuracy: float
    truth: int
    predicted: int
    matched: int
    average_precision: float
    precision: float


@dataclass(frozen=True)
class Evaluation:
    """Scores of a prediction against the truth.

    Attributes
    ----------
    region : where, in voxels
    min_size : voxels of the smallest object that counts
    specks : objects of the truth of one or two voxels, among those that count
    objects : one to one, at the IoU asked for
    mean : over the IoU thresholds 0.50, 0.55 ... 1.00
    rand, variation : of the two labellings as wholes
    by_size : recall
    errors : objects that are missed, false, split and merged
    curves : None without probabilities
    boundary : distances of surfaces, where a tolerance is given
    images : each by itself, where slices are unrelated images
    axes : of labels in files, as they were named
    """

    volume: Path
    truth: Path
    prediction: Path
    region: Roi
    voxels: int
    voxel_size: VoxelSize | None
    min_size: int
    specks: int
    ignore_border: bool
    foreground: ForegroundScores
    objects: ObjectScores
    mean: MeanPrecision
    rand: RandScores
    variation: Variation
    by_size: tuple[SizeBin, ...]
    errors: ObjectErrors
    curves: Curves | None
    seconds: float
    notes: tuple[str, ...]
    boundary: BoundaryScores | None = None
    images: tuple[ImageScores, ...] = ()
    axes: str | None = None


def evaluate(plan: EvaluatePlan, progress: Progress) -> Evaluation:
    """Compare the objects of a volume with the truth; nothing stays written."""
    begun = time.monotonic()
    notes, options = list(plan.notes), plan.options
    surfaces = plan_boundary(plan)
    with same_workers(options.engine):
        tables, histogram = compare(plan, progress, notes)
        boundary = None if surfaces is None else measure_boundary(plan, surfaces, progress)
    table = merge_tables(tables)
    _check_compared(plan, table)
    objects = without_small(table, plan.min_size)
    overlaps, matches, mean = _match(plan, objects)
    errors = find_errors(_own_labels(overlaps) if plan.images else overlaps, matches)
    if max(dataclasses.astuple(errors.counts)) > REPORTED:
        notes.append(
            f"JSON lists the {REPORTED} largest objects of each kind of error; --output also "
            f"writes all of them, to errors.parquet"
        )
    return Evaluation(
        volume=plan.volume,
        truth=plan.truth.path,
        prediction=plan.predicted.path,
        region=plan.region,
        voxels=table.total,
        voxel_size=plan.voxel_size,
        min_size=plan.min_size,
        specks=int(np.count_nonzero(overlaps.truth.voxels <= SPECK)),
        ignore_border=options.ignore_border,
        foreground=foreground_scores(table),
        objects=score_objects(overlaps, matches),
        mean=mean,
        rand=adapted_rand(objects),
        variation=variation_of_information(objects),
        by_size=recall_by_size(overlaps, matches),
        errors=errors,
        curves=None if histogram is None else score_curves(histogram),
        seconds=time.monotonic() - begun,
        notes=tuple(notes),
        boundary=boundary,
        images=() if plan.images is None else tuple(_score_images(plan, tables)),
        axes=plan.options.axes,
    )


def _check_compared(plan: EvaluatePlan, table: Contingency) -> None:
    """Check that there is something to compare."""
    options = plan.options
    if not table.total:
        raise ParameterError(
            f"no voxel is left to compare: {options.mask} is 0 in all of {describe(plan.region)}"
        )
    if options.foreground is not None and not (table.truth > 0).any():
        raise ParameterError(
            f"{plan.truth.path} has no voxel of {options.foreground} in {describe(plan.region)}; "
            f"give as --foreground the value of what is to be found"
        )


def _match(plan: EvaluatePlan, objects: Contingency) -> tuple[Overlaps, Matches, MeanPrecision]:
    """Match objects; a border that may cut them is that of the region, or of each image in it."""
    overlaps, iou = find_overlaps(objects), plan.options.iou
    if not plan.options.ignore_border:
        return overlaps, find_matches(overlaps, iou), mean_precision(overlaps)
    sizes = [part.size for part in plan.images or ()]
    cut_by = Borders(plan.region, sizes) if sizes else plan.region
    excused = excuse_cut(overlaps, cut_by, iou)
    return overlaps, find_matches(overlaps, iou, excused), mean_precision(overlaps, cut_by)


def _own_labels(overlaps: Overlaps) -> Overlaps:
    """Give objects of unrelated images the labels that they have there."""
    truth, predicted = (
        dataclasses.replace(side, labels=side.labels & OWN)
        for side in (overlaps.truth, overlaps.predicted)
    )
    return dataclasses.replace(overlaps, truth=truth, predicted=predicted)


def _score_images(plan: EvaluatePlan, tables: Sequence[Contingency]) -> Iterator[ImageScores]:
    """Score each unrelated image by itself."""
    first = plan.region[0].start
    for k, table in enumerate(tables):
        part = plan.images[first + k] if plan.images else None
        overlaps, matches, mean = _match(plan, without_small(table, plan.min_size))
        scores, found = foreground_scores(table), score_objects(overlaps, matches)
        yield ImageScores(
            image="" if part is None else part.name,
            voxels=table.total,
            dice=scores.dice,
            jaccard=scores.jaccard,
            accuracy=scores.accuracy,
            truth=found.truth,
            predicted=found.predicted,
            matched=found.matched,
            average_precision=mean.average_precision,
            precision=mean.precision,
        )


def compare(
    plan: EvaluatePlan, progress: Progress, notes: list[str]
) -> tuple[list[Contingency], NDArray[np.int64] | None]:
    """Count the pairs of labels of two labellings; where one is a mask, use its components.

    There is one table, of a volume, or one of each unrelated image.

    At no time are more than a few blocks in memory. Labels are a mask if they have one value only,
    unless volseg found them or the user knows better.
    """
    sources = {"truth": plan.truth, "prediction": plan.predicted}
    sides: dict[str, ReadBlock] = {s: partial(read_stored, source) for s, source in sources.items()}
    tables, histogram = _count(plan, sides, plan.probabilities, progress)
    table = merge_tables(tables)
    values = {"truth": table.truth, "prediction": table.predicted}
    masks = [
        side
        for side, labels in values.items()
        if not plan.options.instances and sources[side].is_mask(labels)
    ]
    if not masks:
        return tables, histogram
    with lend_scratch(plan.scratch, "evaluate") as folder:
        for side in masks:
            source, store = sources[side], ComponentStore(folder / side)
            found = number_mask(
                source, plan.grid, plan.region, store, plan.options.engine, progress
            )
            sides[side] = found
            notes.append(taken_as_mask(source, found.objects))
        tables, _ = _count(plan, sides, None, progress)
    return tables, histogram


def _count(
    plan: EvaluatePlan,
    sides: Mapping[str, ReadBlock],
    probabilities: StoredArray | None,
    progress: Progress,
) -> tuple[list[Contingency], NDArray[np.int64] | None]:
    histogram = None if probabilities is None else np.zeros((2, LEVELS), np.int64)
    first = plan.region[0].start
    count = 1 if plan.images is None else plan.region[0].stop - first
    kept: list[list[Contingency]] = [[] for _ in range(count)]

    def on_result(block: Block, found: tuple[list[Contingency], Histograms]) -> None:
        at = 0 if plan.images is None else block.core[0].start - first
        for k, table in enumerate(found[0], at):
            add_table(kept[k], table)
        if histogram is not None and found[1] is not None:
            np.add(histogram, found[1], out=histogram)

    sizes = None if plan.images is None else tuple(part.size for part in plan.images)
    read = sides["truth"], sides["prediction"]
    task = partial(compare_block, *read, plan.counted, probabilities, sizes)
    job = Job(progress, roi_size(plan.region), "voxels", "comparing", size=core_voxels)
    blocks = cut_blocks(plan.grid, plan.region)
    run_blocks(task, blocks, plan.options.engine, on_result=on_result, progress=job)
    return [merge_tables(tables) for tables in kept], histogram
