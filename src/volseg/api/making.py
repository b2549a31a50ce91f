"""Make results: a volume of a stack, probabilities and objects of a volume, corrected ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import (
    Objects,
    Place,
    Result,
    Running,
    SegmentKeywords,
    SourceSize,
    Threads,
    Writing,
)
from volseg.api.running import build, divide, file_of, place_of, shown, text_of
from volseg.defaults import NAME
from volseg.errors import ParameterError

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.apply.run import ApplyReport
    from volseg.stages.convert.plan import ConvertReport
    from volseg.stages.label.run import LabelReport
    from volseg.stages.segment.estimate import SegmentEstimate
    from volseg.stages.segment.run import SegmentPlan, SegmentReport


@described
class Reading(SourceSize, total=False):
    """Choices among what a source holds; see ``docs/formats.md``.

    channel : Take this channel of a source of several, counted from 0.
    time : Take this volume of a time series, counted from 0.
    series : Take this image of a file of several, counted from 0.
    axes : Name the axes of the source, slowest first, such as CZYX, where it does not say.
    pad : Pad slices that differ in size to the largest, with 0 at the right and below.
    crop : Cut slices that differ in size to the smallest, at the right and below.
    images : Take slices as unrelated images, of any sizes and colours, and note that: nothing is
        joined over z, and each is seen by its own brightness.
    grey : Make greys of colours, as --images does.
    fill_value : Take areas of this value as missing data, however small; NaN becomes it.
    """

    channel: int | None
    time: int | None
    series: int | None
    axes: str | None
    pad: bool
    crop: bool
    images: bool
    grey: bool
    fill_value: float | None


@described
class ConvertKeywords(Reading, Threads, total=False):
    """Options of `convert`.

    overwrite : Replace a volume that exists.
    dry_run : Print what a run would do and take; compute nothing.
    """

    overwrite: bool
    dry_run: bool


@takes(ConvertKeywords)
def convert(
    source: Place,
    volume: Place,
    *,
    progress: "Progress | None" = None,
    **options: Unpack[ConvertKeywords],
) -> "ConvertReport":
    """Convert a stack of images to an OME-Zarr volume.

    Parameters
    ----------
    source : path
        TIFF file, folder or glob of slices, or Zarr array or image, also by its URL.
    volume : path
        Folder to create.
    progress : Progress, optional
        Display of the progress; see `volseg.engine.progress.Progress`.

    Raises
    ------
    InputError
        If the source cannot be read as one stack, or the volume exists.
    StorageError
        If the volume cannot be written.
    """
    from volseg.stages.convert import plan, run

    dry_run = options.pop("dry_run", False)
    chosen = build(plan.ConvertOptions, options)
    with plan.plan_conversion(text_of(source), place_of(volume), chosen) as planned:
        return planned.report if dry_run else run.convert(planned, shown(progress))


@takes(SegmentKeywords)
def segment(
    volume: Place,
    *,
    on_note: Callable[[str], None] | None = None,
    progress: "Progress | None" = None,
    **options: Unpack[SegmentKeywords],
) -> "SegmentReport":
    """Predict the probabilities of a volume and find its objects.

    Writes ``probabilities/<name>`` and ``labels/<name>`` into the volume. The same call resumes an
    interrupted run.

    Parameters
    ----------
    on_note : callable, optional
        Receives what should be known before the work begins, such as the choice of a model.

    Raises
    ------
    InputError
        If something cannot be used, or a different result exists.
    BlockError
        If blocks failed.
    """
    from volseg.stages.segment import run

    plan = _plan(volume, options)
    tell = on_note or str
    for note in plan.notes:
        tell(note)
    report = run.segment(plan, shown(progress))
    for note in report.notes:
        tell(note)
    return report


def estimate(volume: Place, **options: Unpack[SegmentKeywords]) -> "SegmentEstimate":
    """Estimate the time, memory and disk that `segment` takes with these options; write nothing."""
    from volseg.stages.segment import estimate as estimating

    return estimating.estimate(_plan(volume, options))


def _plan(volume: Place, options: SegmentKeywords) -> "SegmentPlan":
    from volseg.stages.predict.network import PredictOptions
    from volseg.stages.segment.run import SegmentOptions, plan_segmentation

    rules, others = divide(options, Objects)
    if others.get("mask") is not None:
        others["mask"] = text_of(others["mask"])
    repair = others.pop("repair", False)
    if repair and others.get("overwrite"):
        raise ParameterError("--repair keeps what is intact; leave out --overwrite")
    chosen = SegmentOptions(build(PredictOptions, others), repair=repair, **rules)
    return plan_segmentation(place_of(volume), chosen)


@described
class LabelKeywords(Objects, Result, Writing, total=False):
    """Options of `label`.

    probabilities : Take probabilities or a mask of another program, in any form that `convert`
        reads, and keep them as probabilities/NAME.
    channel : Take this channel of --probabilities, counted from 0.
    axes : Name the axes of --probabilities, slowest first, such as ZYXC, where they do not say.
    """

    probabilities: Place | None
    channel: int | None
    axes: str | None


@takes(LabelKeywords)
def label(
    volume: Place, *, progress: "Progress | None" = None, **options: Unpack[LabelKeywords]
) -> "LabelReport":
    """Find the objects in probabilities that `segment` wrote, by other rules.

    Writes ``labels/<name>`` into the volume.

    Raises
    ------
    InputError
        If the probabilities are missing or incomplete, or a different result exists.
    BlockError
        If blocks failed.
    """
    from volseg.sources.stack import WHOLE, Selection
    from volseg.stages.label import plan, run, source

    place, name = place_of(volume), options.pop("name", NAME)
    foreign = options.pop("probabilities", None)
    selected = Selection(options.pop("channel", None), axes=options.pop("axes", None))
    chosen, told = build(plan.LabelOptions, options), tuple[str, ...]()
    if foreign is None:
        if selected != WHOLE:
            raise ParameterError("--channel and --axes say what of --probabilities is meant")
        planned = plan.plan_labels(place, name, chosen)
    elif chosen.split in source.GUIDES:
        raise ParameterError(f"--probabilities come without {chosen.split}s; use --split distance")
    else:
        from volseg.stages.label import adopt

        taken = adopt.AdoptOptions(name, selected, chosen.engine, chosen.overwrite)
        adopted = adopt.plan_adoption(place, place_of(foreign), taken, shown(progress))
        planned, told = plan.plan_labels_on(place, adopted.foundation, chosen), adopted.notes
        planned.stands()  # before anything is written
        adopt.adopt(adopted, shown(progress))
    report = run.label(planned, shown(progress))
    return replace(report, notes=told + report.notes)


@described
class ApplyKeywords(Result, Running, total=False):
    """Options of `apply`.

    corrections : Read operations from this JSON file; see docs/corrections.md.
    keep : Drop objects unless a column of their table is so, such as 'darkness>0.4'; tells how
        many. May be repeated.
    marks : Drop the objects that `volseg teach` was told are none, and tell how many.
    confirmed_by : Drop the objects of which less than half is found in this other result, and tell
        how many.
    output_name : Name of the corrected result in the volume.  [default: NAME-corrected, of marks
        NAME-marked, of another result NAME-confirmed]
    overwrite : Replace a different result, or continue the same one.
    """

    corrections: Place | Mapping[str, Any] | None
    keep: Sequence[str] | str
    marks: bool
    confirmed_by: str | None
    output_name: str | None
    overwrite: bool


@takes(ApplyKeywords)
def apply(
    volume: Place, *, progress: "Progress | None" = None, **options: Unpack[ApplyKeywords]
) -> "ApplyReport":
    """Correct the objects of a result by hand-made operations or rules, into a new result.

    Writes ``labels/<output_name>`` into the volume, and its tables if those of ``labels/<name>``
    are up to date. Only what the corrections touch is computed.

    Raises
    ------
    InputError
        If the corrections name what is not there, contradict each other or are of another result,
        or a different result exists.
    BlockError
        If blocks failed.
    """
    from volseg.stages.apply import plan, run

    given, keep = options.get("corrections"), options.get("keep", ())
    corrections = given if given is None or isinstance(given, Mapping) else file_of(given)
    rules = (keep,) if isinstance(keep, str) else tuple(keep)
    chosen = build(plan.ApplyOptions, options, corrections=corrections, keep=rules)
    display = shown(progress)
    return run.apply(plan.plan_apply(place_of(volume), chosen, display), display)
