"""Do the whole job in one call: convert, segment, measure, report."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from volseg.api.judging import stats_all
from volseg.api.keywords import described, takes
from volseg.api.making import ConvertKeywords, Reading, convert, segment
from volseg.api.options import (
    Made,
    Measured,
    Network,
    Objects,
    Place,
    Region,
    SegmentKeywords,
    StatsKeywords,
    Writing,
)
from volseg.api.reporting import PageKeywords, ReportKeywords, check_report, report
from volseg.api.running import build, place_of, several_texts, text_of
from volseg.api.training import one_each
from volseg.errors import ParameterError, VolsegError, WorkError, command

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.report.run import ReportResult
    from volseg.stages.stats.run import VolumeStats


@described
class RunKeywords(
    Reading, Network, Objects, Made, Region, Measured, Writing, PageKeywords, total=False
):
    """Options of `run`.

    mask : Look only where these labels are above 0; coarser ones are scaled.
    """

    mask: Place | None


@dataclass(frozen=True)
class StackJob:
    """One stack of a run.

    Attributes
    ----------
    source : stack
    volume : its volume; the source itself if that is a Zarr image which needs no conversion
    """

    source: str
    volume: Path

    @property
    def converts(self) -> bool:
        """Tell whether the source has to be converted."""
        return place_of(self.source) != self.volume


@dataclass(frozen=True)
class RunReport:
    """Results of a run.

    Attributes
    ----------
    jobs : stacks and their volumes
    measured : one entry per volume
    report : page about them
    left_out : what lies beside the stacks, and holds labels or a mask
    """

    jobs: tuple[StackJob, ...]
    measured: "tuple[VolumeStats, ...]"
    report: "ReportResult"
    left_out: tuple[str, ...] = ()


@takes(RunKeywords)
def run(
    source: Place,
    volume: Place | None = None,
    *,
    on_note: Callable[[str], None] | None = None,
    progress: "Progress | None" = None,
    **options: Unpack[RunKeywords],
) -> RunReport:
    """Convert, segment and measure a stack, or each stack of a folder, and report on them.

    The same call resumes an interrupted run. If a stack of several fails, the others are finished
    first.

    Parameters
    ----------
    source : path
        Stack as `convert` takes it, or a folder or glob of stacks. A Zarr image is segmented where
        it is, and options of conversion for it are refused, unless ``volume`` is given. A plain
        Zarr array is converted.
    volume : path, optional
        Volume to create; for a folder of stacks the folder of their volumes. By default
        ``stack.zarr`` beside ``stack.tif``, and the folder ``stacks-volseg`` beside ``stacks``.
    on_note : callable, optional
        Receives what should be known of a stack and its result.

    Raises
    ------
    InputError
        If something cannot be used, or a different volume or result exists.
    WorkError
        If blocks failed, or some of several stacks.
    """
    from volseg.sources.greys import refuse_greys
    from volseg.sources.labels import find_early
    from volseg.stages.report.plan import default_output

    tell = on_note or (lambda _: None)
    jobs, left_out = plan_jobs(text_of(source), volume, options, tell)
    _check_used(jobs, options)
    output = options.get("output")
    if output is None:
        output = default_output([job.volume for job in jobs])  # whichever of them fail
    else:
        check_report(output)
    truths = one_each(several_texts(options.get("truth", ())), len(jobs), "--truth")
    for job, truth in zip(jobs, truths, strict=True):
        if truth is not None:
            refuse_greys(find_early(job.volume, truth, images=bool(options.get("images"))))
    names, failed = _segment_all(jobs, options, tell, progress)
    done = [job.volume for job in jobs if job.source not in failed]
    named = {"name": ",".join(names)}
    # the output is the page, and axes are those of the sources
    chosen = _only(options, StatsKeywords) | named | {"output": None, "axes": None}
    measured = stats_all(done, progress=progress, **chosen)
    shown = _only(options, ReportKeywords) | named | {"output": output, "axes": None}
    if any(truths):  # those of the stacks that did not fail
        pairs = zip(jobs, truths, strict=True)
        shown["truth"] = [truth for job, truth in pairs if job.source not in failed]
    page = report(done, progress=progress, **shown)
    if failed:
        raise WorkError(_failures(failed, len(jobs)))
    return RunReport(jobs, tuple(measured), page, left_out)


def _failures(failed: Mapping[str, VolsegError], jobs: int) -> str:
    rest = "; the others are done" if len(failed) < jobs else ""
    whys = "".join(f"\n  {place}: {error}" for place, error in failed.items())
    return f"{len(failed)} of {jobs} stacks failed{rest}:{whys}"


def plan_jobs(
    source: str, volume: Place | None, options: Reading, tell: Callable[[str], None]
) -> tuple[tuple[StackJob, ...], tuple[str, ...]]:
    """Say which stacks there are, which volume each becomes, and what is none; write nothing."""
    from volseg.sources.open import anchor_of, list_stacks, name_volumes
    from volseg.stages.convert.plan import ConvertOptions
    from volseg.storage.stores import is_zarr, read_array_metadata

    selection = build(ConvertOptions, _only(options, Reading)).selection
    stacks, anchor = list_stacks(source, selection), anchor_of(source)
    target = None if volume is None else place_of(volume)
    if stacks.left_out:
        tell(
            f"left out, because they hold labels or masks, and no image: "
            f"{', '.join(stacks.left_out)}; to segment one all the same, name it alone: "
            f"`{command('run', stacks.left_out[0])}`"
        )
    if stacks.folder:
        home = target or anchor.with_name(f"{anchor.name}-volseg")
        names = [home / name for name in name_volumes(stacks.places)]
    else:
        names = [target or anchor.with_name(name_volumes([str(anchor)])[0])]
    jobs = []
    for place, name in zip(stacks.places, names, strict=True):
        here = place_of(place)
        own = target is None and is_zarr(here) and read_array_metadata(here) is None
        if not own and here == name:
            raise ParameterError(
                f"{place} is a plain Zarr array, which has no place for results; give a VOLUME to "
                f"convert it to"
            )
        jobs.append(StackJob(place, here if own else name))
    return tuple(jobs), stacks.left_out


def _check_used(jobs: Sequence[StackJob], options: RunKeywords) -> None:
    """Refuse options of conversion for what is not converted, so that none is silently ignored."""
    chosen = {name: options.get(name) for name in Reading.__annotations__}
    given = [name for name, value in chosen.items() if value is not None and value is not False]
    kept = [job.source for job in jobs if not job.converts]
    if given and kept:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ParameterError(
            f"{flags} cannot change {kept[0]}, a Zarr image that is segmented where it is; leave "
            f"it out, or give a VOLUME to convert to"
        )


def _segment_all(
    jobs: Sequence[StackJob],
    options: RunKeywords,
    tell: Callable[[str], None],
    progress: "Progress | None",
) -> tuple[list[str], dict[str, VolsegError]]:
    """Bring all stacks as far as their objects; return names of results, and what failed."""
    names, failed = list[str](), dict[str, VolsegError]()
    for job in jobs:
        if len(jobs) > 1:
            tell(f"{job.source}:")
        try:
            names = _segment(job, options, _once(tell), progress)
        except VolsegError as error:
            if len(jobs) == 1:
                raise
            failed[job.source] = error
            tell(f"failed: {error}")
    if len(failed) == len(jobs):
        raise WorkError(_failures(failed, len(jobs)))
    return names, failed


def _segment(
    job: StackJob, options: RunKeywords, tell: Callable[[str], None], progress: "Progress | None"
) -> list[str]:
    """Bring one stack as far as its objects; return the names of the results."""
    if job.converts:
        _convert(job, options, tell, progress)
    report = segment(job.volume, on_note=tell, progress=progress, **_only(options, SegmentKeywords))
    for note in dict.fromkeys(n for each in report.classes.values() for n in each.notes):
        tell(note)
    return list(report.classes)


def _once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Tell each text once: conversion and segmentation both look at the slices."""
    told = set[str]()

    def tell_once(text: str) -> None:
        if text not in told:
            told.add(text)
            tell(text)

    return tell_once


def _convert(
    job: StackJob, options: RunKeywords, tell: Callable[[str], None], progress: "Progress | None"
) -> None:
    from volseg.stages.convert.plan import ConvertOptions, is_converted

    chosen = _only(options, ConvertKeywords)
    if is_converted(job.source, job.volume, build(ConvertOptions, chosen)):
        return
    with suppress(OSError):  # the conversion says what is wrong with the folder
        job.volume.parent.mkdir(exist_ok=True)
    report = convert(job.source, job.volume, progress=progress, **chosen)
    for warning in report.warnings:
        tell(warning)


def _only(options: Mapping[str, Any], group: type) -> dict[str, Any]:
    """Choose the options that a verb takes."""
    return {name: value for name, value in options.items() if name in group.__annotations__}
