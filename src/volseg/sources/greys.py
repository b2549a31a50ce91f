"""Images that somebody gives in the place of labels."""

from __future__ import annotations

from volseg.errors import VolumeError
from volseg.sources.labels import LabelSource
from volseg.voxels.greys import count_meetings

SLICES, SIDE = 3, 512
"""Of what is looked at: slices, and pixels along each of their axes, around the middle."""


def refuse_greys(labels: LabelSource) -> LabelSource:
    """Give labels back, unless they are the grey values of an image; volseg's own are labels.

    Raises
    ------
    VolumeError
        If in a slice neighbours differ as only grey values do.
    """
    if labels.is_own or labels.foreground is not None:
        return labels
    depth, *sides = labels.region
    y, x = (
        slice(middle - SIDE // 2 if whole else s.start, middle + SIDE // 2 if whole else s.stop)
        for s in sides
        for middle, whole in [((s.start + s.stop) // 2, s.stop - s.start > SIDE)]
    )
    count = depth.stop - depth.start
    for k in range(min(SLICES, count)):
        z = depth.start + int((k + 0.5) * count / min(SLICES, count))
        found = count_meetings(labels[slice(z, z + 1), y, x][0])
        if found.grey:
            raise VolumeError(
                f"{labels.path} holds grey values, it seems, and not labels: of slice {z} "
                f"{found.values} values were looked at, and where neighbours differ three or more "
                f"meet in {found.many / found.places:.0%}; labels are one number in all of an "
                f"object. Give labels, or make a mask of these values with a threshold"
            )
    return labels
