"""Compose the contact sheet of a preview: places as rows, trials as columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.stages.preview.places import read_slice
from volseg.stages.preview.trial import Trial, map_onto, resize
from volseg.storage.volumes import Image
from volseg.types import Floats, Roi
from volseg.voxels.apart import Apart, tone_at
from volseg.voxels.intensity import Tone
from volseg.voxels.letters import LINE, STEP, choose_bar, count_bar, draw_bar, draw_text, shorten

PANEL, GAP = 320, 6
"""Pixels of a panel's side, and between panels."""
ROWS = 4
"""Places that are drawn, at most."""
SURE_COLOUR, DOUBTFUL_COLOUR = (255, 140, 0), (90, 170, 255)
"""Of outlines: objects with a mean probability from `SURE_MEAN` on, and others."""
SURE_MEAN = 0.8
SCALE = 2
"""Pixels of the sheet for each of a letter."""
TALL, WIDE = LINE * SCALE, STEP * SCALE
"""Pixels of a line of text, and of a letter."""
MARGIN = 11 * WIDE
"""Pixels beside the panels, in which places are named."""
UNSEEN = 191
"""Grey that tissue which was not seen is mixed with."""
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Marking:
    """Marks on raw.

    Attributes
    ----------
    paint : draws on raw, which shows so much of the volume.
    key : colours and what they mean.
    """

    paint: Callable[[NDArray[np.uint8], Roi], NDArray[np.uint8]]
    key: tuple[tuple[Colour, str], ...]


def compose_sheet(
    image: Image,
    tone: Tone | Apart,
    trials: Sequence[Trial],
    thresholds: Mapping[str, float],
    rows: int = ROWS,
    marking: Marking | None = None,
) -> NDArray[np.uint8]:
    """Draw raw, then the outlines of each trial: the tissue that the first one saw in each row.

    Tissue that another trial did not see is pale in its panel. Above stand models and zooms, beside
    each row the voxel in its middle, in raw a scale bar, and below what colours mean.

    Parameters
    ----------
    tone : of raw
    trials : one column each
    thresholds : by model
    rows : places that are drawn, at most
    marking : marks on raw

    Returns
    -------
    uint8, shape (y, x, 3)
    """
    drawn, pale = [], False
    for row, first in enumerate(trials[0].views[:rows]):
        shown = first.roi
        side = shown[1].stop - shown[1].start
        fine = [k for k, f in enumerate(image.factors) if side >= PANEL * max(f[1:])]
        own = tone_at(tone, shown[0].start)
        grey = resize(own(read_slice(image, max(fine, default=0), shown)), PANEL)[0]
        raw = np.repeat((np.clip(grey, -1, 1) * 127.5 + 127.5).astype(np.uint8)[..., None], 3, 2)
        panels = [raw.copy() if marking is None else marking.paint(raw, shown)]
        draw_bar(panels[0], *_choose_bar(image, shown), scale=SCALE)
        for trial in trials:
            found, seen = map_onto(shown, trial.views[row], PANEL)
            panel = outline(raw, found, thresholds[trial.model])
            panel[~seen] = UNSEEN + panel[~seen] // 4
            pale = pale or not seen.all()
            panels.append(panel)
        drawn.append(_join([_name_place(shown), *panels], 1))
    body = _join(drawn, 0)
    named = [("marked" if marking else "raw", "")]
    named += [(Path(trial.model).stem, f"zoom {trial.zoom:g}") for trial in trials]
    key = (*(marking.key if marking else ()), *_list_colours(pale=pale))
    return np.concatenate([_head(named, body.shape[1]), body, _foot(key, body.shape[1])])


def _choose_bar(image: Image, shown: Roi) -> tuple[str, float]:
    """Choose a scale bar for what is shown: by the stated size of voxels, or else in voxels."""
    across = shown[2].stop - shown[2].start
    size = image.voxel_size
    return count_bar(across) if size is None else choose_bar(across * size[2])


def _name_place(shown: Roi) -> NDArray[np.uint8]:
    """Name the voxel in the middle of a row of panels."""
    side = np.full((PANEL, MARGIN, 3), 255, np.uint8)
    for k, (axis, part) in enumerate(zip("zyx", shown, strict=True)):
        draw_text(side, (k * TALL, GAP), f"{axis} {(part.start + part.stop) // 2}", scale=SCALE)
    return side


def _head(named: Sequence[tuple[str, str]], width: int) -> NDArray[np.uint8]:
    """Name the columns, in two lines each."""
    head = np.full((2 * TALL + 2 * GAP, width, 3), 255, np.uint8)
    for column, lines in enumerate(named):
        x = MARGIN + GAP + column * (PANEL + GAP)
        for k, line in enumerate(lines):
            draw_text(head, (GAP + k * TALL, x), shorten(line, PANEL // WIDE), scale=SCALE)
    return head


def _list_colours(*, pale: bool) -> tuple[tuple[Colour, str], ...]:
    """List the colours of outlines, and of what was not seen, and say what they mean."""
    found: tuple[tuple[Colour, str], ...] = (
        (SURE_COLOUR, f"object, mean probability {SURE_MEAN:g} or more"),
        (DOUBTFUL_COLOUR, "object, less than that"),
    )
    return (*found, ((UNSEEN,) * 3, "not looked at")) if pale else found


def _foot(key: Sequence[tuple[Colour, str]], width: int) -> NDArray[np.uint8]:
    """Say what colours mean, in as many lines as that takes."""
    line, x = 0, GAP
    placed: list[tuple[int, int, Colour, str]] = []
    for colour, words in key:
        length = TALL + WIDE * (len(words) + 2)
        if placed and x + length > width:
            line, x = line + 1, GAP
        placed.append((line, x, colour, words))
        x += length
    foot = np.full(((line + 1) * (TALL + GAP) + GAP, width, 3), 255, np.uint8)
    for row, at, colour, words in placed:
        y = GAP + row * (TALL + GAP)
        foot[y : y + TALL - SCALE, at : at + TALL - SCALE] = colour
        draw_text(foot, (y, at + TALL + SCALE), words, scale=SCALE)
    return foot


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
