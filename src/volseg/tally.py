"""The sums of one block, piece by piece. Pure functions over arrays, whoever reads them.

Pieces follow each other in raster order, each with a halo of one voxel before it that is kept from
those before. So whatever is read is looked at once, while it is in the processor's cache.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volseg.blocks import roi_shape, shift
from volseg.moments import PAIRS, Moments, Values
from volseg.statistics import ObjectSums
from volseg.surface import Crossings, code_counts
from volseg.types import Roi, Zyx
from volseg.voxel_sums import (
    HIGHEST,
    LOWEST,
    MOMENTS,
    PRODUCTS,
    RUN,
    SQUARES,
    STARTS,
    STOPS,
    SUMS,
    TOTAL,
    VALUES,
    VOXELS,
    Sums,
    enlarge,
    number_voxels,
    sum_cells,
    sum_moments,
    sum_values,
)

Read: TypeAlias = Callable[[Roi], NDArray[Any] | None]
"""Reads a box of the volume; None may stand for one that is all 0."""

SMALLEST_TABLE = 1 << 10
LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Readers:
    """What is read of each piece.

    Attributes
    ----------
    labels : any integer type; what is not above 0 is background
    intensity, probability : uint8, uint16 or int16; None where there is nothing to sum
    """

    labels: Read
    intensity: Read | None = None
    probability: Read | None = None


def tally(
    core: Roi, shape: Zyx, piece: Zyx, readers: Readers, *, shapes: bool
) -> tuple[ObjectSums, NDArray[np.int64]]:
    """Sum over what one block holds of each object.

    Parameters
    ----------
    core : the block
    shape : of the volume
    piece : what is read at once; pieces lie on a grid anchored at the volume's origin
    readers : Readers
    shapes : also second moments and surfaces

    Returns
    -------
    sums : of the block; surfaces also of objects beside it, as far as its cells reach there
    areas : int64, voxels of objects in each slice of the block
    """
    cuts = [_cut(s, p, halo=shapes) for s, p in zip(core, piece, strict=True)]
    origin = [c[0].start for c in cuts]
    found, faces = (
        _Found(piece),
        _Faces([c[-1].stop - o for c, o in zip(cuts, origin, strict=True)], piece),
    )
    areas = np.zeros(roi_shape(core)[0], np.int64)
    for z, y, x in itertools.product(*cuts):
        box, local = (z, y, x), shift((z, y, x), origin)
        labels = readers.labels(box)
        if shapes:
            faces.enter(local)
        if labels is None and not (shapes and faces.touch(local)):
            continue
        found.number(labels, roi_shape(box))
        if shapes:
            faces.fill(found.cube, local)
        if all(b.start >= s.start for b, s in zip(box, core, strict=True)):
            if labels is not None:
                found.sum_voxels(box, readers, areas[z.start - core[0].start :])
            if shapes:
                found.sum_cells(box, shape)
        if shapes:
            faces.keep(found.cube, local)
    return found.finish(readers, shapes=shapes), areas


def _cut(span: slice, step: int, *, halo: bool) -> list[slice]:
    """Cut one axis of a block into pieces, after a halo of one voxel where the volume has one."""
    bounds = [span.start, *range((span.start // step + 1) * step, span.stop, step), span.stop]
    before = [slice(span.start - 1, span.start)] if halo and span.start else []
    return before + [slice(a, b) for a, b in itertools.pairwise(bounds)]


class _Faces:
    """The last plane, row of columns and column of slots before the piece that comes next."""

    def __init__(self, extent: Sequence[int], piece: Zyx) -> None:
        _, height, width = extent
        self.plane = np.zeros((height, width), np.int32)
        self.rows = np.zeros((piece[0] + 1, width), np.int32)
        self.column = np.zeros((piece[0] + 1, piece[1] + 1), np.int32)

    def enter(self, local: Roi) -> None:
        """Forget what lies at the other end of the block."""
        _, y, x = local
        if y.start == 0:
            self.rows[:, x] = 0
        if x.start == 0:
            self.column[:] = 0

    def touch(self, local: Roi) -> bool:
        """Tell whether there is anything just before a piece."""
        return any(face.any() for face in self._views(local))

    def fill(self, cube: NDArray[np.int32], local: Roi) -> None:
        """Write a piece's halo."""
        plane, rows, column = self._views(local)
        (d, h), w = column.shape, plane.shape[1]
        cube[0, 1:h, 1 : w + 1] = plane
        cube[:d, 0, 1 : w + 1] = rows
        cube[:d, :h, 0] = column

    def keep(self, cube: NDArray[np.int32], local: Roi) -> None:
        """Keep what the next pieces need as their halo."""
        plane, rows, column = self._views(local)
        (d, h), w = column.shape, plane.shape[1]
        plane[:] = cube[d - 1, 1:h, 1 : w + 1]
        rows[:] = cube[:d, h - 1, 1 : w + 1]
        column[:] = cube[:d, :h, w]

    def _views(self, local: Roi) -> tuple[NDArray[np.int32], ...]:
        z, y, x = local
        depth, height = z.stop - z.start + 1, y.stop - y.start + 1
        return self.plane[y, x], self.rows[:depth, x], self.column[:depth, :height]


class _Found:
    """The objects that were met so far, and their sums, a row for each slot."""

    def __init__(self, piece: Zyx) -> None:
        # a halo on all sides; the one behind is there at the volume's end only, and stays 0
        self.cube = np.zeros([n + 2 for n in piece], np.int32)
        self.runs = np.empty((math.prod(piece), RUN), np.int32)
        self.count = 0
        self.cells = np.empty((8 * math.prod(self.cube.shape[1:]), 2), np.int32)
        self.keys = np.zeros(SMALLEST_TABLE, np.uint64)
        self.slots = np.zeros(SMALLEST_TABLE, np.int32)
        self.used = 0
        self.moments = _no_moments(self.room)
        self.crossings = np.zeros((self.room, code_counts().shape[1]), np.int64)
        self.intensity, self.probability = _no_values(self.room), _no_values(self.room)

    @property
    def room(self) -> int:
        """How many slots the table may give; with half of its places free it stays fast."""
        return len(self.keys) // 2

    def number(self, labels: NDArray[Any] | None, shape: Zyx) -> None:
        """Write a piece's slots into the cube, and list their runs."""
        d, h, w = shape
        self.count = 0
        if labels is None:
            self.cube[1 : d + 1, 1 : h + 1, 1 : w + 1] = 0
            return
        known = _unsigned(labels)
        while True:
            table = self.keys, self.slots, self.used
            used, count = number_voxels(known, self.cube, self.runs, *table)
            if used >= 0:
                break
            self._enlarge()
        self.used, self.count = used, count

    def _enlarge(self) -> None:
        rows = self.room
        keys = np.zeros(2 * len(self.keys), np.uint64)
        slots = np.zeros(len(keys), np.int32)
        enlarge(self.keys, self.slots, keys, slots)
        self.keys, self.slots, self.used = keys, slots, int(slots.max())
        self.moments = np.concatenate([self.moments, _no_moments(rows)])
        self.crossings = np.concatenate([self.crossings, np.zeros_like(self.crossings)])
        self.intensity = np.concatenate([self.intensity, _no_values(rows)])
        self.probability = np.concatenate([self.probability, _no_values(rows)])

    def sum_voxels(self, box: Roi, readers: Readers, areas: NDArray[np.int64]) -> None:
        """Add a piece's voxels."""
        if not self.count:
            return
        origin = box[0].start, box[1].start, box[2].start
        sum_moments(self.runs, self.count, origin, self.moments, areas)
        for read, sums in (
            (readers.intensity, self.intensity),
            (readers.probability, self.probability),
        ):
            values = None if read is None else read(box)
            if read is not None:
                absent = np.zeros(roi_shape(box), np.uint8)
                sum_values(self.runs, self.count, absent if values is None else values, sums)

    def sum_cells(self, box: Roi, shape: Zyx) -> None:
        """Add a piece's cells."""
        d, h, w = (s.stop - s.start + 1 + (s.stop == n) for s, n in zip(box, shape, strict=True))
        near = roi_shape(box)
        if d > near[0] + 1:
            self.cube[d - 1] = 0
        if h > near[1] + 1:
            self.cube[:, h - 1] = 0
        if w > near[2] + 1:
            self.cube[:, :, w - 1] = 0
        sum_cells(self.cube, (d, h, w), code_counts(), self.crossings, self.cells)

    def finish(self, readers: Readers, *, shapes: bool) -> ObjectSums:
        """Return the sums, by label."""
        given = self.slots > 0
        labels = np.empty(self.used, np.uint64)
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


def _unsigned(labels: NDArray[Any]) -> NDArray[Any]:
    """Make labels one of the two types that the loops are compiled for."""
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
