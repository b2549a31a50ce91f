"""Verify: what a volume holds is readable, complete, and what its own attributes say.

Everything is read block by block, and nothing is changed; memory does not depend on the volume.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.defaults import SAMPLE
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks, same_workers
from volseg.errors import ParameterError, WorkError
from volseg.geometry.grid import Block, Grid, whole_multiples
from volseg.stages.levels import step_factor
from volseg.stages.verify.advice import advise
from volseg.stages.verify.findings import Finding, Findings, Skipped, scratch_for
from volseg.stages.verify.images import Subject, check_attributes, check_ledger, find_subjects
from volseg.stages.verify.relabel import relabel
from volseg.stages.verify.tasks import (
    CheckLevel,
    LevelChecked,
    check_intensities,
    compare_copy,
    compare_labels,
)
from volseg.storage.copies import copy_lies_elsewhere, is_copied, is_unfinished
from volseg.types import Zyx

if TYPE_CHECKING:
    from volseg.stages.verify.sample import Sampled

BLOCK: Zyx = (64, 512, 512)
COUNTED = {"uint8", "uint16", "int16", "float32"}


@dataclass(frozen=True)
class VerifyOptions:
    """Choices for a verification; see `volseg.api.judging.VerifyKeywords`.

    ``elsewhere`` allows for `volseg.stages.verify.sample.ELSEWHERE`; ``block`` is rounded up to
    whole chunks.
    """

    quick: bool = False
    sample: int = SAMPLE
    model: str | None = None
    elsewhere: bool = False
    block: Zyx = BLOCK
    engine: EngineOptions = field(default_factory=EngineOptions)

    def __post_init__(self) -> None:
        if self.sample < 0:
            raise ParameterError(f"sample must not be negative, found {self.sample}")


@dataclass(frozen=True)
class VerifyReport:
    """Result of a verification.

    Attributes
    ----------
    voxels : that could be read, of all levels.
    findings : the first few of each kind in each level.
    skipped : what could not be verified, and why.
    """

    ok: bool
    arrays: tuple[str, ...]
    voxels: int
    failures: int
    findings: tuple[Finding, ...]
    sampled: tuple[Sampled, ...]
    skipped: tuple[str, ...]
    seconds: float
    advice: tuple[str, ...] = ()


def verify(volume: Path, options: VerifyOptions, progress: Progress) -> VerifyReport:
    """Verify a volume and all results in it; damage is reported, not raised."""
    begun = time.monotonic()
    subjects, unusable = find_subjects(volume)
    run = VerifyRun(volume, options, progress)
    run.findings.add(unusable)
    run.findings.add(check_attributes(subjects))
    with same_workers(options.engine):
        for subject in subjects:
            run.findings.add(check_ledger(volume, subject))
            run.check_levels(subject)
            run.check_copy(subject)
        for subject in subjects:
            run.check_result(subject)
    return VerifyReport(
        run.findings.total == 0,
        tuple(s.array for s in subjects),
        run.voxels,
        run.findings.total,
        run.findings.listed(),
        tuple(run.sampled),
        tuple(run.skipped),
        time.monotonic() - begun,
        tuple(advise(volume, run.findings.listed(), subjects)),
    )


@dataclass
class VerifyRun:
    """The client's side of a run: what has been found so far."""

    volume: Path
    options: VerifyOptions
    progress: Progress
    findings: Findings = field(default_factory=Findings)
    sampled: list[Sampled] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    voxels: int = 0

    def check_levels(self, subject: Subject) -> None:
        """Read all levels of an image, and compare each with the one before."""
        image, judged = subject.image, not self.options.quick and subject.complete
        compared = judged and (subject.ours or len(image.levels) == 1)
        if judged and not compared:
            self.skipped.append(f"{subject.array}: volseg did not make its pyramid")
        histogram = image.attributes.get("histogram") if judged else None
        for k, fine in enumerate(image.levels):
            last = k + 1 == len(image.levels)
            task = CheckLevel(
                subject.array,
                k,
                fine,
                image.levels[k + 1] if compared and not last else None,
                (1, 1, 1) if last else step_factor(image, k + 1),
                label=subject.kind == "labels",
                counted=bool(histogram) and k == 0 and fine.dtype.name in COUNTED,
                highest=subject.highest if judged and subject.run and k == 0 else None,
            )
            counts = self._check_level(task)
            if task.counted and counts is not None:
                self.findings.add(check_intensities(fine, counts, histogram))

    def _check_level(self, task: CheckLevel) -> Any:
        """Check a level; return how often each intensity occurs, None if not all can be read."""
        z, y, x = (math.lcm(c, f) for c, f in zip(task.fine.chunk, task.factor, strict=True))
        total: Any = 0

        def on_result(_: Block, found: LevelChecked) -> None:
            nonlocal total
            self.voxels += found.voxels
            self.findings.add(found.findings)
            total = None if found.counts is None or total is None else total + found.counts

        grid = Grid(task.fine.shape, whole_multiples(self.options.block, (z, y, x)))
        self._run(task, grid, on_result, f"{task.array}, level {task.level}")
        return total

    def check_copy(self, subject: Subject) -> None:
        """Compare all levels with their copies as Zarr v2, where there are any."""
        if is_unfinished(subject.image.path):
            self.skipped.append(f"{subject.array}: its copy as Zarr v2 is unfinished")
        elif not self.options.quick and is_copied(subject.image.path):
            if copy_lies_elsewhere(subject.image):
                message = "its copy as Zarr v2 states other sizes, places or levels"
                self.findings.add([Finding("copy", subject.array, message)])
            for k, level in enumerate(subject.image.levels):
                grid = Grid(level.shape, whole_multiples(self.options.block, level.chunk))
                task = partial(compare_copy, subject.array, k, level)
                self._run(task, grid, self._note, f"{subject.array}, copy of level {k}")

    def _note(self, _: Block, found: tuple[Finding, ...]) -> None:
        self.findings.add(found)

    def check_result(self, subject: Subject) -> None:
        """Compare a result with the same made again, unless nothing is to be compared."""
        if self.options.quick or not subject.complete:
            return
        try:
            if subject.kind == "labels":
                self._label_again(subject)
            elif subject.kind == "probabilities" and self.options.sample:
                self._predict_again(subject)
        except Skipped as skipped:
            self.skipped.append(f"{subject.array}: {skipped}")

    def _label_again(self, subject: Subject) -> None:
        labels, engine = subject.image.levels[0], self.options.engine
        if not subject.run:
            raise Skipped("no record says by which rules it was made")
        with scratch_for(self.volume, subject.name) as folder:
            try:
                again, objects = relabel(self.volume, folder, subject, engine, self.progress)
            except (OSError, WorkError) as error:
                message = f"it could not be made again: {' '.join(str(error).split())}"
                if any(f.array == f"probabilities/{subject.name}" for f in self.findings.listed()):
                    raise Skipped(message) from error
                self.findings.add([Finding("incomplete", subject.array, message)])
                return
            if subject.objects is not None and subject.objects != objects:
                message = f"its attributes say {subject.objects} objects, expected {objects}"
                self.findings.add([Finding("objects", subject.array, message)])
            grid = Grid(labels.shape, whole_multiples(self.options.block, labels.chunk))
            task = partial(compare_labels, subject.array, labels, again)
            self._run(task, grid, self._note, f"{subject.array}, labelled again")

    def _predict_again(self, subject: Subject) -> None:
        if not subject.run:
            raise Skipped("no record says which model made it")
        from volseg.stages.verify.sample import recompute  # heavy, and only samples need it

        model, sample, engine = self.options.model, self.options.sample, self.options.engine
        elsewhere = self.options.elsewhere
        for found in recompute(self.volume, subject, model, sample, engine, elsewhere=elsewhere):
            if isinstance(found, Finding):
                self.findings.add([found])
            else:
                self.sampled.append(found)

    def _run(self, task: Any, grid: Grid, on_result: Any, title: str) -> None:
        voxels = math.prod(grid.shape)
        job = Job(self.progress, voxels, "voxels", f"verifying {title}", size=core_voxels)
        engine = self.options.engine
        run_blocks(task, grid.blocks(), engine, on_result=on_result, progress=job)
