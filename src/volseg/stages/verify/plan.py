"""Plan what is predicted again: which blocks, by which network, cut how."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from volseg.engine.options import EngineOptions
from volseg.errors import ParameterError, VolumeError
from volseg.geometry.grid import Grid, intersect, whole_multiples
from volseg.models.devices import PRECISIONS, choose_device, choose_precision
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.outputs import CENTERLINE
from volseg.stages.predict.plan import PredictPlan, plan_prediction
from volseg.stages.verify.images import Subject, recorded_roi
from volseg.stages.verify.tasks import absent_shards
from volseg.storage.weights import load_card, shipped_models
from volseg.types import Roi, Zyx

REGION: Zyx = (64, 256, 256)
"""Voxels of a sampled block, at most: a network takes seconds to minutes for more."""
LOOKED_AT = 32
"""Blocks that are looked at for each that is chosen: one that is absent is worth predicting."""


def find_model(record: Mapping[str, Any], model: str | None) -> str | None:
    """Find the model that is on record: the one that is named, or a shipped one.

    Raises
    ------
    ModelError
        If the model that is named cannot be used.
    ParameterError
        If it is another one.
    """
    if model is not None:
        found = load_card(model).sha256
        if found != record["sha256"]:
            raise ParameterError(
                f"{model} is not the model that made the probabilities: its sha256 is "
                f"{found[:12]}..., on record is {record['sha256'][:12]}..."
            )
        return model
    for shipped in shipped_models():
        if load_card(shipped).sha256 == record["sha256"]:
            return shipped
    return None


def describe_missing(subject: Subject) -> str:
    """Say which model is not at hand."""
    record = subject.image.attributes["model"]
    return (
        f"{subject.array}: no block was predicted again, for the model {record['name']!r} with the "
        f"sha256 {record['sha256'][:12]}... does not come with volseg; name it with --model"
    )


def network_again(subject: Subject, model: str, engine: EngineOptions) -> PredictOptions:
    """Say how the probabilities were made, on a CPU if this machine lacks the GPU for it.

    Raises
    ------
    ValueError
        If nothing can be computed in the precision on record.
    """
    run = subject.run
    device, precision = run["device"], run["precision"]
    if precision not in PRECISIONS:
        raise ValueError(f"no precision is called {precision!r}")
    try:
        choose_precision(precision, choose_device(device))
    except ParameterError:
        device = "cpu"
    tta, rotations, views = run["averaged"]
    return PredictOptions(
        model,
        subject.name,
        tile=recorded_tile(subject),
        block=other_block(subject),
        shard=subject.image.levels[0].chunk,
        device=device,
        precision=precision,
        tta=tta,
        rotations=rotations,
        views=views,
        mask=run.get("mask", {}).get("labels"),
        normalise=run.get("normalise", {}).get("by", "volume"),
        invert=run.get("invert", False),
        zoom=run.get("zoom", 1.0),
        store_centerline=CENTERLINE.items() <= run.items(),
        engine=engine,
    )


def recorded_tile(subject: Subject) -> Zyx:
    """Read which tiles were evaluated; the volume may have made them smaller.

    How many slices one holds of those along another axis does not change them.
    """
    sides = [int(axis["tile"]) for axis in subject.run["lattice"]]
    z, y, x = (max(sides[axis::3]) for axis in range(3))
    return z, y, x


def other_block(subject: Subject) -> Zyx:
    """Choose another block size than that of the run: half of it, or twice where it is a chunk."""
    z, y, x = subject.run["block"]
    chunk = subject.image.levels[0].chunk
    half = whole_multiples((-(-z // 2), -(-y // 2), -(-x // 2)), chunk)
    return half if half != (z, y, x) else (2 * z, 2 * y, 2 * x)


def plan_again(volume: Path, subject: Subject, options: PredictOptions) -> tuple[PredictPlan, bool]:
    """Plan the same prediction; tell whether device and precision are those on record, too.

    Raises
    ------
    VolumeError
        If the volume cannot be predicted from any more.
    """
    try:
        plan = plan_prediction(volume, options)
    except ParameterError:
        # what is on record may be no tile at all
        plan = plan_prediction(volume, replace(options, tile=None))
    if not plan.counted:
        raise VolumeError(f"{volume} has no histogram of its intensities any more")
    same = all(plan.mask.header[key] == subject.run[key] for key in ("device", "precision"))
    return plan, same


def choose_blocks(subject: Subject, count: int) -> list[Roi]:
    """Choose blocks at random, no larger than those of the run; up to half of them were lost.

    What is not there reads as 0, which a network hardly ever says of a whole block.
    """
    array, region = subject.image.levels[0], recorded_roi(subject)
    z, y, x = (min(n, most) for n, most in zip(subject.run["block"], REGION, strict=True))
    grid = Grid(array.shape, whole_multiples((z, y, x), array.chunk))
    firsts = grid.index_at((region[0].start, region[1].start, region[2].start))
    lasts = grid.index_at((region[0].stop - 1, region[1].stop - 1, region[2].stop - 1))
    counts = [b - a + 1 for a, b in zip(firsts, lasts, strict=True)]
    total = int(np.prod(counts))
    blocks = []
    for n in random.sample(range(total), min(total, count * LOOKED_AT)):
        at = np.unravel_index(n, counts)
        index = [int(a) + f for a, f in zip(at, firsts, strict=True)]
        blocks.append(grid.block((index[0], index[1], index[2])))
    lost = [b for b in blocks if absent_shards(array, b.core)][: -(-count // 2)]
    rest = [b for b in blocks if b not in lost]
    return [intersect(b.core, region) or b.core for b in (lost + rest)[:count]]


def replace_region(plan: PredictPlan, region: Roi) -> PredictPlan:
    """Restrict a plan to a region: only the tiles that reach into it are evaluated."""
    handover = plan.handover
    return replace(plan, handover=replace(handover, roi=region))
