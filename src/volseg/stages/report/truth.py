"""Mark in planes what a prediction missed and what it made up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.scores.mistakes import WrongObject
from volseg.sources.labels import LabelSource
from volseg.stages.evaluate.run import Evaluation
from volseg.stages.report.planes import Frame
from volseg.types import Mask, Roi

LARGEST_BOX = 1 << 26
"""Voxels of a box that is read at once; larger objects are outlined like all, but not hatched."""


def find_false(evaluation: Evaluation, planes: Sequence[NDArray[Any]]) -> list[Mask]:
    """Mark the predicted objects without a partner, in planes across each axis."""
    false = evaluation.errors.false.objects.labels
    return [np.isin(p, false) for p in planes]


def find_missed(
    evaluation: Evaluation, truth: LabelSource, planes: Sequence[NDArray[Any]], frame: Frame
) -> list[Mask]:
    """Mark the largest objects of the truth without a partner, in planes across each axis.

    Each is read in its box, since objects of a mask are numbered by nobody.
    """
    marked = [np.zeros(p.shape, bool) for p in planes]
    for wrong in evaluation.errors.missed.tolist():
        z, y, x = (slice(*ends) for ends in wrong.box)
        box: Roi = (z, y, x)
        if math.prod(s.stop - s.start for s in box) > LARGEST_BOX or not _crosses(box, frame):
            continue
        inside = cut_out(truth[box], wrong)
        for axis in range(3):
            _mark(marked[axis], inside, box, frame, axis)
    return marked


def cut_out(values: NDArray[Any], wrong: WrongObject) -> Mask:
    """Find an object in its box: by its label or, in a mask, as a component of its size.

    Examples
    --------
    >>> box = ((0, 1), (0, 1), (0, 4))
    >>> wrong = WrongObject(7, 2, (0, 0, 0.5), box, 0.0)
    >>> cut_out(np.array([[[255, 255, 0, 255]]]), wrong).astype(int).tolist()
    [[[1, 1, 0, 0]]]
    """
    named: Mask = values == wrong.label
    if np.count_nonzero(named) == wrong.voxels:
        return named
    from scipy import ndimage

    components, count = ndimage.label(values > 0, np.ones((3, 3, 3)))
    sizes = np.bincount(components.reshape(-1), minlength=count + 1)
    fits = sizes == wrong.voxels
    fits[0] = False
    found: Mask = fits[components]
    return found


def _crosses(box: Roi, frame: Frame) -> bool:
    return any(
        bool(((picks >= s.start) & (picks < s.stop)).any())
        for picks, s in zip(frame.picks, box, strict=True)
    )


def _mark(marked: Mask, inside: Mask, box: Roi, frame: Frame, axis: int) -> None:
    """Paint an object into the planes across an axis that cross it."""
    others = [a for a in range(3) if a != axis]
    ranges = [
        slice(*np.searchsorted(frame.pixels[a], (box[a].start, box[a].stop)).tolist())
        for a in others
    ]
    local = [frame.pixels[a][r] - box[a].start for a, r in zip(others, ranges, strict=True)]
    for k, at in enumerate(frame.picks[axis].tolist()):
        if box[axis].start <= at < box[axis].stop:
            plane = np.take(inside, at - box[axis].start, axis=axis)
            marked[k, ranges[0], ranges[1]] |= plane[np.ix_(*local)]
