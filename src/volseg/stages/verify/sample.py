"""Predict a few blocks of a volume again, cut into other blocks, and compare.

What stands in a volume must not depend on how it was cut, so the same network gives the same bytes
on the same device. Elsewhere sums round differently; `ELSEWHERE` says what is allowed then.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from volseg.differences import describe_difference
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import BlockError, ParameterError, StorageError, VolumeError
from volseg.geometry.grid import Grid, cut_blocks, describe, whole_multiples
from volseg.models.compiled import OPENVINO, check_compiled
from volseg.models.devices import PRECISIONS, TF32, choose_device, choose_precision
from volseg.models.maps import CENTERLINE, CONTOUR, DISTANCE, OFFSETS
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.outputs import OF_CLASS
from volseg.stages.predict.plan import FORMAT, PredictPlan, plan_prediction
from volseg.stages.predict.run import build_task, run_task
from volseg.stages.verify.findings import Finding, Skipped, find_first, scratch_for
from volseg.stages.verify.images import Subject, recorded_roi
from volseg.stages.verify.tasks import absent_shards
from volseg.storage.arrays import create_array
from volseg.storage.ledger import Ledger
from volseg.storage.predictions import KIND, find_recorded
from volseg.storage.scratch import HandoverStore
from volseg.storage.volumes import open_image
from volseg.types import Roi, Zyx

ROUNDING = ("device", "precision", "batch", "gpu")
"""Parameters on which the rounding of sums depends."""
FREE = ("block", "shard", "roi", *ROUNDING)
"""Parameters of a run that may differ: they do not decide a voxel's value, or hardly."""
REGION: Zyx = (64, 256, 256)
"""Voxels of a sampled block, at most: a network takes seconds to minutes for more."""
LOOKED_AT = 32
"""Blocks that are looked at for each that is chosen: one that is absent is worth predicting."""


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
FORMERLY = Tolerance(1, 0.01)
"""Of resampled voxels: former versions summed in another order (decision 0071)."""
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
) -> Iterator[Sampled | Finding]:
    """Predict some blocks of a volume again and compare with what it holds."""
    run = subject.run
    if "imported" in run:
        raise Skipped("another program made it, so that nothing is predicted again")
    if run.get("format") != FORMAT:
        raise Skipped("it was not made by this version of volseg predict")
    try:
        named = _find_model(subject.image.attributes["model"], model)
        plan = plan_again(volume, subject, named, engine)
        output = next(o for o in plan.outputs if o.header.get(KIND) == run.get(KIND))
        plan, header = replace(plan, outputs=(output,)), output.header
        theirs, ours = ({k: v for k, v in h.items() if k not in FREE} for h in (run, header))
        same = all(header.get(key) == run.get(key) for key in ROUNDING)
        chosen = choose_blocks(subject, count)
    except (KeyError, StopIteration, TypeError, ValueError, VolumeError) as error:
        why = f": {error}" if isinstance(error, VolumeError) else ""
        yield Finding("metadata", subject.array, f"its parameters cannot be used{why}")
        return
    if theirs != ours:
        message = f"it was predicted from something else: {describe_difference(theirs, ours)}"
        yield Finding("origin", subject.array, message)
        return
    allowed = (FORMERLY if plan.resampled else EXACT) if same and not elsewhere else ELSEWHERE
    for region in chosen:
        yield from _compare(volume, subject, plan, region, allowed)


def _find_model(record: Mapping[str, Any], model: str | None) -> str:
    found = find_recorded(record, model)
    if found is None:
        raise Skipped(
            f"no block was predicted again, for the model {record['name']!r} with the sha256 "
            f"{record['sha256'][:12]}... does not come with volseg; name it with --model"
        )
    return found


def plan_on_record(volume: Path, probabilities: Path, model: str | None) -> PredictPlan | None:
    """Plan the prediction that made probabilities again; None if it or its model is not known."""
    image = open_image(probabilities)
    subject = Subject("probabilities", f"probabilities/{probabilities.name}", image)
    try:
        named = _find_model(image.attributes["model"], model)
        return plan_again(volume, subject, named, EngineOptions(), exact=False)
    except (Skipped, KeyError, TypeError, ValueError, VolumeError):
        return None


def _usable_device(device: str, precision: str, *, exact: bool) -> tuple[str, str]:
    """Return device and precision of a run, or what comes near if this machine lacks the device."""
    if device == OPENVINO:
        try:
            check_compiled(precision)
        except ParameterError as error:
            if exact:
                raise Skipped(f"no block was predicted again: {error}") from error
            return "cpu", "float32"
        return device, precision
    if precision not in PRECISIONS:
        raise VolumeError(f"no precision is called {precision!r}")
    try:
        choose_precision(precision, choose_device(device))
    except ParameterError:
        return "cpu", "float32" if precision == TF32 else precision
    return device, precision


def plan_again(
    volume: Path, subject: Subject, model: str, engine: EngineOptions, *, exact: bool = True
) -> PredictPlan:
    """Plan the same prediction in other blocks, on a CPU if this machine lacks the GPU for it.

    What OpenVINO made is ``Skipped`` without it, unless it need not be exact.

    Raises
    ------
    KeyError, TypeError, ValueError, VolumeError
        If what is on record is no prediction, or the volume cannot be predicted from any more.
    """
    run, chunk = subject.run, subject.image.levels[0].chunk
    device, precision = _usable_device(run["device"], run["precision"], exact=exact)
    tta, rotations, views = run["averaged"]
    # half the blocks, or twice those of one chunk
    z, y, x = run["block"]
    half = whole_multiples((-(-z // 2), -(-y // 2), -(-x // 2)), chunk)
    options = PredictOptions(
        model,
        subject.name,
        block=half if half != (z, y, x) else (2 * z, 2 * y, 2 * x),
        shard=chunk,
        tile=tuple(run["tile"]) if "tile" in run else None,
        device=device,
        precision=precision,
        tta=tta,
        rotations=rotations,
        views=views,
        mask=run.get("mask", {}).get("labels"),
        normalise=run.get("normalise", {}).get("by", "volume"),
        invert=run.get("invert", False),
        zoom=run.get("zoom", 1.0),
        store_centerline=run.get(KIND) == CENTERLINE,
        store_contour=run.get(KIND) in {CONTOUR, DISTANCE},
        store_offset=run.get(KIND) in OFFSETS,
        classes=(run[OF_CLASS],) if OF_CLASS in run else None,
        images=subject.image.space.planar,
        engine=engine,
    )
    if "batch" in run and device == run["device"]:
        options = replace(options, batch=int(run["batch"]))
    try:
        return plan_prediction(volume, options)
    except ParameterError as error:
        raise ValueError(str(error)) from error


def choose_blocks(subject: Subject, count: int) -> list[Roi]:
    """Choose blocks at random, no larger than those of the run; up to half of them were lost.

    What is not there reads as 0, which a network hardly ever says of a whole block.
    """
    array = subject.image.levels[0]
    z, y, x = (min(n, most) for n, most in zip(subject.run["block"], REGION, strict=True))
    grid = Grid(array.shape, whole_multiples((z, y, x), array.chunk))
    blocks = cut_blocks(grid, recorded_roi(subject))
    looked_at = [b.core for b in random.sample(blocks, min(len(blocks), count * LOOKED_AT))]
    lost = [roi for roi in looked_at if absent_shards(array, roi)][: -(-count // 2)]
    return (lost + [roi for roi in looked_at if roi not in lost])[:count]


def _compare(
    volume: Path, subject: Subject, plan: PredictPlan, region: Roi, allowed: Tolerance
) -> Iterator[Sampled | Finding]:
    """Predict a region in scratch and compare it."""
    stored, at = subject.image.levels[0], describe(region)
    handover = replace(plan.handover, roi=region)
    try:
        found = stored[region].astype(np.int16)
        with scratch_for(volume, subject.name) as folder:
            expected = _predict(replace(plan, handover=handover), folder)[region].astype(np.int16)
    except (BlockError, StorageError) as error:
        message = f"it cannot be predicted again: {' '.join(str(error).split())}"
        yield Finding("probabilities", subject.array, message, 0, roi=at)
        return
    largest, mean = int((off := np.abs(found - expected)).max()), float(off.mean())
    yield Sampled(subject.array, at, handover.grid.size, largest, mean, allowed)
    if largest <= allowed.largest and mean <= allowed.mean:
        return
    how = f"off by up to {largest} of 255, mean {mean:.2g}, allowed {allowed.largest}, mean "
    how += f"{allowed.mean:g}"
    rounded = largest <= ELSEWHERE.largest and mean <= ELSEWHERE.mean
    hint = "; --elsewhere allows for another machine or number of threads that made them" * rounded
    (finding,) = find_first(
        ("probabilities", subject.array, 0),
        stored,
        region,
        off > (allowed.largest if largest > allowed.largest else 0),
        lambda voxel: f"found {found[voxel]}, predicted again {expected[voxel]}; {how}",
    )
    yield replace(finding, message=finding.message + hint)


def _predict(plan: PredictPlan, folder: Path) -> Any:
    output = create_array(folder / "probabilities", plan.spec)
    task = build_task(plan, {plan.mask.place: output}, HandoverStore(folder / "handovers"))
    with Ledger.open(folder / "ledger.jsonl", plan.mask.header) as ledger:
        run_task(task, ledger, plan.options.engine, NoProgress())
    return output
