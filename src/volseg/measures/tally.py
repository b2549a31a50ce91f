"""The sums of one block, brick by brick. Pure functions over arrays.

Bricks follow each other in raster order, each with a halo of one voxel before it that is kept from
those before. So each voxel is read once, while it is in the processor's cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import roi_shape
from volseg.measures.object_table import ObjectSums
from volseg.measures.sums import PAIRS, Moments, Values
from volseg.measures.surface import Crossings
from volseg.measures.surface_loops import COUNTS, Drawing, Faces, Place, sum_surfaces
from volseg.measures.voxel_loops import (
    HIGHEST,
    LOWEST,
    MOMENTS,
    NEXT,
    PRODUCTS,
    RUN,
    SQUARES,
    STARTS,
    STOPS,
    SUMS,
    TOTAL,
    VALUES,
    VOXELS,
    WORD,
    Sums,
    enlarge,
    list_runs,
    sum_voxels,
)
from volseg.types import Roi, Zyx
from volseg.voxels.compilation import bind

Read: TypeAlias = Callable[[Roi], NDArray[Any] | None]
"""Reads a box of the volume; None may stand for one that is all 0."""

SMALLEST_TABLE = 1 << 10
NOTHING = np.zeros((0, 0, 0), np.uint8)
LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Readers:
    """Readers of a block's arrays, brick by brick.

    Attributes
    ----------
    labels : any integer type; what is not above 0 is background
    intensity, probability : uint8, uint16 or int16; None where there is nothing to sum
    """

    labels: Read
    intensity: Read | None = None
    probability: Read | None = None


def tally(
    core: Roi, shape: Zyx, brick: Zyx, readers: Readers, *, shapes: bool
) -> tuple[ObjectSums, NDArray[np.int64]]:
    """Sum over the voxels of each object in one block.

    Parameters
    ----------
    core : the block
    shape : of the volume
    brick : what is read at once; bricks lie on a grid anchored at the volume's origin
    shapes : also second moments and surfaces

    Returns
    -------
    sums : of the block; surfaces also of objects beside it that its pairs reach
    areas : int64, voxels of objects in each slice of the block
    """
    cuts = [_cut(s, p, halo=shapes) for s, p in zip(core, brick, strict=True)]
    found = _Found(brick, (len(cuts[1]), len(cuts[2])))
    areas = np.zeros(roi_shape(core)[0], np.int64)
    for z, (j, y), (i, x) in itertools.product(cuts[0], enumerate(cuts[1]), enumerate(cuts[2])):
        box = z, y, x
        inside = z.start >= core[0].start and y.start >= core[1].start and x.start >= core[2].start
        found.list_runs(readers.labels(box))
        if inside and found.count:
            found.sum_voxels(box, readers, areas[z.start - core[0].start :])
        if shapes:
            found.sum_surfaces(box, shape if inside else None, (j, i))
    return found.finish(readers, shapes=shapes), areas


def _cut(span: slice, step: int, *, halo: bool) -> list[slice]:
    """Cut one axis of a block into bricks, after a halo of one voxel where the volume has one."""
    bounds = [span.start, *range((span.start // step + 1) * step, span.stop, step), span.stop]
    before = [slice(span.start - 1, span.start)] if halo and span.start else []
    return before + [slice(a, b) for a, b in itertools.pairwise(bounds)]


def _no_faces(bricks: tuple[int, int], brick: Zyx) -> Faces:
    """Make room for the faces of so many bricks along y and x."""
    d, h, w = brick
    return Faces(
        np.empty((*bricks, h * w, NEXT), np.int32),
        np.empty((bricks[1], (d + 1) * w, NEXT), np.int32),
        np.empty(((d + 1) * (h + 1), NEXT), np.int32),
        np.zeros([n + 1 for n in bricks], np.int32),
    )


class _Found:
    """Objects found so far, and their sums, one row for each slot."""

    def __init__(self, brick: Zyx, bricks: tuple[int, int]) -> None:
        d, h, w = brick
        self.faces = _no_faces(bricks, brick)
        self.runs = np.empty(((d + 1) * (h + 1) * (w + 1), RUN), np.int32)
        self.count = 0
        self.drawn = np.zeros((d + 2, w // WORD + 2, h + 2), np.uint64)
        self.keys = np.zeros(SMALLEST_TABLE, np.uint64)
        self.slots = np.zeros(SMALLEST_TABLE, np.int32)
        self.used = np.zeros(1, np.int64)
        words = -(-h * w // WORD)
        self.words = np.empty(words * WORD, np.uint8), np.empty(words, np.uint64)
        self.moments = _no_moments(self.room)
        self.crossings = np.zeros((self.room, COUNTS), np.int64)
        self.intensity, self.probability = _no_values(self.room), _no_values(self.room)
        self._bind()

    @property
    def room(self) -> int:
        """Return the number of slots that the table may hold: half of its places stay free."""
        return len(self.keys) // 2

    def _bind(self) -> None:
        """Bind the loops to the arrays that stay the same for many bricks."""
        heads, met = np.zeros((2, self.room + 1), np.int32)
        space = Drawing(self.drawn, heads, met)
        table = self.keys, self.slots, self.used
        sums = self.moments, self.intensity, self.probability
        self.list = bind(list_runs, self.runs, table, self.words)
        self.sum = bind(sum_voxels, self.runs, sums)
        self.cross = bind(sum_surfaces, self.runs, self.faces, space, self.crossings)

    def list_runs(self, labels: NDArray[Any] | None) -> None:
        """List a brick's runs."""
        self.count = 0
        if labels is None:
            return
        known = _unsigned(labels)
        planes = known.reshape(len(known), -1)
        while (count := self.list(planes, labels.shape[2])) < 0:
            self._enlarge()
        self.count = count

    def _enlarge(self) -> None:
        rows = self.room
        keys = np.zeros(2 * len(self.keys), np.uint64)
        slots = np.zeros(len(keys), np.int32)
        enlarge(self.keys, self.slots, keys, slots)
        self.keys, self.slots = keys, slots
        self.moments = np.concatenate([self.moments, _no_moments(rows)])
        self.crossings = np.concatenate([self.crossings, np.zeros_like(self.crossings)])
        self.intensity = np.concatenate([self.intensity, _no_values(rows)])
        self.probability = np.concatenate([self.probability, _no_values(rows)])
        self._bind()

    def sum_voxels(self, box: Roi, readers: Readers, areas: NDArray[np.int64]) -> None:
        """Add a brick's voxels."""
        origin = box[0].start, box[1].start, box[2].start
        values = _read(readers.intensity, box), _read(readers.probability, box)
        self.sum(self.count, origin, areas, values)

    def sum_surfaces(self, box: Roi, shape: Zyx | None, at: tuple[int, int]) -> None:
        """Add a brick's pairs, unless the volume's shape is missing; keep its faces."""
        j, i = at
        beside = self.faces.counts
        if not (self.count or beside[j, i] or beside[-1, i] or beside[-1, -1]):
            return
        d, h, w = extent = roi_shape(box)
        ends = (0, 0, 0)
        if shape is not None:
            z, y, x = box
            ends = d + (z.stop == shape[0]), h + (y.stop == shape[1]), w + (x.stop == shape[2])
        self.cross(self.count, Place(extent, ends, at))

    def finish(self, readers: Readers, *, shapes: bool) -> ObjectSums:
        """Return the sums, by label."""
        given = self.slots > 0
        labels = np.empty(self.used[0], np.uint64)
        labels[self.slots[given] - 1] = self.keys[given]
        order = np.argsort(labels)
        # what only the halo holds has no voxels here
        own = order[self.moments[order, VOXELS] > 0]
        crossed = order[self.crossings[order].any(axis=1)]
        crossings = self.crossings[crossed]
        return ObjectSums(
            _moments(labels[own], self.moments[own], shapes=shapes),
            Crossings(labels[crossed], crossings[:, :-1], crossings[:, -1]) if shapes else None,
            _values(labels[own], self.intensity[own]) if readers.intensity else None,
            _values(labels[own], self.probability[own]) if readers.probability else None,
        )


def _read(read: Read | None, box: Roi) -> NDArray[Any]:
    """Read a box; without a reader it is empty."""
    if read is None:
        return NOTHING
    values = read(box)
    return np.zeros(roi_shape(box), np.uint8) if values is None else np.ascontiguousarray(values)


def _unsigned(labels: NDArray[Any]) -> NDArray[Any]:
    """Convert labels to one of the two types that the loops are compiled for."""
    wide = np.uint32 if labels.dtype.itemsize <= 4 else np.uint64
    if labels.dtype.kind != "u":
        labels = np.maximum(labels, 0)
    return np.ascontiguousarray(labels, wide)


def _no_moments(rows: int) -> Sums:
    sums = np.zeros((rows, MOMENTS), np.int64)
    sums[:, STARTS:STOPS] = LARGEST
    return sums


def _no_values(rows: int) -> Sums:
    sums = np.zeros((rows, VALUES), np.int64)
    sums[:, LOWEST], sums[:, HIGHEST] = LARGEST, -LARGEST
    return sums


def _moments(labels: NDArray[np.uint64], sums: Sums, *, shapes: bool) -> Moments:
    products = sums[:, PRODUCTS : PRODUCTS + (len(PAIRS) if shapes else 0)]
    starts, stops = sums[:, STARTS:STOPS], sums[:, STOPS:PRODUCTS]
    return Moments(labels, sums[:, VOXELS], sums[:, SUMS:STARTS], starts, stops, products)


def _values(labels: NDArray[np.uint64], sums: Sums) -> Values:
    squares = sums[:, SQUARES].view(np.uint64)
    return Values(labels, sums[:, TOTAL], squares, sums[:, LOWEST], sums[:, HIGHEST])
