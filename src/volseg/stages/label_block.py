"""What a worker does for one block of labels: find components, join them, write objects."""

from __future__ import annotations

from dataclasses import dataclass

from volseg.blocks import Block, Grid, roi_size
from volseg.io.arrays import StoredArray
from volseg.io.components import ComponentStore
from volseg.labels import EARLIER, Pairs, find_components, render, touching
from volseg.types import Zyx


@dataclass(frozen=True)
class LabelBlock:
    """Pass 1: label one block by itself and keep its components."""

    probabilities: StoredArray
    level: int
    store: ComponentStore

    def __call__(self, block: Block) -> int:
        """Label one block; return the number of its components."""
        mask = self.probabilities[block.core] >= self.level
        components = find_components(mask, block.core, self.probabilities.shape)
        self.store.save(block.index, components)
        return len(components.sizes)


@dataclass(frozen=True)
class JoinBlock:
    """Between the passes: find what touches across the borders with the blocks before."""

    grid: Grid
    store: ComponentStore

    def __call__(self, block: Block) -> list[tuple[Zyx, Pairs]]:
        """Return the pairs with each earlier neighbour."""
        here = self.store.load(block.index, planes=True)
        if not len(here.sizes):
            return []
        found = []
        for step in EARLIER:
            index = neighbour(self.grid, block.index, step)
            if index is not None:
                pairs = touching(here, self.store.load(index, planes=True), step)
                found.append((index, pairs))
        return found


@dataclass(frozen=True)
class WriteBlock:
    """Pass 2: write one block's objects, as whole shards."""

    labels: StoredArray
    store: ComponentStore
    offsets: dict[Zyx, int]

    def __call__(self, block: Block) -> int:
        """Write one block; return its voxels."""
        components, start = self.store.load(block.index), self.offsets[block.index]
        numbers = self.store.load_numbers(start, start + len(components.sizes))
        self.labels.write(block.core, render(components, numbers, block.core))
        return roi_size(block.core)


def neighbour(grid: Grid, index: Zyx, step: Zyx) -> Zyx | None:
    """Find the block one step away, None outside the grid."""
    z, y, x = (i + s for i, s in zip(index, step, strict=True))
    inside = all(0 <= i < n for i, n in zip((z, y, x), grid.counts, strict=True))
    return (z, y, x) if inside else None
