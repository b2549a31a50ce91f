"""Resolve marks: which voxels are meant by objects, points and painted regions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.engine.options import EngineOptions
from volseg.engine.run import run_blocks
from volseg.errors import ParameterError, ShapeError
from volseg.geometry.grid import Block, Grid, describe, whole_multiples
from volseg.objects.intervals import Intervals, find_intervals, overlapping
from volseg.sources.labels import LabelSource
from volseg.sources.points import Point
from volseg.stages.teach.judged import Judged
from volseg.stages.teach.seeds import grow_seed
from volseg.storage.images import images_in
from volseg.storage.marks import Mark, Round
from volseg.types import Roi, Zyx

BLOCK: Zyx = (32, 512, 512)
SECTION = 2048
"""Voxels each way in which the section of an object under a point is looked for."""
NO, YES = 1, 2
"""Values of painted regions."""


@dataclass(frozen=True)
class Said:
    """Marks as the user gives them.

    Attributes
    ----------
    painted : labels of the volume's shape, `NO` and `YES`.
    slices : marked objects count in these slices only; None for all.
    """

    objects: Sequence[tuple[int, bool]] = ()
    points: Sequence[Point] = ()
    painted: LabelSource | None = None
    slices: Sequence[int] | None = None


def _find_in_block(
    labels: LabelSource, wanted: tuple[int, ...], alone: bool, block: Block
) -> dict[int, Intervals]:
    """Find the voxels of some labels in a block; with ``alone``, name one of any others."""
    values = labels[block.core]
    here = np.intersect1d(values, np.array(wanted))
    found = {int(n): find_intervals(values == n, block.core, labels.shape) for n in here}
    others = np.setdiff1d(values[values > 0], np.array(wanted)) if alone else ()
    return found | {int(n): np.zeros((0, 2), np.int64) for n in others[:1]}


def find_marks(said: Said, judged: Judged, engine: EngineOptions) -> list[Mark]:
    """Find the voxels of all that was said."""
    _check_numbers(said, judged.objects)
    clicked = [_mark_point(point, judged) for point in said.points]
    named = [number for number, _ in said.objects] + [m.object for m in clicked if m.object]
    numbers = tuple(dict.fromkeys(named))
    found = _locate(judged.labels, numbers, engine) if numbers else {}
    marks = []
    for number, yes in dict.fromkeys(said.objects):
        spans = _within(found.get(number), said.slices, judged.shape)
        if not len(spans):
            where = "" if said.slices is None else " in the slices of --slices"
            raise ParameterError(f"{judged.labels.path} has no object {number}{where}")
        mark = Mark(yes, f"object {number}", spans, number)
        marks.append(mark if said.slices is None else replace(mark, whole=found[number]))
    marks += [replace(m, whole=found[m.object]) if m.object else m for m in clicked]
    marks += _find_painted(said, judged.shape, engine)
    check_agreement(marks)
    return marks


def is_same(one: Mark, other: Mark) -> bool:
    """Tell whether two marks teach the same of the same voxels, whatever object they mean."""
    return one.yes == other.yes and np.array_equal(one.spans, other.spans)


def renew(rounds: Sequence[Round], marks: Sequence[Mark]) -> list[Round]:
    """Let marks that were made before mean the objects that they mean when made again.

    The object under a click may have grown since, and earlier versions kept none.
    """

    def renewed(mark: Mark) -> Mark:
        again = next((m for m in marks if m.object and is_same(m, mark)), mark)
        return mark if np.array_equal(again.meant, mark.meant) else replace(mark, whole=again.meant)

    return [replace(entry, marks=tuple(map(renewed, entry.marks))) for entry in rounds]


def check_agreement(marks: Sequence[Mark]) -> None:
    """Refuse marks of which one says yes where another says no."""
    for one, other in combinations(marks, 2):
        if one.yes != other.yes and overlapping(one.spans, other.spans):
            yes, no = (one, other) if one.yes else (other, one)
            raise ParameterError(
                f"marks contradict each other: {yes.name} says yes where {no.name} says no; "
                f"leave one of them out, or drop those of the last time with --forget"
            )


def _check_numbers(said: Said, objects: int) -> None:
    for number, _ in said.objects:
        if not 0 < number <= objects:
            raise ParameterError(
                f"there is no object {number}: the result has {objects}, numbered from 1; is it a "
                f"number of another result? give the --name of that one"
            )
    both = {n for n, yes in said.objects if yes} & {n for n, yes in said.objects if not yes}
    if both:
        raise ParameterError(
            f"marks contradict each other: --yes and --not both name {min(both)}; leave it out of "
            f"one of them"
        )


def _locate(
    labels: LabelSource, wanted: tuple[int, ...], engine: EngineOptions, *, alone: bool = False
) -> dict[int, Intervals]:
    """Find the voxels of some labels in the whole volume, reading it once; see `_find_in_block`."""
    parts: dict[int, list[Intervals]] = {}

    def on_result(_: Block, found: dict[int, Intervals]) -> None:
        for number, spans in found.items():
            parts.setdefault(number, []).append(spans)

    blocks = Grid(labels.shape, whole_multiples(BLOCK, labels.block)).blocks()
    run_blocks(partial(_find_in_block, labels, wanted, alone), blocks, engine, on_result=on_result)
    whole = {number: np.concatenate(spans) for number, spans in parts.items()}
    return {number: spans[np.argsort(spans[:, 0])] for number, spans in whole.items()}


def _within(spans: Intervals | None, slices: Iterable[int] | None, shape: Zyx) -> Intervals:
    if spans is None:
        return np.zeros((0, 2), np.int64)
    if slices is None:
        return spans
    z = spans[:, 0] // (shape[1] * shape[2])
    return spans[np.isin(z, list(slices))]


def _mark_point(point: Point, judged: Judged) -> Mark:
    """Mark the section of the object under a point, or grow a seed about it."""
    place, shape = point.place, judged.shape
    shown = f"{point.name} (z {place[0]}, y {place[1]}, x {place[2]})"
    if not all(0 <= c < n for c, n in zip(place, shape, strict=True)):
        raise ParameterError(f"{shown} lies outside of the volume, which has {shape} voxels")
    region = judged.labels.region
    if not all(s.start <= c < s.stop for c, s in zip(place, region, strict=True)):
        raise ParameterError(
            f"{shown} lies outside of {describe(region)}, which is all that was segmented"
        )
    sizes = images_in(judged.image)
    if sizes is not None and not all(
        c < n for c, n in zip(place[1:], sizes[place[0]], strict=True)
    ):
        raise ParameterError(
            f"{shown} lies outside of image {place[0]}, which has {sizes[place[0]]} pixels"
        )
    roi = _about(place, SECTION, shape)
    labels = judged.labels[roi][0]
    at = place[1] - roi[1].start, place[2] - roi[2].start
    number = int(labels[at])
    if not number and not point.yes:
        raise ParameterError(
            f"{shown} says no where nothing was found; mark an object, or leave it out"
        )
    if number:
        mask = _component(labels == number, at)
    else:
        mask = grow_seed(judged.probabilities.levels[0][roi][0], labels == 0, at, judged.reach)
    return Mark(point.yes, shown, find_intervals(mask[None], roi, shape), number)


def _about(place: Zyx, reach: int, shape: Zyx) -> Roi:
    z, y, x = place
    return (
        slice(z, z + 1),
        slice(max(y - reach, 0), min(y + reach, shape[1])),
        slice(max(x - reach, 0), min(x + reach, shape[2])),
    )


def _component(mask: NDArray[np.bool_], at: tuple[int, int]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    chosen: NDArray[np.bool_] = parts == parts[at]
    return chosen


def _find_painted(said: Said, shape: Zyx, engine: EngineOptions) -> list[Mark]:
    painted = said.painted
    if painted is None:
        return []
    if painted.shape != shape:
        raise ShapeError(
            f"painted regions must have the shape of the volume, {shape}: {painted.path} has "
            f"{painted.shape}"
        )
    found = _locate(painted, (NO, YES), engine, alone=True)
    meant = f"{NO} stands for none, {YES} for a mitochondrion"
    if others := sorted(found.keys() - {NO, YES}):
        raise ParameterError(f"{painted.path} holds the value {others[0]}: {meant}")
    if not found:
        raise ParameterError(f"{painted.path} paints nothing: {meant}")
    return [Mark(n == YES, f"{painted.path.name}, value {n}", found[n]) for n in sorted(found)]
