"""Options of reading a source; see `volseg.api.options`."""

from volseg.api.keywords import described
from volseg.api.options import SourceSize, Threads


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
