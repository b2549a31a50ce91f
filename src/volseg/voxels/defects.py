"""Defects of a stack: slices missing, repeated, blurred, shifted, or of another contrast."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from volseg.types import Doubles
from volseg.voxels.slices import HIGH, LOW, QUARTERS

MISSING_PART = 0.99
"""Part of a slice in constant areas from which nothing is left of it."""
FLAT, DULL = 0.05, 0.6
"""Parts of the usual range of intensities, and of the usual sharpness, that are too little."""
NEAR = 3
"""Slices on either side that say how sharp a slice should be."""
ALIKE, BETTER = 0.5, 0.3
"""Correlation of neighbours that lie right, and what it lacks before one of them is moved."""
SAME, OTHER = 0.4, 0.3
"""Correlation of neighbours, at the median: as they lie, where they show much the same things; and
moved to fit best, below which they show others."""
UNEVEN, SUDDEN = 0.15, 4
"""Change of brightness, in contrasts of the usual slice, and how much larger than usual it is."""
LONGEST_BRIDGE = 2
"""Slices that may be missing in a row for those around them to stand in for them."""


@dataclass(frozen=True)
class Defects:
    """Defects by kind: positions of slices, ascending.

    Attributes
    ----------
    missing : constant, or next to it.
    repeated : equal to the slice before.
    blurred : much less sharp than those around them.
    shifted : fit the slice before better when they are moved.
    jumps : much brighter or darker than the slice before, where that is not the rule.
    """

    missing: tuple[int, ...] = ()
    repeated: tuple[int, ...] = ()
    blurred: tuple[int, ...] = ()
    shifted: tuple[int, ...] = ()
    jumps: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for field in fields(self):
            yield field.name, getattr(self, field.name)


@dataclass(frozen=True)
class Columns:
    """Notes on each slice; see `volseg.voxels.slices.SliceNotes`."""

    quantiles: Doubles
    sharpness: Doubles
    constant: Doubles
    likeness: Doubles
    repeats: NDArray[np.bool_]


def find_missing(slices: Columns) -> NDArray[np.bool_]:
    """Find the slices that hold nothing; in a volume without any contrast, all.

    Returns
    -------
    bool, shape (slices,)
    """
    spread = slices.quantiles[:, -1] - slices.quantiles[:, 0]
    held = slices.constant < MISSING_PART
    usual = np.median(spread[held]) if held.any() else 0.0
    return np.asarray(~held | (spread <= FLAT * usual))


def correlate_neighbours(slices: Columns) -> tuple[float, float]:
    """Find how alike neighbours are at the median: as they lie, and moved to fit best; else 1, 1.

    Slices that hold nothing, or are too long for a thumbnail, are left out.
    """
    missing = find_missing(slices)
    follows = ~missing[1:] & ~missing[:-1] & (slices.likeness[1:, 1] > 0)
    if not follows.any():
        return 1.0, 1.0
    plain, best = np.median(slices.likeness[1:, :2][follows], axis=0).tolist()
    return plain, best


def find_defects(slices: Columns) -> Defects:
    """Find the slices that something is wrong with."""
    missing = find_missing(slices)
    held = np.flatnonzero(~missing)
    if len(held) < 2:
        return Defects(missing=_positions(missing))
    follows = np.zeros(len(missing), bool)
    follows[1:] = ~missing[1:] & ~missing[:-1]
    repeated = slices.repeats & follows
    zero, best, *_ = slices.likeness.T
    moved = np.abs(slices.likeness[:, 2:]).max(axis=1) > 0
    shifted = follows & ~repeated & moved & (best > ALIKE) & (best - zero > BETTER)
    # a single slice lies wrong to both neighbours; the second only leads back
    shifted[1:] &= ~(shifted[:-1] & _leads_back(slices.likeness[:, 2:]))
    return Defects(
        missing=_positions(missing),
        repeated=_positions(repeated),
        blurred=_blurred(slices, held),
        shifted=_positions(shifted),
        jumps=_jumps(slices, held),
    )


def _leads_back(steps: Doubles) -> NDArray[np.bool_]:
    """Tell for each step but the first whether it undoes most of the one before."""
    undone = np.abs(steps[1:] + steps[:-1]).max(axis=1)
    return np.asarray(undone < np.abs(steps[:-1]).max(axis=1) / 2)


def _positions(found: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(found).tolist())


def _blurred(slices: Columns, held: NDArray[np.int64]) -> tuple[int, ...]:
    spread = np.ptp(slices.quantiles[:, QUARTERS], axis=1)
    sharp = (slices.sharpness / np.maximum(spread, 1e-30))[held]
    found = []
    for k, z in enumerate(held):
        around = np.r_[sharp[max(k - NEAR, 0) : k], sharp[k + 1 : k + 1 + NEAR]]
        if sharp[k] < DULL * np.median(around):
            found.append(int(z))
    return tuple(found)


def _jumps(slices: Columns, held: NDArray[np.int64]) -> tuple[int, ...]:
    steps = np.diff(_brightness(slices, held), axis=0)
    changes = np.abs(steps).max(axis=1)
    large = changes > max(UNEVEN, SUDDEN * float(np.median(changes)))
    large[1:] &= ~(large[:-1] & _leads_back(steps))
    return tuple(held[1:][large].tolist())


def _brightness(slices: Columns, held: NDArray[np.int64]) -> Doubles:
    """Measure both ends of each slice's intensities in contrasts of the usual slice."""
    ends = slices.quantiles[held][:, [LOW, HIGH]]
    return np.asarray(ends / max(float(np.median(ends[:, 1] - ends[:, 0])), 1e-30))


def is_uneven(slices: Columns) -> bool:
    """Tell whether the brightness of slices differs so much that they are better made alike."""
    held = np.flatnonzero(~find_missing(slices))
    if len(held) < 2:
        return False
    low, high = np.quantile(_brightness(slices, held), [0.1, 0.9], axis=0)
    return bool((high - low).max() > UNEVEN) or bool(_jumps(slices, held))


@dataclass(frozen=True)
class Bridge:
    """A slice that two others stand in for.

    Attributes
    ----------
    at, below, above : positions.
    weight : of the one above.
    kept : whether what is found in it counts, or it is shown for the sake of its neighbours alone.
    """

    at: int
    below: int
    above: int
    weight: float
    kept: bool


def bridge(missing: Iterable[int], depth: int) -> tuple[Bridge, ...]:
    """Say what stands in for missing slices: nothing if there is no other.

    Examples
    --------
    >>> [(b.below, b.above, b.weight, b.kept) for b in bridge([0, 2], 4)]
    [(1, 1, 0.0, False), (1, 3, 0.5, True)]
    """
    gone, found = sorted(set(missing)), []
    runs = itertools.groupby(enumerate(gone), lambda pair: pair[1] - pair[0])
    for _, members in runs:
        run = [z for _, z in members]
        below, above = run[0] - 1, run[-1] + 1
        inner = below >= 0 and above < depth
        if not inner and below < 0 and above >= depth:
            return ()
        below, above = (below if below >= 0 else above), (above if above < depth else below)
        for z in run:
            weight = (z - below) / (above - below) if inner else 0.0
            found.append(Bridge(z, below, above, weight, inner and len(run) <= LONGEST_BRIDGE))
    return tuple(found)
