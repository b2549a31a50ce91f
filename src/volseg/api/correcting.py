"""Correct results by hand-made operations."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Place, Result, Running
from volseg.api.running import build, file_of, place_of, shown

if TYPE_CHECKING:
    from volseg.engine.progress import Progress
    from volseg.stages.apply.run import ApplyReport


@described
class ApplyKeywords(Result, Running, total=False):
    """Options of `apply`.

    corrections : Read operations from this JSON file; see docs/corrections.md.
    keep : Drop objects unless a column of their table is so, such as 'darkness>0.4'; tells how
        many. May be repeated.
    marks : Drop the objects that `volseg teach` was told are none, and tell how many.
    output_name : Name of the corrected result in the volume.  [default: NAME-corrected, of marks
        NAME-marked]
    overwrite : Replace a different result, or continue the same one.
    """

    corrections: Place | Mapping[str, Any] | None
    keep: Sequence[str] | str
    marks: bool
    output_name: str | None
    overwrite: bool


@takes(ApplyKeywords)
def apply(
    volume: Place, *, progress: "Progress | None" = None, **options: Unpack[ApplyKeywords]
) -> "ApplyReport":
    """Correct the objects of a result by hand-made operations or rules, into a new result.

    Writes ``labels/<output_name>`` into the volume, and its tables if those of ``labels/<name>``
    are up to date. Only what the corrections touch is computed.

    Parameters
    ----------
    volume : path
    progress : Progress, optional

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
