"""Number the connected components of a mask of any size, block by block, in scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress
from volseg.engine.run import run_blocks
from volseg.geometry.grid import Block, Grid
from volseg.objects.components import EARLIER, Pairs, find_components, render, touching
from volseg.objects.joining import Candidates, number_objects
from volseg.sources.labels import LabelSource
from volseg.storage.scratch import ComponentStore
from volseg.types import Zyx


@dataclass(frozen=True)
class FindObjects:
    """Pass 1: find the components of one block of a mask."""

    mask: LabelSource
    store: ComponentStore

    def __call__(self, block: Block) -> int:
        """Keep the components of one block; return how many there are."""
        components = find_components(self.mask[block.core], block.core, self.mask.shape)
        self.store.save(block.index, components)
        return len(components.sizes)


@dataclass(frozen=True)
class JoinObjects:
    """Between the passes: find what touches across the borders with the blocks before.

    Attributes
    ----------
    grid : of the whole volume
    indices : of the blocks that are looked at; others have no components
    """

    grid: Grid
    indices: frozenset[Zyx]
    store: ComponentStore

    def __call__(self, block: Block) -> list[tuple[Zyx, Pairs]]:
        """Return the pairs with each earlier neighbour."""
        here, found = self.store.load_planes(block.index), []
        for step in EARLIER:
            index = self.grid.neighbour(block.index, step)
            if index in self.indices and index is not None:
                found.append((index, touching(here, self.store.load_planes(index), step)))
        return found


@dataclass(frozen=True)
class MaskObjects:
    """The numbered components of a mask; rendered anew for each block.

    Attributes
    ----------
    objects : how many there are
    offsets : where the numbers of each block's components begin
    """

    store: ComponentStore
    objects: int
    offsets: dict[Zyx, int]

    def __call__(self, block: Block) -> NDArray[Any]:
        """Write the labels of one block out."""
        components, start = self.store.load(block.index), self.offsets[block.index]
        numbers = self.store.load_numbers(start, start + len(components.sizes))
        return render(components, numbers, block.core)


def number_mask(
    mask: LabelSource,
    grid: Grid,
    blocks: Sequence[Block],
    store: ComponentStore,
    engine: EngineOptions,
    progress: Progress,
) -> MaskObjects:
    """Find the 26-connected components of a mask within some blocks of a grid.

    Parameters
    ----------
    mask : what is above 0 is foreground
    grid : of the whole volume
    blocks : of that grid, cut to the region that is looked at
    store : an empty folder for scratch
    engine, progress : how it is run, and who is told

    Raises
    ------
    BlockError
        If blocks could not be read, or scratch not be written.
    """
    counts: dict[Zyx, int] = {}
    pairs: list[Pairs] = []

    def on_found(block: Block, count: int) -> None:
        counts[block.index] = count

    job = Job(progress, len(blocks), "blocks", "finding the mask's objects")
    run_blocks(FindObjects(mask, store), blocks, engine, on_result=on_found, progress=job)
    offsets, end = {}, 0
    for block in blocks:
        offsets[block.index] = end
        end += counts[block.index]

    def on_joined(block: Block, found: list[tuple[Zyx, Pairs]]) -> None:
        for other, local in found:
            pairs.append(local + np.array([offsets[block.index], offsets[other]]))

    task = JoinObjects(grid, frozenset(offsets), store)
    run_blocks(task, blocks, engine, on_result=on_joined)
    sizes, firsts = zip(*(_sizes_and_firsts(store, b) for b in blocks), strict=True)
    numbering = number_objects(Candidates(np.concatenate(sizes), np.concatenate(firsts)), pairs)
    store.save_numbers(numbering.numbers)
    return MaskObjects(store, numbering.objects, offsets)


def _sizes_and_firsts(
    store: ComponentStore, block: Block
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    kept = store.load(block.index)
    return kept.sizes, kept.firsts
