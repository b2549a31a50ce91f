"""Measure the distances between surfaces, block by block, each with all within the reach around."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks
from volseg.errors import ParameterError
from volseg.geometry.grid import Block, Grid, cut_blocks, roi_shape, roi_size, shift
from volseg.scores.boundary import BoundaryScores, count_distances, find_surface, score_boundary
from volseg.sources.labels import LabelSource
from volseg.stages.evaluate.plan import EvaluatePlan
from volseg.storage.images import clear_padding
from volseg.types import Roi, VoxelSize, Zyx, zyx

REACH = 32
"""Voxels of the finest axis up to which distances are known; or four times the tolerance."""
BLOCK: Zyx = (64, 256, 256)
"""Smaller than others: distances take eight bytes a voxel, and what lies around is read too."""

MOST = 1 << 26
"""Voxels of the largest box that is read; its distances take some 2 GB."""


@dataclass(frozen=True)
class MeasureBoundary:
    """Count the distances of both surfaces in one block.

    Attributes
    ----------
    spacing, reach : see `volseg.scores.boundary.count_distances`
    sizes : (y, x) of the unrelated images that slices are, beyond which nothing is known; or empty
    """

    truth: LabelSource
    predicted: LabelSource
    counted: LabelSource | None
    region: Roi
    spacing: VoxelSize
    reach: float
    sizes: tuple[tuple[int, int], ...] = ()

    def box(self, core: Roi) -> Roi:
        """Find what has to be read for a block."""
        # one more, for the neighbours that make a surface
        halo = [0 if math.isinf(s) else math.ceil(self.reach / s) + 1 for s in self.spacing]
        return zyx(
            slice(max(c.start - h, r.start), min(c.stop + h, r.stop))
            for c, h, r in zip(core, halo, self.region, strict=True)
        )

    def __call__(self, block: Block) -> tuple[Counter[int], Counter[int]]:
        """Measure one block; return the distances of the true and of the predicted surface."""
        planar = math.isinf(self.spacing[0])
        z, y, x = self.box(block.core)
        own = shift(block.core, [z.start, y.start, x.start])
        known = None
        if self.sizes:
            known = np.ones(roi_shape((z, y, x)), bool)
            clear_padding(known, (z, y, x), self.sizes)
        truth, predicted = (
            find_surface(source[z, y, x] > 0, planar=planar, known=known)
            for source in (self.truth, self.predicted)
        )
        sides = [(truth, predicted), (predicted, truth)]
        if self.counted is not None:
            inside = self.counted[z, y, x] > 0
            sides = [(mine & inside, other) for mine, other in sides]
        found = [count_distances(*side, own, self.spacing, self.reach) for side in sides]
        return found[0], found[1]


def plan_boundary(plan: EvaluatePlan) -> MeasureBoundary | None:
    """Say what is measured of surfaces, if a tolerance is given and blocks fit into memory."""
    tolerance = plan.options.tolerance
    if tolerance is None:
        return None
    z, y, x = plan.voxel_size or (1.0, 1.0, 1.0)
    spacing = (math.inf if plan.images is not None else z, y, x)
    reach = max(REACH * min(spacing), 4 * tolerance)
    sizes = tuple(part.size for part in plan.images or ())
    sides = plan.truth, plan.predicted, plan.counted
    task = MeasureBoundary(*sides, plan.region, spacing, reach, sizes)
    blocks = cut_blocks(Grid(plan.truth.shape, BLOCK), plan.region)
    if max(roi_size(task.box(block.core)) for block in blocks) > MOST:
        raise ParameterError(
            f"a tolerance of {tolerance:g} takes too much memory, as distances are measured up to "
            f"four times as far; give a smaller --tolerance, or a smaller region with --roi"
        )
    return task


def measure_boundary(
    plan: EvaluatePlan, task: MeasureBoundary, progress: Progress
) -> BoundaryScores:
    """Measure how far the surfaces of truth and prediction lie apart."""
    totals: tuple[Counter[int], Counter[int]] = Counter(), Counter()

    def on_result(_: Block, found: tuple[Counter[int], Counter[int]]) -> None:
        for k, total in enumerate(totals):
            total.update(found[k])

    job = Job(progress, roi_size(plan.region), "voxels", "measuring surfaces", size=core_voxels)
    blocks = cut_blocks(Grid(plan.truth.shape, BLOCK), plan.region)
    run_blocks(task, blocks, plan.options.engine, on_result=on_result, progress=job)
    unit = "voxel" if plan.voxel_size is None else "nm"
    return score_boundary(*totals, unit, plan.options.tolerance or 0.0, task.reach)
