"""Show what was learned: places before and after, suspects, and a rule that tells marks apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import VolumeError
from volseg.geometry.grid import roi_shape
from volseg.measures.rules import FEW, tell_apart
from volseg.measures.suspects import Suspect, liken, rank_suspects
from volseg.objects.dropped import tell_size
from volseg.sources.labels import LabelSource
from volseg.stages.preview.run import PreviewOptions, open_candidate
from volseg.stages.preview.sheet import PANEL, Marking, compose_sheet
from volseg.stages.preview.trial import try_model
from volseg.stages.teach.lesson import Lesson, choose_centres, draw_marks
from volseg.storage.marks import Mark
from volseg.storage.tables import read_measured
from volseg.storage.volumes import Image
from volseg.types import Mask, Roi, VoxelSize, Zyx

ROWS = 8
"""Places in the sheet, at most."""
SUSPECTS = 10
YES_COLOUR, NO_COLOUR = (60, 200, 90), (230, 60, 60)


@dataclass(frozen=True)
class Next:
    """An object to look at next: its number, a voxel near its middle, how large it is, and why."""

    object: int
    place: Zyx
    size: str
    reasons: tuple[str, ...]


def draw_sheet(
    lesson: Lesson, models: tuple[str, str], zoom: float, threshold: float
) -> NDArray[np.uint8] | None:
    """Draw the marked places: marks on raw, then what the old and the new weights find.

    Returns
    -------
    uint8, shape (y, x, 3)
        None for networks of volumes, which no window of one slice suits.
    """
    eye, marks, shape = lesson.eye, lesson.marks, lesson.shape
    if not eye.planar:
        return None
    places = choose_rows(marks, shape)
    options = PreviewOptions(device=eye.device.type)
    trials = []
    for model in models:
        candidate = replace(open_candidate(model, eye.image, (), options), tone=eye.tone)
        trial = try_model(candidate, eye.image, places, zoom)
        trials += [] if trial is None else [trial]

    def paint(raw: NDArray[np.uint8], shown: Roi) -> NDArray[np.uint8]:
        targets = np.full(roi_shape(shown), -1, np.int8)
        draw_marks(targets, shown, marks, shape)
        at = [(np.arange(PANEL) * n // PANEL)[:, None] for n in targets.shape[1:]]
        seen = targets[0][at[0], at[1].T]
        painted = raw.copy()
        for said, colour in ((1, YES_COLOUR), (0, NO_COLOUR)):
            painted[seen == said] = (painted[seen == said] // 2) + np.array(colour, np.uint8) // 2
        return painted

    if not trials:
        return None
    thresholds = dict.fromkeys(models, threshold)
    marking = Marking(paint, ((NO_COLOUR, "marked none"), (YES_COLOUR, "marked mitochondrion")))
    return compose_sheet(eye.image, eye.tone, trials, thresholds, ROWS, marking)


def choose_rows(marks: Sequence[Mark], shape: Zyx) -> list[Zyx]:
    """Choose places of marks to draw: in the largest section of each, of no and yes by turns."""
    turns = zip_longest(*([m for m in marks if m.yes == said] for said in (False, True)))
    rows = []
    for mark in (mark for pair in turns for mark in pair if mark):
        z, areas = _sections(mark, shape)
        largest = replace(mark, spans=mark.spans[z == z.min() + areas.argmax()])
        rows += choose_centres(largest, shape)
    return list(dict.fromkeys(rows))[:ROWS]


def read_objects(volume: Path, labels: LabelSource) -> Mapping[str, NDArray[Any]]:
    """Read the table of objects; nothing where there is none of them as they are."""
    try:
        return read_measured(volume, labels.path.name, labels.identity)[0]
    except VolumeError:
        return {}


def find_marked(
    columns: Mapping[str, NDArray[Any]], rounds: Sequence[Sequence[Mark]]
) -> tuple[Mask, Mask]:
    """Find the rows of the table that are marked no, and yes, and not both.

    Numbers of objects are those of the result that was judged in these rounds.
    """
    marks = [mark for listed in rounds for mark in listed]
    labels = columns.get("label", np.zeros(0, np.int64))
    said = {yes: {m.object for m in marks if m.object and m.yes == yes} for yes in (True, False)}
    no, yes = (np.isin(labels, list(said[k] - said[not k])) for k in (False, True))
    return no, yes


def propose_rule(columns: Mapping[str, NDArray[Any]], no: Mask, yes: Mask) -> str | None:
    """Find a rule that tells marked objects apart; None where there is none."""
    rule = tell_apart(columns, yes, no)
    return None if rule is None else str(rule)


def propose_next(
    columns: Mapping[str, NDArray[Any]], no: Mask, yes: Mask, image: Image | None = None
) -> tuple[Next, ...]:
    """List the objects that are not marked and worth a look; none without a table.

    Where some are marked no, these are the largest that are like them; without, those that are
    least like the others. Sizes are physical where the image says how large its voxels are.
    """
    marked = no | yes
    if marked.all():  # or nothing is known
        return ()
    if no.any():
        likeness = liken(columns, no, yes)
        worth = np.where(marked, -1.0, columns["voxels"] * likeness)
        suspects = [
            Suspect(int(row), float(worth[row]), (f"{likeness[row]:.0%} like what is none",))
            for row in np.argsort(-worth)[:SUSPECTS]
        ]
    else:
        suspects = rank_suspects(columns, SUSPECTS + int(marked.sum()))
    voxel_size, planar = (None, False) if image is None else (image.voxel_size, image.space.planar)
    found = []
    for row, why in ((suspect.row, suspect.reasons) for suspect in suspects):
        z, y, x = (round(float(columns[f"centroid_{axis}"][row])) for axis in "zyx")
        if not marked[row]:
            size = tell_size(int(columns["voxels"][row]), voxel_size, planar=planar)
            found.append(Next(int(columns["label"][row]), (z, y, x), size, why))
    return tuple(found[:SUSPECTS])


def propose_section(marks: Sequence[Mark], shape: Zyx, size: VoxelSize | None) -> float | None:
    """Find a largest section, in µm², that keeps what is marked yes and drops what is marked no.

    Returns
    -------
    float
        None where marks are few, sections do not tell them apart, or the voxel size is unknown.
    """
    objects = [mark for mark in marks if mark.object]
    sections = {yes: [_section(m, shape) for m in objects if m.yes == yes] for yes in (True, False)}
    if size is None or min(map(len, sections.values())) < FEW:
        return None
    largest, smallest = max(sections[True]), min(sections[False])
    if smallest <= largest:
        return None
    return float(f"{math.sqrt(largest * smallest) * size[1] * size[2] / 1e6:.2g}")


def _section(mark: Mark, shape: Zyx) -> int:
    return int(_sections(mark, shape)[1].max())


def _sections(mark: Mark, shape: Zyx) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Find the slice of each run of a mark, and the voxels in each slice from the first on."""
    z = mark.spans[:, 0] // (shape[1] * shape[2])
    return z, np.bincount(z - z.min(), mark.spans[:, 1] - mark.spans[:, 0])
