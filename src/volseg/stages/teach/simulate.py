"""Let the truth do the clicking: mark the largest false and missed sections of some slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.errors import ParameterError, ShapeError
from volseg.sources.labels import LabelSource
from volseg.sources.points import Point
from volseg.storage.marks import Mark
from volseg.types import Zyx

FALSE, MISSED = 10, 5
"""Clicks on what is false, and on what is missed."""
SLICES = 3
APART = 0.25
"""Part of a section that lies on the other side, below which it is false, or missed."""


def click(
    labels: LabelSource,
    truth: LabelSource,
    slices: Sequence[int] | None,
    known: Sequence[Mark] = (),
) -> list[Point]:
    """Click on the largest false sections of objects, and the largest missed ones, in some slices.

    Parameters
    ----------
    slices : that are looked at; None chooses three, spread over the volume
    known : marks of earlier calls; what they mean is not clicked on again
    """
    if labels.shape != truth.shape:
        raise ShapeError(
            f"the truth must have the shape of the result, {labels.shape}: {truth.path} has "
            f"{truth.shape}"
        )
    # beyond the region of a result nothing was looked for, so nothing was missed
    z_range, y, x = labels.region
    first, depth = z_range.start, z_range.stop - z_range.start
    looked = slices or [first + int((k + 0.5) * depth / SLICES) for k in range(min(SLICES, depth))]
    outside = [z for z in looked if not first <= z < z_range.stop]
    if outside:
        raise ParameterError(
            f"the result has the slices {first} to {z_range.stop - 1}, found {outside[0]}"
        )
    wrong: dict[bool, list[tuple[int, Point]]] = {False: [], True: []}
    for z in looked:
        found, true = (source[slice(z, z + 1), y, x][0] for source in (labels, truth))
        wrong[False] += _sections(found, true > 0, (z, y.start, x.start), yes=False)
        wrong[True] += _sections(true, found > 0, (z, y.start, x.start), yes=True)
    clicks = [
        point
        for yes, most in ((False, FALSE), (True, MISSED))
        for point in _unmarked(wrong[yes], [m for m in known if m.yes == yes], labels.shape)[:most]
    ]
    if not clicks:
        raise ParameterError(f"nothing is false or missed in the slices {looked}")
    return clicks


def _unmarked(found: Sequence[tuple[int, Point]], known: Sequence[Mark], shape: Zyx) -> list[Point]:
    """Sort by size, the largest first, and leave out what lies in earlier marks."""
    spans = np.concatenate([np.zeros((0, 2), np.int64), *(mark.meant for mark in known)])
    points = [point for _, point in sorted(found, key=lambda entry: -entry[0])]
    at = [np.ravel_multi_index(point.place, shape) for point in points]
    return [
        point
        for point, voxel in zip(points, at, strict=True)
        if not ((spans[:, 0] <= voxel) & (voxel < spans[:, 1])).any()
    ]


def _sections(
    labels: NDArray[Any], other: NDArray[np.bool_], corner: Zyx, *, yes: bool
) -> list[tuple[int, Point]]:
    """Find sections of which little lies on the other side, with their sizes."""
    found = []
    for number in np.unique(labels[labels > 0]).tolist():
        parts, count = ndimage.label(labels == number, np.ones((3, 3)))
        for k, box in enumerate(ndimage.find_objects(parts, count), 1):
            part = parts[box] == k
            if (part & other[box]).sum() >= APART * part.sum():
                continue
            # where one would click: as far from the border as may be
            clear = np.pad(part & ~other[box] if yes else part, 1)
            depth = ndimage.distance_transform_edt(clear)[1:-1, 1:-1]
            y, x = (int(c) for c in np.unravel_index(depth.argmax(), part.shape))
            place = corner[0], corner[1] + box[0].start + y, corner[2] + box[1].start + x
            words = "missed" if yes else "false"
            found.append((int(part.sum()), Point(place, yes, f"{words} in the truth")))
    return found
