"""Write a page about volumes and their objects."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

from volseg.api.judging import evaluate_all
from volseg.api.keywords import described, takes
from volseg.api.options import Place, Results
from volseg.api.running import (
    distinct_places,
    file_of,
    optional_file,
    several,
    several_texts,
    shown,
)
from volseg.api.training import one_each
from volseg.defaults import NAME, SUSPECTS
from volseg.errors import ParameterError
from volseg.fields import split_names

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.report.run import ReportResult


@described
class PageKeywords(TypedDict, total=False):
    """Options of a page.

    truth : Score each VOLUME, and mark missed and false objects, by labels of this name in it, or
        by a Zarr array, image or label TIFF; give it once, or once for each VOLUME. {name} stands
        for each of several --name.
    output : Write this HTML file.  [default: VOLUME-report.html, or report.html beside the first of
        several]
    suspects : List at most this many objects for proofreading.
    """

    truth: Place | Sequence[Place]
    output: Place | None
    suspects: int


@described
class ReportKeywords(Results, PageKeywords, total=False):
    """Options of `report`.

    model : Ask this .safetensors file again about the objects to proofread, where it made them.
        [default: the model that made them, if it comes with volseg]
    axes : Name the axes of --truth, slowest first, such as YXZ, where a file does not say.
    """

    model: str | None
    axes: str | None


@takes(ReportKeywords)
def report(
    volumes: Place | Sequence[Place],
    *,
    progress: "Progress | None" = None,
    **options: Unpack[ReportKeywords],
) -> "ReportResult":
    """Write one page about volumes and their objects, which needs no network.

    Parameters
    ----------
    volumes : path or several
        Volumes that `stats` has measured.

    Raises
    ------
    InputError
        If labels or tables are missing, or do not belong together.
    StorageError
        If something cannot be read, or the page cannot be written.
    """
    from volseg.stages.report import plan, run

    places = distinct_places(several(volumes))
    if not places:
        raise ParameterError("a report is about at least one VOLUME")
    target = optional_file(options.get("output")) or plan.default_output(places)
    chosen = plan.ReportOptions(target, suspects=options.get("suspects", SUSPECTS))
    name = options.get("name", NAME)
    names = split_names(name)
    truths = one_each(several_texts(options.get("truth", ())), len(places), "--truth")
    axes = options.get("axes")
    if axes is not None and not any(truths):
        raise ParameterError("--axes names those of --truth; give both")
    scores = [
        score
        for volume, truth in zip(places, truths, strict=True)
        for score in (
            [None] * len(names)
            if truth is None
            else evaluate_all(volume, truth=truth, name=name, axes=axes, progress=progress)
        )
    ]
    subjects = plan.plan_report(places, names, scores, options.get("model"))
    return run.report(subjects, chosen, shown(progress))


def check_report(output: Place) -> None:
    """Check that a report can be written to a file."""
    from volseg.stages.report.plan import ReportOptions

    ReportOptions(file_of(output))
