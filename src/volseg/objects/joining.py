"""Joining of components across blocks to numbered objects. Pure functions over arrays.

An object is all components that touch across block borders. It is numbered by its first voxel in
raster order, and the properties that decide whether it is kept are sums over its components:
neither depends on how the volume was cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from volseg.objects.components import Pairs, mean_probabilities
from volseg.objects.dropped import Dropped, Kept
from volseg.objects.union_find import connected_groups
from volseg.types import Labels


@dataclass(frozen=True)
class Candidates:
    """Components, and the properties that decide whether they become objects.

    Attributes
    ----------
    sizes, firsts : int64, shape (components,); see `volseg.objects.components.Components`.
    seeded : bool, shape (components,); which hold a seed; None where none is needed.
    totals : int64, shape (components,)
        Sums of levels, see `volseg.objects.components.sum_levels`; None where they are not needed.
    sections : int64, shape (components,)
        Largest sections, see `volseg.objects.components.measure_sections`; None likewise.
    """

    sizes: NDArray[np.int64]
    firsts: NDArray[np.int64]
    seeded: NDArray[np.bool_] | None = None
    totals: NDArray[np.int64] | None = None
    sections: NDArray[np.int64] | None = None

    @classmethod
    def room(cls, components: int, *, seeded: bool, totals: bool, sections: bool) -> Candidates:
        """Make room for so many components."""
        sizes, firsts, total, section = np.zeros((4, components), np.int64)
        marks = np.zeros(components, bool) if seeded else None
        return cls(sizes, firsts, marks, total if totals else None, section if sections else None)

    def put(self, start: int, part: Candidates) -> None:
        """Copy the properties of one block's components into their place.

        Raises
        ------
        ValueError
            If some of that is not known of the block.
        """
        for kind, mine in vars(self).items():
            theirs = getattr(part, kind)
            if mine is not None and theirs is None:
                raise ValueError(f"of some components {kind} are not known")
            if mine is not None:
                mine[start : start + len(part.sizes)] = theirs


@dataclass(frozen=True)
class Limits:
    """Limits of what is kept as an object, in voxels; `math.inf` where there is none.

    Attributes
    ----------
    min_size, max_size : voxels
    max_section : voxels of the largest section in one slice
    min_probability : mean over the voxels
    faint_size : voxels up to which it is held to
    """

    min_size: int = 0
    max_size: float = math.inf
    max_section: float = math.inf
    min_probability: float = 0
    faint_size: float = math.inf


NO_LIMITS = Limits()
NOTHING = Kept(0, 0)


@dataclass(frozen=True)
class Numbering:
    """The objects of a volume.

    Attributes
    ----------
    numbers : uint32, or uint64 where there are more objects, shape (components,)
        The object of each component of all blocks; 0 for those that are dropped.
    dropped : by each limit that was looked at; an object beyond several counts for the first.
    kept : of the objects.
    """

    numbers: Labels
    objects: int
    dropped: Mapping[str, Dropped] = field(default_factory=dict)
    kept: Kept = NOTHING


def number_objects(
    found: Candidates,
    pairs: Sequence[Pairs],
    limits: Limits = NO_LIMITS,
    slices: Sequence[NDArray[np.int64]] = (),
) -> Numbering:
    """Join components to objects, drop those beyond limits, number the rest by first voxel.

    Parameters
    ----------
    found : the components of all blocks
        Objects without a component that is marked as seeded are dropped, if any could be marked.
    pairs : arrays of shape (pairs, 2); components, counted over all blocks, that touch.
    limits : objects beyond are dropped
    slices : int64, shapes (n, 3)
        Components, slices that they reach, and their voxels there: those whose sections may
        continue in other components.
    """
    count = len(found.sizes)
    if count == 0:
        return Numbering(np.zeros(0, np.uint32), 0)
    whole, group = connected_groups(count, np.concatenate([np.zeros((0, 2), np.int64), *pairs]))
    size, first = np.zeros(whole, np.int64), np.full(whole, np.iinfo(np.int64).max)
    np.add.at(size, group, found.sizes)
    np.minimum.at(first, group, found.firsts)
    beyond = {"min_size": size < limits.min_size}
    if found.seeded is not None:
        beyond["seeded"] = np.bincount(group[found.seeded], minlength=whole) == 0
    beyond["max_size"] = size > limits.max_size
    if found.sections is not None:
        beyond["max_section"] = _sections(found.sections, group, slices) > limits.max_section
    if found.totals is not None:
        total = np.zeros(whole, np.int64)
        np.add.at(total, group, found.totals)
        faint = mean_probabilities(total, size) < limits.min_probability
        beyond["min_probability"] = faint & (size <= limits.faint_size)
    wanted, dropped = np.ones(whole, bool), {}
    for limit, is_beyond in beyond.items():
        gone = size[wanted & is_beyond]
        dropped[limit] = Dropped(len(gone), int(gone.sum()), int(gone.max(initial=0)))
        wanted &= ~is_beyond
    number, kept = rank_firsts(first, wanted), np.sort(size[wanted])
    median = int(kept[(len(kept) - 1) // 2]) if len(kept) else 0
    return Numbering(number[group], len(kept), dropped, Kept(int(kept.sum()), median))


def _sections(
    largest: NDArray[np.int64], group: NDArray[np.int64], slices: Sequence[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Find the largest section of each object, which may be that of several components."""
    section = np.zeros(group.max() + 1, np.int64)
    np.maximum.at(section, group, largest)
    component, z, voxels = np.concatenate([np.zeros((0, 3), np.int64), *slices]).T
    both, at = np.unique(np.stack([group[component], z]), axis=1, return_inverse=True)
    summed = np.zeros(both.shape[1], np.int64)
    np.add.at(summed, at, voxels)
    np.maximum.at(section, both[0], summed)
    return section


def rank_firsts(firsts: NDArray[np.int64], kept: NDArray[np.bool_]) -> Labels:
    """Assign numbers to kept objects from 1, in the order of their first voxels; the others get 0.

    Examples
    --------
    >>> rank_firsts(np.array([30, 10, 20]), np.array([True, True, False])).tolist()
    [2, 1, 0]
    """
    chosen = np.flatnonzero(kept)
    numbers = np.zeros(len(firsts), label_type(len(chosen)))
    numbers[chosen[np.argsort(firsts[chosen])]] = np.arange(1, len(chosen) + 1)
    return numbers


def label_type(objects: int) -> np.dtype[np.unsignedinteger]:
    """Choose the smallest of uint32 and uint64 that can number this many objects."""
    return np.dtype(np.uint32 if objects <= np.iinfo(np.uint32).max else np.uint64)
