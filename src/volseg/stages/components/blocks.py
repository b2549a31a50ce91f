"""Find the connected components of a volume of any size block by block, and number them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from volseg.engine.options import EngineOptions
from volseg.engine.run import run_blocks
from volseg.geometry.grid import Block, Grid, intersect
from volseg.objects.components import (
    EARLIER,
    Components,
    Pairs,
    find_components,
    find_seeded,
    measure_sections,
    sum_levels,
    touching,
)
from volseg.objects.joining import NO_LIMITS, Candidates, Limits, Numbering, number_objects
from volseg.sources.labels import LabelSource
from volseg.sources.masks import MaskSource
from volseg.storage.arrays import StoredArray
from volseg.storage.images import clear_padding
from volseg.storage.scratch import ComponentStore
from volseg.types import FULL_PROBABILITY, Roi, Zyx

JOINED = 8
"""Blocks that one task joins to their neighbours."""


@dataclass(frozen=True)
class MedianSlices:
    """Probabilities of a slice where one of two others agrees: the median of the three.

    The others lie the same number of slices before and after it. Where one of them was not
    predicted, the slice itself stands for it; beyond the ends of the region, the last slice does.
    What is 0, as where nothing was predicted, stays 0.

    Attributes
    ----------
    step : how many slices the others are away.
    first, stop : slices of the region that was predicted.
    lost : slices in it that were not.
    mask : outside of which nothing was.
    """

    probabilities: StoredArray
    step: int
    first: int
    stop: int
    lost: tuple[int, ...] = ()
    mask: MaskSource | None = None

    @property
    def shape(self) -> Zyx:
        """Length of each axis."""
        return self.probabilities.shape

    def __getitem__(self, roi: Roi) -> NDArray[np.uint8]:
        """Read a box."""
        wanted = np.arange(roi[0].start, roi[0].stop)
        steps = (wanted - self.step, wanted, wanted + self.step)
        before, here, after = (np.clip(at, self.first, self.stop - 1) for at in steps)
        own = self._read(here, roi)
        a, b = (self._stand_in(own, at, roi) for at in (before, after))
        found: NDArray[np.uint8] = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), own))
        found[own == 0] = 0
        found[here != wanted] = 0
        return found

    def _read(self, slices: NDArray[np.int64], roi: Roi) -> NDArray[np.uint8]:
        low = int(slices[0])  # ascending, but for repeated ends
        read = self.probabilities[slice(low, int(slices[-1]) + 1), roi[1], roi[2]]
        found: NDArray[np.uint8] = read[slices - low]
        return found

    def _stand_in(
        self, own: NDArray[np.uint8], slices: NDArray[np.int64], roi: Roi
    ) -> NDArray[np.uint8]:
        """Read other slices, and the own ones where these were not predicted."""
        found, unseen = self._read(slices, roi), np.isin(slices, self.lost)
        found[unseen] = own[unseen]
        if self.mask is None:
            return found
        low = int(slices[0])
        inside = self.mask[slice(low, int(slices[-1]) + 1), roi[1], roi[2]]
        return np.where(inside[slices - low], found, own)


@dataclass(frozen=True)
class Complement:
    """Probabilities of what others are not: 255 where these are 0.

    Attributes
    ----------
    sizes : (y, x) of the unrelated images that slices are, beyond which there is nothing; or empty.
    """

    probabilities: StoredArray | MedianSlices
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def shape(self) -> Zyx:
        """Length of each axis."""
        return self.probabilities.shape

    def __getitem__(self, roi: Roi) -> NDArray[np.uint8]:
        """Read a box."""
        found: NDArray[np.uint8] = FULL_PROBABILITY - self.probabilities[roi]
        clear_padding(found, roi, self.sizes)
        return found


@dataclass(frozen=True)
class LabelBlock:
    """Pass 1: label one block by itself and keep its components.

    Attributes
    ----------
    volume : what is at least ``level`` is foreground.
    """

    volume: StoredArray | LabelSource | MedianSlices | Complement
    level: int
    connectivity: int
    store: ComponentStore

    def __call__(self, block: Block) -> int:
        """Label one block; return the number of its components."""
        shape, connectivity = self.volume.shape, self.connectivity
        volume = self.volume[block.core]
        components = find_components(volume, block.core, shape, connectivity, level=self.level)
        self.store.save(block.index, components)
        return len(components.sizes)


@dataclass(frozen=True)
class Joined:
    """Components of a block, and the pairs that touch its neighbours.

    Attributes
    ----------
    pairs : those that touch, with each neighbour before it.
    slices : see `volseg.objects.components.measure_sections`.
    """

    components: Candidates
    pairs: list[tuple[Zyx, Pairs]]
    slices: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Evidence:
    """Seeds and sums of probabilities, looked up once more for the components of a block.

    To read them twice costs less than to keep sums and marks with every component of every run.

    Attributes
    ----------
    probabilities : what the components were found in; None where neither is needed.
    seed : level of a seed; None where none is needed.
    """

    probabilities: StoredArray | MedianSlices | Complement | None = None
    seed: int | None = None
    totals: bool = False
    sections: bool = False

    def room(self, components: int) -> Candidates:
        """Make room for so many components."""
        seeded = self.seed is not None
        return Candidates.room(
            components, seeded=seeded, totals=self.totals, sections=self.sections
        )

    def of(self, kept: Components, core: Roi) -> Candidates:
        """Measure the components of one block."""
        if self.probabilities is None or (self.seed is None and not self.totals):
            return Candidates(kept.sizes, kept.firsts)
        if len(kept.sizes) == 0:
            return self.room(0)
        volume = self.probabilities[core]
        return Candidates(
            kept.sizes,
            kept.firsts,
            None if self.seed is None else find_seeded(kept, volume, self.seed),
            sum_levels(kept, volume) if self.totals else None,
        )


@dataclass(frozen=True)
class JoinBlock:
    """Between the passes: find what touches across the borders with the blocks before.

    Attributes
    ----------
    region : in which blocks were labelled; None for all.
    """

    grid: Grid
    store: ComponentStore
    connectivity: int
    evidence: Evidence
    region: Roi | None = None

    def __call__(self, index: Zyx) -> Joined:
        """Look at one block."""
        kept, pairs = self.store.load(index), []
        here = self.store.load_planes(index)
        for step, other in before(self.grid, index) if len(kept.sizes) else ():
            if self.region is None or intersect(self.grid.block(other).core, self.region):
                there = self.store.load_planes(other)
                pairs.append((other, touching(here, there, step, self.connectivity)))
        core = self.grid.block(index).core
        found = self.evidence.of(kept, core)
        if not self.evidence.sections:
            return Joined(found, pairs)
        largest, slices = measure_sections(kept, here, core)
        return Joined(replace(found, sections=largest), pairs, slices)


def before(grid: Grid, index: Zyx) -> list[tuple[Zyx, Zyx]]:
    """List the neighbours before a block that are there: the step to each, and its index."""
    steps = ((step, grid.neighbour(index, step)) for step in EARLIER)
    return [(step, other) for step, other in steps if other is not None]


def begin_at(counts: Mapping[Zyx, int]) -> tuple[dict[Zyx, int], int]:
    """Find where each block's components begin among those of all, and how many there are."""
    *starts, total = itertools.accumulate(counts.values(), initial=0)
    return dict(zip(counts, starts, strict=True)), total


def number_components(
    task: JoinBlock,
    offsets: Mapping[Zyx, int],
    components: int,
    engine: EngineOptions,
    limits: Limits = NO_LIMITS,
) -> Numbering:
    """Join the components of all blocks across their borders, and number the objects.

    Parameters
    ----------
    offsets, components : see `begin_at`
    limits : objects beyond are dropped
    """
    whole = task.evidence.room(components)
    pairs: list[Pairs] = []
    slices: list[NDArray[np.int64]] = []

    def on_result(index: Zyx, found: Joined) -> None:
        start = offsets[index]
        whole.put(start, found.components)
        for other, local in found.pairs:
            pairs.append(local + np.array([start, offsets[other]]))
        if found.slices is not None:
            slices.append(found.slices + np.array([start, 0, 0]))

    run_blocks(task, offsets, engine, on_result=on_result, batch=JOINED)
    return number_objects(whole, pairs, limits, slices)
