"""Compose the contact sheet of a preview: places as rows, trials as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.geometry.grid import roi_size
from volseg.stages.preview.places import read_slice
from volseg.stages.preview.trial import Trial, resize
from volseg.storage.volumes import Image
from volseg.types import Floats
from volseg.voxels.intensity import Tone

PANEL, GAP = 320, 6
"""Pixels of a panel's side, and between panels."""
SURE_COLOUR, DOUBTFUL_COLOUR = (255, 140, 0), (90, 170, 255)
"""Of outlines: objects with a mean probability from `SURE_MEAN` on, and others."""
SURE_MEAN = 0.8


def compose_sheet(
    image: Image, tone: Tone, trials: Sequence[Trial], thresholds: Mapping[str, float]
) -> NDArray[np.uint8]:
    """Draw raw, then the outlines of each trial, the same tissue in each row.

    Returns
    -------
    uint8, shape (y, x, 3)
    """
    rows = []
    for row in range(len(trials[0].views)):
        # windows about one voxel, moved into the volume, lie within one another
        shown = min((trial.views[row].roi for trial in trials), key=roi_size)
        side = shown[1].stop - shown[1].start
        fine = [k for k, f in enumerate(image.factors) if side >= PANEL * max(f[1:])]
        grey = resize(tone(read_slice(image, max(fine, default=0), shown)), PANEL)[0]
        raw = np.repeat((np.clip(grey, -1, 1) * 127.5 + 127.5).astype(np.uint8)[..., None], 3, 2)
        panels = [raw]
        for trial in trials:
            view = trial.views[row]
            axes = zip(view.probabilities.shape, view.roi[1:], shown[1:], strict=True)
            inside = [_part_of(*axis) for axis in axes]
            part = view.probabilities[inside[0], inside[1]]
            panels.append(outline(raw, resize(part[None], PANEL)[0], thresholds[trial.model]))
        rows.append(_join(panels, 1))
    return _join(rows, 0)


def _part_of(count: int, outer: slice, inner: slice) -> slice:
    """Find the pixels of a part, along an axis of so many pixels that stand for the whole."""
    scale = count / (outer.stop - outer.start)
    first = round((inner.start - outer.start) * scale)
    return slice(first, first + max(round((inner.stop - inner.start) * scale), 1))


def outline(raw: NDArray[np.uint8], probabilities: Floats, threshold: float) -> NDArray[np.uint8]:
    """Draw the outlines of objects, coloured by their mean probability."""
    drawn = raw.copy()
    labels, count = ndimage.label(probabilities >= threshold)
    if not count:
        return drawn
    means = ndimage.mean(probabilities, labels, np.arange(1, count + 1))
    border = (labels > 0) & ~ndimage.binary_erosion(labels > 0, iterations=2)
    sure = np.concatenate([[False], np.asarray(means) >= SURE_MEAN])[labels]
    drawn[border & sure] = SURE_COLOUR
    drawn[border & ~sure] = DOUBTFUL_COLOUR
    return drawn


def _join(parts: Sequence[NDArray[np.uint8]], axis: int) -> NDArray[np.uint8]:
    """Put pictures side by side, with white between."""
    between = list(parts[0].shape)
    between[axis] = GAP
    white = np.full(between, 255, np.uint8)
    joined = [piece for part in parts for piece in (white, part)][1:]
    return np.concatenate(joined, axis=axis)
