"""Predict a few blocks of a volume again, cut into other blocks, and compare.

What stands in a volume must not depend on how it was cut, so the same network gives the same bytes
on the same device. Elsewhere sums round differently; `OTHER_DEVICE` says what is allowed then.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from volseg.blocks import Block, Grid, intersect, whole_multiples
from volseg.errors import BlockError, ParameterError, StorageError
from volseg.handover import Handover
from volseg.io.arrays import create_array, describe
from volseg.io.ledger import Ledger, describe_difference
from volseg.io.pieces import Pieces
from volseg.io.volumes import scratch_path, volume_tone
from volseg.io.weights import load_card, shipped_models
from volseg.models.inference import choose_device, choose_precision
from volseg.stages.engine import EngineOptions
from volseg.stages.predict import PredictRun
from volseg.stages.predict_block import PredictTask
from volseg.stages.predict_plan import (
    FORMAT,
    PredictOptions,
    PredictPlan,
    choose_network,
    plan_prediction,
)
from volseg.stages.progress import NoProgress
from volseg.stages.results import discard
from volseg.stages.verify_block import absent_shards
from volseg.stages.verify_findings import Finding, first_difference, locate
from volseg.stages.verify_images import Subject, recorded_roi
from volseg.types import Roi, Zyx

OTHER_DEVICE = 8
"""Levels of 255 by which probabilities may differ from those of another device or precision."""
LOOKED_AT = 32
"""Blocks that are looked at for each that is chosen: one that is absent is worth predicting."""
FREE = ("block", "shard", "roi", "device", "precision")
"""What of a run's parameters may differ: they do not decide what a voxel holds, or hardly."""


@dataclass(frozen=True)
class Sampled:
    """A region that was predicted again.

    Attributes
    ----------
    array, roi : where.
    block : into which blocks it was cut this time.
    largest : difference of any voxel, in levels of 255.
    allowed : difference.
    """

    array: str
    roi: str
    block: Zyx
    largest: int
    allowed: int


@dataclass(frozen=True)
class Recomputed:
    """What came of it; ``skipped`` says why nothing did."""

    sampled: tuple[Sampled, ...] = ()
    findings: tuple[Finding, ...] = ()
    skipped: str | None = None


def recompute(
    volume: Path, subject: Subject, model: str | None, count: int, engine: EngineOptions
) -> Recomputed:
    """Predict some blocks of a volume again and compare with what it holds.

    Parameters
    ----------
    volume : Path
    subject : complete probabilities
    model : name or path of the model; None looks for the one that is on record
    count : blocks
    engine : EngineOptions

    Raises
    ------
    ModelError, ParameterError
        If the model that was named cannot be used, or is another one.
    """
    if subject.run.get("format") != FORMAT:
        return Recomputed(skipped=f"{subject.array} was not made by this version of volseg predict")
    if not os.access(volume, os.W_OK):
        return Recomputed(skipped=f"{volume} cannot be written to, and scratch goes there")
    try:
        named = find_model(subject.image.attributes["model"], model)
        if named is None:
            return Recomputed(skipped=_missing_model(subject))
        plan, allowed = plan_again(volume, subject, named, engine)
        theirs = {k: v for k, v in subject.run.items() if k not in FREE}
        ours = {k: v for k, v in plan.header.items() if k not in FREE}
        chosen = choose_blocks(subject, count)
    except (KeyError, TypeError, ValueError) as error:
        message = f"its parameters cannot be used: {error!r}"
        return Recomputed(findings=(Finding("metadata", subject.array, message),))
    if theirs != ours:
        message = f"it was predicted from something else: {describe_difference(theirs, ours)}"
        return Recomputed(findings=(Finding("origin", subject.array, message),))
    network = _network(subject, named, engine)
    again = [_compare(volume, subject, replace_region(plan, b), network, allowed) for b in chosen]
    return Recomputed(
        tuple(s for s, _ in again if s is not None),
        tuple(f for _, f in again if f is not None),
    )


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


def _missing_model(subject: Subject) -> str:
    record = subject.image.attributes["model"]
    return (
        f"{subject.array}: no block was predicted again, for the model {record['name']!r} with the "
        f"sha256 {record['sha256'][:12]}... does not come with volseg; name it with --model"
    )


def _network(subject: Subject, model: str, engine: EngineOptions) -> PredictOptions:
    """Say how the probabilities were made, as far as this machine can do the same."""
    run = subject.run
    device, precision = run["device"], run["precision"]
    try:
        choose_device(device)
    except ParameterError:
        device = "cpu"
    tta, rotations, views = run["averaged"]
    return PredictOptions(
        model,
        subject.name,
        block=other_block(subject),
        shard=subject.image.levels[0].chunk,
        device=device,
        precision=precision if device == run["device"] else "auto",
        tta=tta,
        rotations=rotations,
        views=views,
        engine=engine,
    )


def other_block(subject: Subject) -> Zyx:
    """Choose another block size than that of the run: half of it, or twice where it is a chunk."""
    z, y, x = subject.run["block"]
    chunk = subject.image.levels[0].chunk
    half = whole_multiples((-(-z // 2), -(-y // 2), -(-x // 2)), chunk)
    return half if half != (z, y, x) else (2 * z, 2 * y, 2 * x)


def plan_again(
    volume: Path, subject: Subject, model: str, engine: EngineOptions
) -> tuple[PredictPlan, int]:
    """Plan the same prediction; return it, and how far its result may be off."""
    options = _network(subject, model, engine)
    plan = plan_prediction(volume, options)
    device = choose_device(options.device)
    precision = str(choose_precision(options.precision, device)).removeprefix("torch.")
    same = (device.type, precision) == (subject.run["device"], subject.run["precision"])
    return plan, 0 if same else OTHER_DEVICE


def choose_blocks(subject: Subject, count: int) -> list[Roi]:
    """Choose blocks of the run at random; up to half are such as are not there.

    Absent blocks are all 0, which networks hardly ever say of a whole block: a lost one is found.
    """
    array, region = subject.image.levels[0], recorded_roi(subject)
    z, y, x = subject.run["block"]
    grid = Grid(array.shape, (z, y, x))
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
    return [_clipped(b, region) for b in (lost + rest)[:count]]


def _clipped(block: Block, region: Roi) -> Roi:
    return intersect(block.core, region) or block.core


def replace_region(plan: PredictPlan, region: Roi) -> PredictPlan:
    """Restrict a plan to a region: only the tiles that reach into it are evaluated."""
    handover = plan.handover
    return replace(plan, handover=Handover(handover.grid, handover.lattice, region))


def _compare(
    volume: Path, subject: Subject, plan: PredictPlan, options: PredictOptions, allowed: int
) -> tuple[Sampled | None, Finding | None]:
    """Predict a region in scratch and compare it."""
    stored, region = subject.image.levels[0], plan.handover.roi
    scratch = scratch_path(volume) / f"verify-{subject.name}-{os.getpid()}"
    try:
        found = stored[region].astype(np.int16)
        expected = _predict(plan, options, scratch, region).astype(np.int16)
    except (BlockError, StorageError) as error:
        message = f"it cannot be predicted again: {error}"
        return None, Finding("probabilities", subject.array, message, 0, roi=describe(region))
    finally:
        discard(scratch)
    off = np.abs(found - expected)
    largest = int(off.max())
    block = plan.handover.grid.size
    sampled = Sampled(subject.array, describe(region), block, largest, allowed)
    differing = first_difference(off > allowed, np.zeros(off.shape, bool))
    if differing is None:
        return sampled, None
    voxel, count = differing
    finding = locate("probabilities", subject.array, 0, stored, region, voxel)
    message = (
        f"found {found[voxel]}, predicted again {expected[voxel]}; off by up to {largest} of 255, "
        f"allowed {allowed}; voxels that differ in {finding.roi}: {count}"
    )
    return sampled, replace(finding, message=message)


def _predict(plan: PredictPlan, options: PredictOptions, scratch: Path, region: Roi) -> Any:
    discard(scratch)
    ledger = Ledger.open(scratch / "ledger.jsonl", plan.header)
    output = create_array(scratch / "probabilities", plan.spec)
    task = PredictTask(
        raw=plan.image.levels[plan.level],
        factor=plan.image.factors[plan.level],
        output=output,
        handover=plan.handover,
        pieces=Pieces(scratch / "pieces"),
        tone=volume_tone(plan.image, plan.card.preprocessing),
        margin=plan.margin,
        choice=choose_network(plan, options),
    )
    PredictRun(task, ledger, NoProgress()).run(options.engine)
    return output[region]
