"""Name the objects that a prediction missed, made up, split or merged, and tell where they lie.

Pure functions over matched objects.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from volseg.measures.sums import Extents, take
from volseg.scores.matching import Indices, Matches, Overlaps
from volseg.scores.overlap import ratio

REPORTED = 1000
"""Objects of each kind that a report lists."""
MADE_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class WrongObject:
    """One object with a mistake.

    Attributes
    ----------
    label : in its labelling
    voxels : its size
    centroid : (z, y, x) in voxels of the volume
    box : (start, stop) along each axis
    best_iou : with any object of the other side; 0 if none touches it
    others : labels of the other side that make it wrong, ascending; for splits and merges
    """

    label: int
    voxels: int
    centroid: tuple[float, float, float]
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    best_iou: float
    others: tuple[int, ...] = ()


class WrongObjects(Sequence[WrongObject]):
    """Objects with a mistake, ascending by label, kept as columns.

    No dataclass: for a report it gives itself, as arrays do, by `tolist`.

    Attributes
    ----------
    inside : of all splits or merges, the objects of the other side that lie in them; else None
    """

    def __init__(
        self,
        objects: Extents,
        best_iou: NDArray[np.float64],
        held: Held,
        inside: WrongObjects | None = None,
    ) -> None:
        self.objects, self.best_iou, self.held, self.inside = objects, best_iou, held, inside

    def __len__(self) -> int:
        return len(self.objects.labels)

    @overload
    def __getitem__(self, k: int) -> WrongObject: ...
    @overload
    def __getitem__(self, k: slice) -> WrongObjects: ...
    def __getitem__(self, k: int | slice) -> WrongObject | WrongObjects:
        """Give one object, or those of a slice."""
        if isinstance(k, slice):
            return self.take(np.arange(len(self))[k])
        return next(iter(self.take(np.array([range(len(self))[k]]))))

    def __iter__(self) -> Iterator[WrongObject]:
        """Give one object after the other, of which few are in memory at a time."""
        for start in range(0, len(self), MADE_AT_ONCE):
            yield from self.take(np.arange(start, min(start + MADE_AT_ONCE, len(self))))._made()

    def _made(self) -> Iterator[WrongObject]:
        o = self.objects
        boxes = np.stack([o.starts, o.stops], axis=2).tolist()
        rows = (o.labels.tolist(), o.voxels.tolist(), self.centroids.tolist(), boxes)
        more = self.best_iou.tolist(), self.held.lists()
        for label, voxels, (z, y, x), (a, b, c), best, held in zip(*rows, *more, strict=True):
            box = tuple(a), tuple(b), tuple(c)
            yield WrongObject(label, voxels, (z, y, x), box, best, tuple(held))

    @property
    def centroids(self) -> NDArray[np.float64]:
        """Centres of mass, (z, y, x) in voxels of the volume, shape (objects, 3)."""
        return self.objects.sums / self.objects.voxels[:, None]

    def take(self, which: Indices) -> WrongObjects:
        """Choose some of them, by position."""
        objects = take(self.objects, which)
        return WrongObjects(objects, self.best_iou[which], self.held.take(which))

    def largest(self, count: int) -> WrongObjects:
        """Choose the largest, still ascending by label; of equal ones, those that come first."""
        order = np.argsort(-self.objects.voxels, kind="stable")
        return self.take(np.sort(order[:count]))

    def tolist(self) -> list[WrongObject]:
        """Return the objects that a report lists: all, or the largest of many."""
        return list(self.largest(REPORTED))


@dataclass(frozen=True)
class Held:
    """Labels that lie in each of some objects, ascending.

    Attributes
    ----------
    labels : uint64, shape (held,); those of the first object, then those of the second, and so on.
    ends : int64, shape (objects,); where those of each object end.
    """

    labels: NDArray[np.uint64]
    ends: NDArray[np.int64]

    def lists(self) -> list[list[int]]:
        """Give the labels object by object."""
        labels, ends = self.labels.tolist(), self.ends.tolist()
        return [labels[start:end] for start, end in itertools.pairwise([0, *ends])]

    def take(self, which: Indices) -> Held:
        """Choose some objects, by position."""
        counts = np.diff(self.ends, prepend=0)[which]
        ends = np.cumsum(counts)
        # each label moves with the object it belongs to
        moved = np.repeat(self.ends[which] - ends, counts)
        return Held(self.labels[moved + np.arange(len(moved))], ends)


@dataclass(frozen=True)
class ErrorCounts:
    """Numbers of objects by kind of mistake.

    Attributes
    ----------
    missed, false, split, merged : see `ObjectErrors`
    """

    missed: int
    false: int
    split: int
    merged: int


@dataclass(frozen=True)
class ObjectErrors:
    """Mistakes, ascending by label.

    Attributes
    ----------
    missed : objects of the truth without a partner
    false : predicted objects without a partner
    split : objects of the truth that hold most of two or more predicted objects each
    merged : predicted objects that hold most of two or more objects of the truth each
    counts : how many there are of each
    """

    missed: WrongObjects
    false: WrongObjects
    split: WrongObjects
    merged: WrongObjects
    counts: ErrorCounts


def find_errors(overlaps: Overlaps, matches: Matches) -> ObjectErrors:
    """List the objects that are missed, false, split and merged.

    An object lies in another if more than half of its voxels do, so it lies in one at most. Splits
    and merges follow from that alone, whatever matched.
    """
    first, second, shared = overlaps.first, overlaps.second, overlaps.voxels
    truth, predicted = overlaps.truth, overlaps.predicted
    inside_truth = 2 * shared > predicted.voxels[second]
    inside_predicted = 2 * shared > truth.voxels[first]
    best_truth = _best(first, overlaps.iou, len(truth.labels))
    best_predicted = _best(second, overlaps.iou, len(predicted.labels))
    pieces = first[inside_truth], second[inside_truth]
    parts = second[inside_predicted], first[inside_predicted]
    missed, false = np.flatnonzero(matches.missed), np.flatnonzero(matches.false)
    ours = WrongObjects(truth, best_truth, _nothing(len(truth.labels)))
    theirs = WrongObjects(predicted, best_predicted, _nothing(len(predicted.labels)))
    found = (
        ours.take(missed),
        theirs.take(false),
        _holders(ours, *pieces, theirs),
        _holders(theirs, *parts, ours),
    )
    return ObjectErrors(*found, ErrorCounts(*(len(f) for f in found)))


def _best(which: Indices, iou: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    best = np.zeros(count)
    np.maximum.at(best, which, iou)
    return best


def _nothing(count: int) -> Held:
    return Held(np.zeros(0, np.uint64), np.zeros(count, np.int64))


def _holders(
    objects: WrongObjects, holders: Indices, held: Indices, others: WrongObjects
) -> WrongObjects:
    """Choose the objects that hold at least two others."""
    order = np.lexsort((others.objects.labels[held], holders))
    counts = np.bincount(holders, minlength=len(objects))
    labels = others.objects.labels[held[order]]
    every = WrongObjects(objects.objects, objects.best_iou, Held(labels, np.cumsum(counts)))
    found = every.take(np.flatnonzero(counts > 1))
    inside = others.take(np.unique(held[counts[holders] > 1]))
    return WrongObjects(found.objects, found.best_iou, found.held, inside)


@dataclass(frozen=True)
class SizeBin:
    """The objects of the truth of about one size.

    Attributes
    ----------
    start, stop : voxels, the latter excluded
    objects : those that count: matched or missed
    matched : of these
    recall : matched / objects
    """

    start: int
    stop: int
    objects: int
    matched: int
    recall: float


def recall_by_size(overlaps: Overlaps, matches: Matches) -> tuple[SizeBin, ...]:
    """Compute recall by size, in bins from 1, 3, 10, 30 ... voxels, ascending, none empty."""
    matched = np.zeros(len(overlaps.truth.labels), bool)
    matched[overlaps.first[matches.pairs]] = True
    counted = matched | matches.missed
    if not counted.any():
        return ()
    largest = int(overlaps.truth.voxels[counted].max())
    decades = math.ceil(math.log10(largest + 1)) + 1
    edges = np.array([lead * 10**k for k in range(decades) for lead in (1, 3)], np.int64)
    which = np.searchsorted(edges, overlaps.truth.voxels, side="right") - 1
    bins = []
    for k in np.unique(which[counted]):
        here = counted & (which == k)
        found, of = int((here & matched).sum()), int(here.sum())
        bins.append(SizeBin(int(edges[k]), int(edges[k + 1]), of, found, ratio(found, of)))
    return tuple(bins)
