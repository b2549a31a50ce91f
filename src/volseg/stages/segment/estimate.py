"""Estimate the work, time, memory and disk of a segmentation; nothing is written."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from volseg.engine.memory import peak_bytes
from volseg.stages.predict.loading import predictor_for
from volseg.stages.predict.plan import PredictPlan
from volseg.stages.segment.run import SegmentPlan, one_worker_per_gpu

UNCOUNTED = "the volume has no histogram yet, so a run first reads all of it to count intensities"
FASTER_ELSEWHERE = (
    "workers elsewhere run in float32, which all CPUs are fast in; where all of them multiply "
    "bfloat16 in hardware, --precision bfloat16 is faster"
)


@dataclass(frozen=True)
class SegmentEstimate:
    """Work, time and memory that a run would take.

    Attributes
    ----------
    work : network voxels of tiles for each one of the region; a mask leaves some out.
    memory_bytes : peak of each process: what it takes after one tile, and the arrays of blocks.
    disk_bytes : of the results before compression, pyramids included.
    seconds : from one tile evaluated just now; None where the workers are elsewhere.
    """

    blocks: int
    tiles: int
    voxels: int
    work: float
    processes: int
    memory_bytes: int
    disk_bytes: int
    seconds: float | None
    device: str
    precision: str
    notes: tuple[str, ...]


def estimate(plan: SegmentPlan) -> SegmentEstimate:
    """Say what a run would take; nothing is written.

    One tile of noise is evaluated, because nothing else tells how fast this machine is; none for
    workers elsewhere, whose device this machine may lack.
    """
    prediction, engine = plan.prediction, one_worker_per_gpu(plan.options.predict)
    arrays = engine.threads * _bytes_per_block(prediction)
    seconds, notes = None, plan.notes
    if engine.elsewhere:
        note = (
            f"the workers are elsewhere, so no tile was evaluated: the time is unknown, and memory "
            f"is that of {engine.threads} block(s) at a time in one worker, without its network"
        )
        notes = (*notes, note)
        if (prediction.choice.device, plan.options.predict.precision) == ("cpu", "auto"):
            notes = (*notes, FASTER_ELSEWHERE)
    else:
        seconds = _seconds(prediction)
    maps, shape = len(prediction.outputs), prediction.handover.grid.shape
    return SegmentEstimate(
        blocks=sum(1 for _ in prediction.handover.targets()),
        tiles=prediction.tiles,
        voxels=prediction.voxels,
        work=prediction.handover.count_work(),
        processes=engine.processes,
        memory_bytes=peak_bytes() + arrays,
        disk_bytes=int(np.prod(shape) * (maps + 4) * 8 / 7),
        seconds=seconds,
        device=prediction.choice.device,
        precision=prediction.choice.precision,
        notes=notes if prediction.counted else (*notes, UNCOUNTED),
    )


def _bytes_per_block(plan: PredictPlan) -> int:
    """Say what a task holds: what tiles see together, what they add up to, and what is written."""
    raw, grid, maps = plan.image.levels[plan.level], plan.handover.grid, len(plan.outputs)
    factors, reaches, most = plan.image.factors[plan.level], [], 0
    for lattice in plan.handover.lattices:
        axes = zip(lattice.tile, lattice.margin, lattice.axes, strict=True)
        tile = [(n + 2 * margin) * along.scale for n, margin, along in axes]
        reaches.append([size + n for size, n in zip(grid.size, tile, strict=True)])
        # slices along y or x are read tile by tile
        seen = [tile[a] if 0 < a == lattice.normal else reaches[-1][a] for a in range(3)]
        sides = zip(seen, factors, raw.shape, strict=True)
        most = max(most, math.prod(min(math.ceil(n / f), length) for n, f, length in sides))
    hull = [math.ceil(max(reach[axis] for reach in reaches)) for axis in range(3)]
    added = math.prod(map(min, hull, grid.shape))
    written = math.prod(map(min, grid.size, grid.shape))
    return most * (raw.dtype.itemsize + 4) + maps * (6 * added + 3 * written)


def _seconds(plan: PredictPlan) -> float:
    """Evaluate a tile of each lattice, twice, and take all others to take as long as the second."""
    predictor, counts = predictor_for(plan.choice), plan.handover.count_tiles()
    seconds = 0.0
    for lattice, count in zip(plan.handover.lattices, counts, strict=True):
        z, y, x = (n + 2 * m for n, m in zip(lattice.tile, lattice.margin, strict=True))
        tile = np.random.default_rng(0).uniform(-1, 1, (z, y, x)).astype(np.float32)
        predictor(tile, axis=lattice.normal)
        begun = time.monotonic()
        predictor(tile, axis=lattice.normal)
        seconds += count * (time.monotonic() - begun)
    # a mask leaves tiles out
    return seconds * plan.tiles / sum(counts)
