"""Evaluate: compare the objects of a volume with the truth, block by block."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks, same_workers
from volseg.errors import ParameterError
from volseg.geometry.grid import Block, describe, roi_size
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
from volseg.stages.components import number_mask
from volseg.stages.evaluate.plan import Comparison, EvaluatePlan, is_own
from volseg.stages.evaluate.tasks import CompareBlock, ReadBlock, Stored
from volseg.storage.arrays import StoredArray
from volseg.storage.files import discard
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
    notes, comparison = list(plan.notes), plan.comparison
    with same_workers(plan.options.engine):
        table, histogram = compare(plan, progress, notes)
    if not table.total:
        raise ParameterError(
            f"no voxel is left to compare: {plan.options.mask} is 0 in all of "
            f"{describe(comparison.region)}"
        )
    objects = without_small(table, plan.min_size)
    overlaps = find_overlaps(objects)
    cut_by = comparison.region if plan.options.ignore_border else None
    excused = None if cut_by is None else excuse_cut(overlaps, cut_by, plan.options.iou)
    matches = find_matches(overlaps, plan.options.iou, excused)
    errors = find_errors(overlaps, matches)
    if max(dataclasses.astuple(errors.counts)) > REPORTED:
        notes.append(
            f"JSON lists the {REPORTED} largest objects of each kind of error; --output also "
            f"writes all of them, to errors.parquet"
        )
    return Evaluation(
        volume=plan.volume,
        truth=comparison.truth.path,
        prediction=comparison.predicted.path,
        region=comparison.region,
        voxels=table.total,
        voxel_size=comparison.voxel_size,
        min_size=plan.min_size,
        specks=int(np.count_nonzero(overlaps.truth.voxels <= SPECK)),
        ignore_border=plan.options.ignore_border,
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
    comparison, engine = plan.comparison, plan.options.engine
    sides: list[ReadBlock] = [Stored(comparison.truth), Stored(comparison.predicted)]
    table, histogram = _count(comparison, sides, comparison.probabilities, engine, progress)
    masks = [
        not comparison.instances and not is_own(source) and len(np.unique(labels[labels > 0])) == 1
        for labels, source in (
            (table.truth, comparison.truth),
            (table.predicted, comparison.predicted),
        )
    ]
    if not any(masks):
        return table, histogram
    with _scratch(plan.scratch) as folder:
        for k, source in enumerate((comparison.truth, comparison.predicted)):
            if not masks[k]:
                continue
            store = ComponentStore(folder / ("truth", "prediction")[k])
            grid, region = comparison.grid, comparison.region
            found = number_mask(source, grid, region, store, engine, progress)
            sides[k] = found
            notes.append(
                f"{source.path} has one value only, so it is taken as a mask and its "
                f"{found.objects} connected components (26 neighbours) as objects; --instances "
                f"takes them as one object"
            )
        table, _ = _count(comparison, sides, None, engine, progress)
    return table, histogram


def _count(
    comparison: Comparison,
    sides: Sequence[ReadBlock],
    probabilities: StoredArray | None,
    engine: EngineOptions,
    progress: Progress,
) -> tuple[Contingency, NDArray[np.int64] | None]:
    histogram = None if probabilities is None else np.zeros((2, LEVELS), np.int64)
    kept: list[Contingency] = []

    def on_result(_: Block, found: tuple[Contingency, NDArray[np.int64] | None]) -> None:
        add_table(kept, found[0])
        if histogram is not None and found[1] is not None:
            np.add(histogram, found[1], out=histogram)

    task = CompareBlock(sides[0], sides[1], comparison.counted, probabilities)
    job = Job(progress, roi_size(comparison.region), "voxels", "comparing", size=core_voxels)
    run_blocks(task, comparison.blocks, engine, on_result=on_result, progress=job)
    return merge_tables(kept), histogram


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """Lend a folder for scratch in the volume, where all workers reach it, and remove it."""
    folder = place / f"evaluate-{socket.gethostname()}-{os.getpid()}"
    try:
        yield folder
    finally:
        discard(folder)
        with suppress(OSError):  # others use it too
            folder.parent.rmdir()
