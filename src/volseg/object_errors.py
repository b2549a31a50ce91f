"""Name the objects that a prediction missed, made up, split or merged, and tell where they lie.

Pure functions over matched objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.contingency import Objects
from volseg.matching import Flags, Indices, Matches, Overlaps
from volseg.metrics import ratio


@dataclass(frozen=True)
class WrongObject:
    """One object that something is wrong with.

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


@dataclass(frozen=True)
class ObjectErrors:
    """What went wrong, ascending by label.

    Attributes
    ----------
    missed : objects of the truth without a partner
    false : predicted objects without a partner
    split : objects of the truth that hold most of two or more predicted objects each
    merged : predicted objects that hold most of two or more objects of the truth each
    """

    missed: tuple[WrongObject, ...]
    false: tuple[WrongObject, ...]
    split: tuple[WrongObject, ...]
    merged: tuple[WrongObject, ...]


def find_errors(overlaps: Overlaps, matches: Matches) -> ObjectErrors:
    """List the objects that are missed, false, split and merged.

    An object lies in another if more than half of its voxels do, so it lies in one at most. Splits
    and merges follow from that alone, whatever matched.
    """
    first, second, shared = overlaps.first, overlaps.second, overlaps.voxels
    inside_truth = 2 * shared > overlaps.predicted.voxels[second]
    inside_predicted = 2 * shared > overlaps.truth.voxels[first]
    best_truth = _best(first, overlaps.iou, len(overlaps.truth.labels))
    best_predicted = _best(second, overlaps.iou, len(overlaps.predicted.labels))
    pieces = _gather(first[inside_truth], overlaps.predicted.labels[second[inside_truth]])
    parts = _gather(second[inside_predicted], overlaps.truth.labels[first[inside_predicted]])
    return ObjectErrors(
        missed=_list(overlaps.truth, best_truth, dict.fromkeys(_where(matches.missed), ())),
        false=_list(overlaps.predicted, best_predicted, dict.fromkeys(_where(matches.false), ())),
        split=_list(overlaps.truth, best_truth, pieces),
        merged=_list(overlaps.predicted, best_predicted, parts),
    )


def _where(flags: Flags) -> list[int]:
    return [int(k) for k in np.flatnonzero(flags)]


def _best(which: Indices, iou: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    best = np.zeros(count)
    np.maximum.at(best, which, iou)
    return best


def _gather(holders: Indices, held: NDArray[np.unsignedinteger]) -> dict[int, tuple[int, ...]]:
    """Collect the labels that lie in each holder, where there are at least two."""
    order = np.lexsort((held, holders))
    found, heads = np.unique(holders[order], return_index=True)
    groups = np.split(held[order], heads[1:]) if len(found) else []
    return {
        int(k): tuple(int(v) for v in group)
        for k, group in zip(found, groups, strict=True)
        if len(group) > 1
    }


def _list(
    objects: Objects, best: NDArray[np.float64], wrong: dict[int, tuple[int, ...]]
) -> tuple[WrongObject, ...]:
    found = []
    for k, others in sorted(wrong.items()):
        voxels = int(objects.voxels[k])
        z, y, x = (int(s) / voxels for s in objects.sums[k])
        low, high = objects.starts[k], objects.stops[k]
        a, b, c = ((int(low[i]), int(high[i])) for i in range(3))
        found.append(
            WrongObject(
                int(objects.labels[k]), voxels, (z, y, x), (a, b, c), float(best[k]), others
            )
        )
    return tuple(found)


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
    """Tell how much of what size was found; bins 1, 3, 10, 30 ... voxels, ascending, none empty."""
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
