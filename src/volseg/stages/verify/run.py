"""Verify: what a volume holds is readable, complete, and what its own attributes say.

Everything is read block by block, and nothing is changed; memory does not depend on the volume.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.defaults import CONNECTIVITY, SAMPLE
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks, same_workers
from volseg.errors import ParameterError
from volseg.geometry.grid import Block, Grid, whole_multiples
from volseg.stages.levels import step_factor
from volseg.stages.verify.advice import advise
from volseg.stages.verify.findings import Finding, Findings, Skipped
from volseg.stages.verify.images import Subject, check_attributes, check_ledger, find_subjects
from volseg.stages.verify.labels import CheckLabels, LabelsChecked
from volseg.stages.verify.objects import (
    ObjectCount,
    RecordedRules,
    promised_objects,
    recorded_rules,
)
from volseg.stages.verify.relabel import CompareLabels, relabelled
from volseg.stages.verify.sample import Sampled, recompute
from volseg.stages.verify.tasks import CheckLevel, LevelChecked, check_intensities
from volseg.types import Zyx

BLOCK: Zyx = (64, 512, 512)
LABEL_FORMATS = {2}
"""Formats of labels whose objects are numbered by their first voxels."""
COUNTED = {"uint8", "uint16", "int16", "float32"}
COUNTED_ONLY = RecordedRules(level=1, connectivity=CONNECTIVITY, min_size=0)
"""Stands for rules that are not known: labels are then counted, and compared with nothing."""


@dataclass(frozen=True)
class VerifyOptions:
    """Choices for a verification.

    Attributes
    ----------
    quick : read everything, compare nothing.
    sample : blocks of each array of probabilities that are predicted again.
    model : name or path of the model for that; None looks for the one that is on record.
    elsewhere : allow for how another machine rounds, see `volseg.stages.verify.sample.ELSEWHERE`.
    block : voxels per task, rounded up to whole chunks.
    engine : workers and scheduler.
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
    ok : nothing is wrong.
    arrays : that were verified.
    voxels : that could be read, of all levels.
    failures : everything that is wrong, counted.
    findings : the first few of each kind in each level.
    sampled : what was predicted again.
    skipped : what could not be verified, and why.
    advice : what mends it.
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
    """Verify a volume and all results in it.

    Parameters
    ----------
    volume : Path
    options : VerifyOptions
    progress : Progress

    Returns
    -------
    VerifyReport
        Damage is reported, not raised.

    Raises
    ------
    InputError
        If the volume cannot be opened, or the model that was named is not the one on record.
    """
    begun = time.monotonic()
    subjects, unusable = find_subjects(volume)
    run = VerifyRun(volume, options, progress)
    run.findings.add(unusable)
    run.findings.add(check_attributes(subjects))
    with same_workers(options.engine):
        for subject in subjects:
            run.findings.add(check_ledger(volume, subject))
            run.check_levels(subject)
        if not options.quick:
            run.check_results(subjects)
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
        compared = judged
        if judged and not subject.ours and len(image.levels) > 1:
            compared = False
            self.skipped.append(f"{subject.array}: volseg did not make its pyramid")
        histogram = image.attributes.get("histogram") if judged else None
        for k, fine in enumerate(image.levels):
            last = k + 1 == len(image.levels)
            factor = (1, 1, 1) if last else step_factor(image, k + 1)
            task = CheckLevel(
                subject.array,
                k,
                fine,
                image.levels[k + 1] if compared and not last else None,
                factor,
                subject.kind == "labels",
                bool(histogram) and k == 0 and fine.dtype.name in COUNTED,
            )
            counts = self._check_level(task)
            if counts is not None:
                self.findings.add(check_intensities(fine, counts, histogram))

    def _check_level(self, task: CheckLevel) -> NDArray[np.int64] | None:
        """Check a level; return how often each intensity occurs, if all could be read."""
        unit = [math.lcm(c, f) for c, f in zip(task.fine.chunk, task.factor, strict=True)]
        total: list[NDArray[np.int64] | None] = []

        def on_result(_: Block, found: LevelChecked) -> None:
            self.voxels += found.voxels
            self.findings.add(found.findings)
            counted = found.counts
            before = total.pop() if total else np.int64(0)
            total.append(None if counted is None or before is None else before + counted)

        size = self._size((unit[0], unit[1], unit[2]))
        self._run(task, Grid(task.fine.shape, size), on_result, f"{task.array}, level {task.level}")
        return total[0] if task.counted else None

    def check_results(self, subjects: list[Subject]) -> None:
        """Compare labels with probabilities, and probabilities with the network's."""
        known = {s.array: s for s in subjects}
        for subject in subjects:
            if subject.kind == "labels" and subject.complete:
                self._check_labels(subject, known.get(f"probabilities/{subject.name}"))
        for subject in subjects:
            if subject.kind == "probabilities" and subject.complete and self.options.sample:
                self._predict_again(subject)

    def _check_labels(self, subject: Subject, source: Subject | None) -> None:
        labels, run = subject.image.levels[0], subject.run
        rules = recorded_rules(run)
        if rules is None:
            if not run:
                self.skipped.append(f"{subject.array}: no record says by which rules it was made")
                return
            with self._skipping():
                self._label_again(subject)
            source = None
        objects = promised_objects(subject.image.attributes, math.prod(labels.shape))
        if objects is None:
            message = "its attributes do not say how many objects there are"
            self.findings.add([Finding("metadata", subject.array, message)])
            return
        compared = source is not None and source.complete
        if rules and (not compared or self.findings.has("origin", subject.array, -1)):
            self.skipped.append(f"{subject.array}: the probabilities it was made from are gone")
            source = None
        array = source.image.levels[0] if source is not None else None
        task = CheckLabels(subject.array, labels, array, rules or COUNTED_ONLY)
        count = ObjectCount(subject.array, labels.shape, objects)

        undecided = []

        def on_result(block: Block, found: LabelsChecked) -> None:
            self.findings.add(found.findings)
            count.add(found.tally)
            undecided.extend([block] if found.undecided else [])

        grid = Grid(labels.shape, self._size(labels.chunk))
        self._run(task, grid, on_result, f"{subject.array}, objects")
        if undecided:
            self.skipped.append(
                f"{subject.array}: what has no label but may be an object reaches too far to tell, "
                f"in {len(undecided)} block(s), such as {undecided[0]}"
            )
        ordered = rules is not None and run.get("format") in LABEL_FORMATS
        smallest = 0 if rules is None else rules.min_size
        self.findings.add(count.findings(smallest, ordered=ordered))

    def _label_again(self, subject: Subject) -> None:
        labels = subject.image.levels[0]

        def on_result(_: Block, found: tuple[Finding, ...]) -> None:
            self.findings.add(found)

        grid = Grid(labels.shape, self._size(labels.chunk))
        with relabelled(self.volume, subject, self.options.engine) as again:
            task = CompareLabels(subject.array, labels, again)
            self._run(task, grid, on_result, f"{subject.array}, labelled again")

    def _predict_again(self, subject: Subject) -> None:
        if not subject.run:
            self.skipped.append(f"{subject.array}: no record says which model made it")
            return
        model, sample, engine = self.options.model, self.options.sample, self.options.engine
        elsewhere = self.options.elsewhere
        with self._skipping():
            sampled, findings = recompute(
                self.volume, subject, model, sample, engine, elsewhere=elsewhere
            )
            self.sampled += sampled
            self.findings.add(findings)

    @contextmanager
    def _skipping(self) -> Iterator[None]:
        try:
            yield
        except Skipped as skipped:
            self.skipped.append(str(skipped))

    def _size(self, unit: Zyx) -> Zyx:
        return whole_multiples(self.options.block, unit)

    def _run(self, task: Any, grid: Grid, on_result: Any, title: str) -> None:
        voxels = math.prod(grid.shape)
        job = Job(self.progress, voxels, "voxels", f"verifying {title}", size=core_voxels)
        engine = self.options.engine
        run_blocks(task, grid.blocks(), engine, on_result=on_result, progress=job)
