"""Write a page about volumes and their objects."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Place, Result
from volseg.api.running import file_of, place_of, shown
from volseg.api.training import several
from volseg.defaults import NAME, SUSPECTS
from volseg.errors import ParameterError

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.report.run import ReportResult


@described
class ReportKeywords(Result, total=False):
    """Options of `report`.

    output : Write this HTML file.  [default: VOLUME-report.html, or report.html beside the first of
        several]
    suspects : List at most this many objects for proofreading.
    """

    output: Place | None
    suspects: int


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
    progress : Progress, optional

    Raises
    ------
    InputError
        If labels or tables are missing, or do not belong together.
    StorageError
        If something cannot be read, or the page cannot be written.
    """
    from volseg.stages.report import plan, run

    places = [place_of(volume) for volume in several(volumes)]
    if not places:
        raise ParameterError("a report is about at least one VOLUME")
    output = options.get("output")
    target = plan.default_output(places) if output is None else file_of(output)
    chosen = plan.ReportOptions(target, suspects=options.get("suspects", SUSPECTS))
    subjects = plan.plan_report(places, options.get("name", NAME))
    return run.report(subjects, chosen, shown(progress))


def check_report(output: Place) -> None:
    """Check that a report can be written to a file.

    Raises
    ------
    ParameterError
        If it cannot.
    """
    from volseg.stages.report.plan import ReportOptions

    ReportOptions(file_of(output))
