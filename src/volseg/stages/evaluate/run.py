"""Evaluate: compare the objects of a volume with the truth, block by block."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks, same_workers
from volseg.errors import ParameterError
from volseg.geometry.grid import Block, cut_blocks, describe, roi_size
from volseg.scores.contingency import Contingency, add_table, merge_tables, without_small
from volseg.scores.curves import LEVELS, Curves, score_curves
from volseg.scores.matching import (
    MeanPrecision,
    ObjectScores,
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
from volseg.stages.evaluate.plan import EvaluatePlan
from volseg.stages.evaluate.tasks import CompareBlock, ReadBlock, Stored
from volseg.stages.mask_objects import lend_scratch, number_mask, taken_as_mask
from volseg.storage.arrays import StoredArray
from volseg.storage.scratch import ComponentStore
from volseg.types import Roi, VoxelSize

SPECK = 2
"""Voxels of the largest object that is taken for a slip of an annotator's pen."""


@dataclass(frozen=True)
class Evaluation:
    """Scores of a prediction against the truth.

    Attributes
    ----------
    volume, truth, prediction : what was compared
    region : where, in voxels
    voxels : how many were compared
    voxel_size : nm (z, y, x), None if unknown
    min_size : voxels of the smallest object that counts
    specks : objects of the truth of one or two voxels, among those that count
    ignore_border : as asked for
    foreground : voxel by voxel
    objects : one to one, at the IoU asked for
    mean : over the IoU thresholds 0.50, 0.55 ... 1.00
    rand, variation : of the two labellings as wholes
    by_size : recall
    errors : objects that are missed, false, split and merged
    curves : None without probabilities
    notes : what the user should know
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


def evaluate(plan: EvaluatePlan, progress: Progress) -> Evaluation:
    """Compare the objects of a volume with the truth; nothing stays written.

    Raises
    ------
    ParameterError
        If no voxel is left to compare.
    BlockError
        If blocks could not be read.
    """
    begun = time.monotonic()
    notes, options = list(plan.notes), plan.options
    with same_workers(options.engine):
        table, histogram = compare(plan, progress, notes)
    if not table.total:
        raise ParameterError(
            f"no voxel is left to compare: {options.mask} is 0 in all of {describe(plan.region)}"
        )
    objects = without_small(table, plan.min_size)
    overlaps = find_overlaps(objects)
    cut_by = plan.region if options.ignore_border else None
    excused = None if cut_by is None else excuse_cut(overlaps, cut_by, options.iou)
    matches = find_matches(overlaps, options.iou, excused)
    errors = find_errors(overlaps, matches)
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
        mean=mean_precision(overlaps, cut_by),
        rand=adapted_rand(objects),
        variation=variation_of_information(objects),
        by_size=recall_by_size(overlaps, matches),
        errors=errors,
        curves=None if histogram is None else score_curves(histogram),
        seconds=time.monotonic() - begun,
        notes=tuple(notes),
    )


def compare(
    plan: EvaluatePlan, progress: Progress, notes: list[str]
) -> tuple[Contingency, NDArray[np.int64] | None]:
    """Count the pairs of labels of two labellings; where one is a mask, use its components.

    At no time are more than a few blocks in memory. Labels are a mask if they have one value only,
    unless volseg found them or the user knows better.
    """
    sources = {"truth": plan.truth, "prediction": plan.predicted}
    sides: dict[str, ReadBlock] = {side: Stored(source) for side, source in sources.items()}
    table, histogram = _count(plan, sides, plan.probabilities, progress)
    values = {"truth": table.truth, "prediction": table.predicted}
    masks = [
        side
        for side, labels in values.items()
        if not plan.options.instances and sources[side].is_mask(labels)
    ]
    if not masks:
        return table, histogram
    with lend_scratch(plan.scratch, "evaluate") as folder:
        for side in masks:
            source, store = sources[side], ComponentStore(folder / side)
            found = number_mask(
                source, plan.grid, plan.region, store, plan.options.engine, progress
            )
            sides[side] = found
            notes.append(taken_as_mask(source, found.objects))
        table, _ = _count(plan, sides, None, progress)
    return table, histogram


def _count(
    plan: EvaluatePlan,
    sides: Mapping[str, ReadBlock],
    probabilities: StoredArray | None,
    progress: Progress,
) -> tuple[Contingency, NDArray[np.int64] | None]:
    histogram = None if probabilities is None else np.zeros((2, LEVELS), np.int64)
    kept: list[Contingency] = []

    def on_result(_: Block, found: tuple[Contingency, NDArray[np.int64] | None]) -> None:
        add_table(kept, found[0])
        if histogram is not None and found[1] is not None:
            np.add(histogram, found[1], out=histogram)

    task = CompareBlock(sides["truth"], sides["prediction"], plan.counted, probabilities)
    job = Job(progress, roi_size(plan.region), "voxels", "comparing", size=core_voxels)
    blocks = cut_blocks(plan.grid, plan.region)
    run_blocks(task, blocks, plan.options.engine, on_result=on_result, progress=job)
    return merge_tables(kept), histogram
