"""Predict a few blocks of a volume again, cut into other blocks, and compare.

What stands in a volume must not depend on how it was cut, so the same network gives the same bytes
on the same device. Elsewhere sums round differently; `ELSEWHERE` says what is allowed then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from volseg.differences import describe_difference
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import BlockError, StorageError, VolumeError
from volseg.geometry.grid import describe
from volseg.stages.predict.plan import FORMAT, PredictPlan
from volseg.stages.predict.run import build_task, run_task
from volseg.stages.verify.findings import Finding, Skipped, first_difference, locate
from volseg.stages.verify.images import Subject
from volseg.stages.verify.plan import (
    choose_blocks,
    describe_missing,
    find_model,
    network_again,
    plan_again,
    replace_region,
)
from volseg.storage.arrays import create_array
from volseg.storage.files import discard
from volseg.storage.ledger import Ledger
from volseg.storage.remote import as_remote
from volseg.storage.scratch import HandoverStore
from volseg.storage.volumes import scratch_path
from volseg.types import Roi, Zyx

FREE = ("block", "shard", "roi", "device", "precision")
"""Parameters of a run that may differ: they do not decide a voxel's value, or hardly."""


@dataclass(frozen=True)
class Tolerance:
    """Largest differences that are allowed, in levels of 255.

    Attributes
    ----------
    largest : of any voxel.
    mean : of a region's voxels.
    """

    largest: int
    mean: float


EXACT = Tolerance(0, 0)
ELSEWHERE = Tolerance(26, 0.25)
"""For another device or precision; EM-Net in bfloat16 and in float32 differ by up to 11, mean 0.02,
over 1.2 million voxels of the bundled crop."""


@dataclass(frozen=True)
class Sampled:
    """A region that was predicted again.

    Attributes
    ----------
    array, roi : where.
    block : into which blocks it was cut this time.
    largest, mean : difference in levels of 255.
    allowed : see `Tolerance`.
    """

    array: str
    roi: str
    block: Zyx
    largest: int
    mean: float
    allowed: Tolerance


def recompute(
    volume: Path,
    subject: Subject,
    model: str | None,
    count: int,
    engine: EngineOptions,
    *,
    elsewhere: bool = False,
) -> tuple[list[Sampled], list[Finding]]:
    """Predict some blocks of a volume again and compare with what it holds.

    Parameters
    ----------
    volume : Path
    subject : complete probabilities
    model : name or path of the model; None looks for the one that is on record
    count : blocks
    engine : EngineOptions
    elsewhere : whether another machine made the probabilities

    Raises
    ------
    Skipped
        If none can be predicted again here.
    ModelError, ParameterError
        If the model that was named cannot be used, or is another one.
    """
    if subject.run.get("format") != FORMAT:
        raise Skipped(f"{subject.array} was not made by this version of volseg predict")
    if as_remote(volume) is None and not os.access(volume, os.W_OK):
        raise Skipped(f"{volume} cannot be written to, and scratch goes there")
    try:
        named = find_model(subject.image.attributes["model"], model)
        if named is None:
            raise Skipped(describe_missing(subject))
        options = network_again(subject, named, engine)
        plan, same = plan_again(volume, subject, options)
        theirs = {k: v for k, v in subject.run.items() if k not in FREE}
        ours = {k: v for k, v in plan.outputs[-1].header.items() if k not in FREE}
        chosen = choose_blocks(subject, count)
    except (KeyError, TypeError, ValueError, VolumeError) as error:
        message = f"its parameters cannot be used: {error!r}"
        return [], [Finding("metadata", subject.array, message)]
    if theirs != ours:
        message = f"it was predicted from something else: {describe_difference(theirs, ours)}"
        return [], [Finding("origin", subject.array, message)]
    allowed = EXACT if same and not elsewhere else ELSEWHERE
    again = [_compare(volume, subject, replace_region(plan, b), allowed) for b in chosen]
    return [s for s, _ in again if s is not None], [f for _, f in again if f is not None]


def _compare(
    volume: Path, subject: Subject, plan: PredictPlan, allowed: Tolerance
) -> tuple[Sampled | None, Finding | None]:
    """Predict a region in scratch and compare it."""
    stored, region = subject.image.levels[0], plan.handover.roi
    scratch = scratch_path(volume) / f"verify-{subject.name}-{os.getpid()}"
    try:
        found = stored[region].astype(np.int16)
        expected = _predict(plan, scratch, region).astype(np.int16)
    except (BlockError, StorageError) as error:
        message = f"it cannot be predicted again: {' '.join(str(error).split())}"
        return None, Finding("probabilities", subject.array, message, 0, roi=describe(region))
    finally:
        discard(scratch)
    off = np.abs(found - expected)
    largest, mean = int(off.max()), float(off.mean())
    block, at = plan.handover.grid.size, describe(region)
    sampled = Sampled(subject.array, at, block, largest, mean, allowed)
    if largest <= allowed.largest and mean <= allowed.mean:
        return sampled, None
    threshold = allowed.largest if largest > allowed.largest else 0
    differing = first_difference(off > threshold, np.zeros(off.shape, bool))
    voxel, count = differing or ((0, 0, 0), 0)
    finding = locate("probabilities", subject.array, 0, stored, region, voxel)
    message = (
        f"found {found[voxel]}, predicted again {expected[voxel]}; off by up to {largest} of 255, "
        f"mean {mean:.2g}, allowed {allowed.largest}, mean {allowed.mean:g}; voxels that differ in "
        f"{at}: {count}"
    )
    if largest <= ELSEWHERE.largest and mean <= ELSEWHERE.mean:
        message += "; if another machine made them, --elsewhere allows for how it rounds"
    return sampled, replace(finding, message=message)


def _predict(plan: PredictPlan, scratch: Path, region: Roi) -> Any:
    discard(scratch)
    output = create_array(scratch / "probabilities", plan.spec)
    arrays = [None, output] if plan.choice.centerline else [output]
    task = build_task(plan, arrays, HandoverStore(scratch / "handovers"))
    with Ledger.open(scratch / "ledger.jsonl", plan.mask.header) as ledger:
        run_task(task, ledger, plan.engine, NoProgress())
    return output[region]
