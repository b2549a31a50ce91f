"""Draw what a report shows of a volume: planes with overlays, and its suspects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.measures.object_table import box_of_row
from volseg.measures.suspects import Suspect
from volseg.sources.labels import open_label_path
from volseg.stages.report.drawing import (
    ORANGE,
    draw_objects,
    draw_probabilities,
    draw_truth,
    encode_greys,
    encode_picture,
    grey,
    outlines,
    window_of,
)
from volseg.stages.report.plan import Subject
from volseg.stages.report.planes import (
    Frame,
    Source,
    choose_level,
    find_lost,
    find_wrong,
    frame_of,
    read_image,
    read_planes,
)
from volseg.types import Roi, VoxelSize
from volseg.voxels.letters import choose_bar

SIDE, PLANES = 640, (24, 12, 12)
"""Most pixels along an axis, and planes across z, y and x, where there are one or two volumes."""
BUDGET = 6 << 20
"""Characters of the raw planes of all volumes."""
AXES = "zyx"
THUMBNAIL, SURROUNDINGS = 144, 1.8
"""Pixels of a suspect's picture, and what it shows, in lengths of the object."""


@dataclass(frozen=True)
class Planes:
    """Planes across one axis, as a page shows them.

    Attributes
    ----------
    aspect : width over height, in space
    bar : length of a scale bar in words, and as a part of the width; None without a voxel size
    """

    axis: str
    across: str
    down: str
    positions: list[int]
    layers: dict[str, list[str]]
    aspect: float
    bar: tuple[str, float] | None


def draw_planes(subject: Subject, volumes: int) -> tuple[list[Planes], tuple[float, float]]:
    """Draw the planes of one of several volumes; say which intensities are black and white."""
    side = SIDE if volumes <= 2 else 448 if volumes <= 8 else 320
    z, y, x = (max(n // volumes, 3) for n in PLANES)
    frame = frame_of(subject.image, subject.region, side, (z, y, x))
    raw = read_image(subject.image, frame)
    labels = read_image(subject.labels, frame)
    window = window_of(raw)
    greys = iter(
        encode_greys([grey(p, window) for planes in raw for p in planes], BUDGET // volumes)
    )
    layers: list[dict[str, list[str]]] = [{"raw": [next(greys) for _ in p]} for p in raw]
    if subject.probabilities is not None:
        found = read_image(subject.probabilities, frame)
        for layer, planes in zip(layers, found, strict=True):
            layer["probabilities"] = [draw_probabilities(p) for p in planes]
    _add_objects(subject, layers, labels, frame)
    lengths = lengths_of(subject.region, subject.summary.voxel_size)
    return [
        Planes(
            AXES[axis],
            AXES[across],
            AXES[down],
            frame.picks[axis].tolist(),
            layers[axis],
            lengths[across] / lengths[down],
            choose_bar(lengths[across]) if subject.summary.voxel_size else None,
        )
        for axis, down, across in ((0, 1, 2), (1, 0, 2), (2, 0, 1))
    ], window


def _add_objects(
    subject: Subject,
    layers: Sequence[dict[str, list[str]]],
    labels: Sequence[NDArray[Any]],
    frame: Frame,
) -> None:
    """Add what was found and, where there is a truth, what is wrong with it."""
    if subject.evaluation is None:
        for layer, planes in zip(layers, labels, strict=True):
            layer["objects"] = [draw_objects(p, None) for p in planes]
        return
    scored = subject.evaluation
    source = open_label_path(scored.truth, images=bool(scored.images), axes=scored.axes)
    truth = read_planes(Source(source, source.shape, source.block, (1.0, 1.0, 1.0)), frame)
    lost = find_lost(scored.errors, source, truth, frame)
    wrong = find_wrong(scored.errors, labels)
    for axis, layer in enumerate(layers):
        found = zip(labels[axis], wrong[axis], strict=True)
        layer["objects"] = [draw_objects(p, kinds) for p, kinds in found]
        expected = zip(truth[axis], lost[axis], strict=True)
        layer["truth"] = [draw_truth(p, kinds) for p, kinds in expected]


def lengths_of(region: Roi, voxel_size: VoxelSize | None) -> list[float]:
    """Measure a region along (z, y, x), in nm where that is known."""
    return [
        (s.stop - s.start) * size
        for s, size in zip(region, voxel_size or (1.0, 1.0, 1.0), strict=True)
    ]


def draw_suspect(subject: Subject, suspect: Suspect, window: tuple[float, float]) -> str:
    """Draw the slice through the middle of an object, with its outline."""
    box = box_of_row(subject.columns, suspect.row)
    z = int(min(subject.columns["centroid_z"][suspect.row], box[0].stop - 1))
    y, x = _window(box[1:], subject.image.levels[0].shape[1:])
    roi = slice(z, z + 1), y, x
    raw = _read(subject.image, roi, THUMBNAIL)
    labels = _read(subject.labels, roi, THUMBNAIL)
    inside = labels == subject.columns["label"][suspect.row]
    picture = np.repeat(grey(raw, window)[..., None], 3, axis=2)
    edge = outlines(inside)
    edge[1:] |= edge[:-1]
    edge[:, 1:] |= edge[:, :-1]
    picture[edge] = ORANGE
    return encode_picture(picture)


def _window(box: Sequence[slice], shape: Sequence[int]) -> tuple[slice, slice]:
    """Choose a square about a box in a slice, moved into the volume."""
    side = max(int(SURROUNDINGS * max(s.stop - s.start for s in box)), 48)
    sides = []
    for s, length in zip(box, shape, strict=True):
        first = min(max((s.start + s.stop - side) // 2, 0), max(length - side, 0))
        sides.append(slice(first, min(first + side, length)))
    return sides[0], sides[1]


def _read(image: Any, roi: Roi, pixels: int) -> NDArray[Any]:
    """Read a window of one slice, of so many pixels, from the level that has about as many."""
    level = choose_level(image, roi, 2 * pixels)
    factors, array = image.factors[level], image.levels[level]
    places = [
        np.minimum((np.arange(s.start, s.stop) / f).astype(np.int64), n - 1)
        for s, f, n in zip(roi, factors, array.shape, strict=True)
    ]
    z, y, x = (slice(int(p[0]), int(p[-1]) + 1) for p in places)
    plane = array[z, y, x][0]
    rows, columns = (
        _spread(p, pixels * len(p) // max(len(places[1]), len(places[2]))) - int(p[0])
        for p in places[1:]
    )
    found: NDArray[Any] = plane[np.ix_(rows, columns)]
    return found


def _spread(places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    at = ((np.arange(count) + 0.5) * len(places) / count).astype(np.int64)
    return places[at]
