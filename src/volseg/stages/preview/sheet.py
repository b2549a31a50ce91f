"""Compose the contact sheet of a preview: places as rows, trials as columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.stages.preview.places import read_slice
from volseg.stages.preview.trial import Trial, map_onto, resize
from volseg.storage.volumes import Image
from volseg.types import Floats, Roi
from volseg.voxels.intensity import Tone

PANEL, GAP = 320, 6
"""Pixels of a panel's side, and between panels."""
ROWS = 4
"""Places that are drawn, at most."""
SURE_COLOUR, DOUBTFUL_COLOUR = (255, 140, 0), (90, 170, 255)
"""Of outlines: objects with a mean probability from `SURE_MEAN` on, and others."""
SURE_MEAN = 0.8


def compose_sheet(
    image: Image,
    tone: Tone,
    trials: Sequence[Trial],
    thresholds: Mapping[str, float],
    rows: int = ROWS,
    paint: Callable[[NDArray[np.uint8], Roi], NDArray[np.uint8]] | None = None,
) -> NDArray[np.uint8]:
    """Draw raw, then the outlines of each trial: the tissue that the first one saw in each row.

    Tissue that another trial did not see is pale in its panel.

    Parameters
    ----------
    tone : of raw
    trials : one column each
    thresholds : by model
    rows : places that are drawn, at most
    paint : draws on raw, which shows so much of the volume

    Returns
    -------
    uint8, shape (y, x, 3)
    """
    drawn = []
    for row, first in enumerate(trials[0].views[:rows]):
        shown = first.roi
        side = shown[1].stop - shown[1].start
        fine = [k for k, f in enumerate(image.factors) if side >= PANEL * max(f[1:])]
        grey = resize(tone(read_slice(image, max(fine, default=0), shown)), PANEL)[0]
        raw = np.repeat((np.clip(grey, -1, 1) * 127.5 + 127.5).astype(np.uint8)[..., None], 3, 2)
        panels = [raw if paint is None else paint(raw, shown)]
        for trial in trials:
            found, seen = map_onto(shown, trial.views[row], PANEL)
            panel = outline(raw, found, thresholds[trial.model])
            panel[~seen] = 191 + panel[~seen] // 4
            panels.append(panel)
        drawn.append(_join(panels, 1))
    return _join(drawn, 0)


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
