"""Explore volumes: how they look, how their slices are alike, how large their objects are."""

from typing import TYPE_CHECKING, Any, Literal, Unpack

from volseg.api.keywords import described, takes
from volseg.api.options import Place, Result
from volseg.api.running import build, file_of, place_of, shown

if TYPE_CHECKING:
    from volseg.engine.progress import Progress


@described
class ExploreKeywords(Result, total=False):
    """Options of `explore`.

    output : Draw the figure of --explore into this PNG file.  [default: VOLUME-explore.png]
    gamma : Draw the views with intensities raised to this power, as a network that was trained with
        it sees them.
    equalise : Draw the views equalised: by the volume, by each view, or by what is around each
        voxel; see `train`.
    overwrite : Replace a figure that is there.
    """

    output: Place | None
    gamma: float | None
    equalise: Literal["volume", "slice", "local"] | None
    overwrite: bool


@takes(ExploreKeywords)
def explore(
    volume: Place, *, progress: "Progress | None" = None, **options: Unpack[ExploreKeywords]
) -> dict[str, Any]:
    """Look at a volume: views, intensities, correlation of slices, mean sizes of objects.

    Draws a figure, if matplotlib is installed. ``docs/explore.md`` describes what is read and
    returned.

    Parameters
    ----------
    volume : path
    progress : Progress, optional

    Raises
    ------
    InputError
        If the volume or its labels cannot be used.
    """
    from volseg.stages import explore as stage

    output = options.get("output")
    target = None if output is None else file_of(output)
    chosen = build(stage.ExploreOptions, options, output=target)
    return stage.explore(place_of(volume), chosen, shown(progress))
