"""Label one block, as a worker does: find components, join them, write objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from volseg.engine.progress import Job, Progress
from volseg.engine.run import run_blocks
from volseg.geometry.grid import Block, Grid, roi_shape, roi_size
from volseg.geometry.pyramid import reduced_shape
from volseg.objects.components import Components, number_runs
from volseg.objects.runs import Runs, paint
from volseg.stages.label.plan import LabelPlan
from volseg.stages.levels import step_factor
from volseg.storage.arrays import StoredArray
from volseg.storage.ledger import Ledger, block_key
from volseg.storage.scratch import ComponentStore
from volseg.storage.shards import encode_chunks, write_shard
from volseg.storage.volumes import Image
from volseg.types import Labels, Roi, Zyx
from volseg.voxels.downsample import reduce_labels

HOLES = "holes"
"""Of records, and of the folder of what is not object."""


@dataclass(frozen=True)
class Coarse:
    """A level that is written with level 0; its factor is counted from the level before."""

    array: StoredArray
    factor: Zyx


def coarse_levels(image: Image) -> tuple[Coarse, ...]:
    """Find the levels of labels of which each shard stands for one of level 0."""
    found: list[Coarse] = []
    fine = image.levels[0].shard
    for k in range(1, len(image.levels)):
        shard = image.levels[k].shard
        if any(round(f) * c != s for f, c, s in zip(image.factors[k], shard, fine, strict=True)):
            break
        found.append(Coarse(image.levels[k], step_factor(image, k)))
    return tuple(found)


@dataclass(frozen=True)
class Layer:
    """Components of a block, and where their numbers begin in the store."""

    store: ComponentStore
    start: int

    def load(self, index: Zyx) -> tuple[Components, Labels]:
        """Read a block's components and their numbers."""
        components = self.store.load(index)
        return components, self.store.load_numbers(self.start, self.start + len(components.sizes))


@dataclass(frozen=True)
class Numbered:
    """A block, and what is painted into it; no two layers share a voxel."""

    block: Block
    layers: tuple[Layer, ...] = field(repr=False)


@dataclass(frozen=True)
class Run:
    """The client's side of a run: what it makes, what is on record of it, and who is told."""

    plan: LabelPlan
    ledger: Ledger
    progress: Progress

    @property
    def connectivity(self) -> int:
        """The neighbours that belong to one object: 6, 18 or 26."""
        return int(self.ledger.header["connectivity"])

    @property
    def holes(self) -> ComponentStore:
        """Place for the components of what is not object."""
        return ComponentStore(self.plan.store.folder / HOLES)

    def label_blocks(
        self,
        kind: str,
        title: str,
        task: Callable[[Any], int],
        store: ComponentStore,
        as_item: Callable[[Block], Any] = lambda block: block,
    ) -> dict[Zyx, int]:
        """Keep the components of all blocks; return the number of those of each, in raster order.

        Blocks that are on record and in the store are left out.

        Parameters
        ----------
        kind, title : of records, and of the progress.
        task : labels one item, keeps its components and returns their number.
        as_item : makes an item of a block.
        """
        records, blocks = self.ledger.records, list(self.plan.grid.blocks())
        missing = [
            b
            for b in blocks
            if block_key(kind, b.index) not in records or not store.exists(b.index)
        ]

        def on_result(item: Any, count: int) -> None:
            self.ledger.record(block_key(kind, getattr(item, "block", item).index), count)

        job = Job(self.progress, len(blocks), "blocks", title, len(blocks) - len(missing))
        items = map(as_item, missing)
        run_blocks(task, items, self.plan.engine, on_result=on_result, progress=job)
        return self.counted(kind)

    def counted(self, kind: str) -> dict[Zyx, int]:
        """Look up the number of components of each block, in raster order."""
        records, blocks = self.ledger.records, self.plan.grid.blocks()
        return {b.index: int(records[block_key(kind, b.index)]) for b in blocks}


@dataclass(frozen=True)
class WriteBlock:
    """Pass 2: write one block's objects, as whole shards.

    Attributes
    ----------
    coarse : the next levels, as far as each of their shards stands for one of level 0.
    """

    labels: StoredArray
    coarse: tuple[Coarse, ...]

    def __call__(self, item: Numbered) -> int:
        """Write one block; return its voxels."""
        core = item.block.core
        loaded = [layer.load(item.block.index) for layer in item.layers]
        # once for all bricks: a block has many, and many more runs than a brick
        layers = [(found.runs, number_runs(found, numbers)) for found, numbers in loaded]
        shards = Grid(self.labels.shape, self.labels.shard).blocks(core)
        # the disk works on one shard while the next is made
        waits = [w for s in shards for w in self._write(s, _Brickwise(layers, core))]
        for wait in waits:
            wait()
        return roi_size(core)

    def _write(self, shard: Block, block: _Brickwise) -> list[Callable[[], None]]:
        """Paint, reduce and encode brick by brick: each fits into the processor's cache."""
        z, y, x = self.coarse[0].factor if self.coarse else (1, 1, 1)
        unit = self.labels.chunk[0] * z, self.labels.chunk[1] * y, self.labels.chunk[2] * x
        reduced = np.zeros(reduced_shape(roi_shape(shard.core), (z, y, x)), self.labels.dtype)
        chunks: dict[Zyx, bytes] = {}
        for brick in Grid(roi_shape(shard.core), unit).blocks():
            corner = [s.start + p.start for s, p in zip(shard.core, brick.core, strict=True)]
            labels = block.paint(corner, roi_shape(brick.core))
            if not labels.max():
                continue
            chunks |= encode_chunks(labels, self.labels, [s.start for s in brick.core])
            if self.coarse:
                small = reduce_labels(labels, (z, y, x))
                at = (s.start // f for s, f in zip(brick.core, (z, y, x), strict=True))
                reduced[tuple(slice(a, a + n) for a, n in zip(at, small.shape, strict=True))] = (
                    small
                )
        waits = [write_shard(self.labels, shard.index, chunks)]
        for k, level in enumerate(self.coarse):
            if k:
                reduced = reduce_labels(reduced, level.factor)
            chunks = encode_chunks(reduced, level.array, (0, 0, 0))
            waits.append(write_shard(level.array, shard.index, chunks))
        return waits


@dataclass(frozen=True)
class _Brickwise:
    """A block of labels, of which any brick can be painted: runs, and what each becomes."""

    layers: Sequence[tuple[Runs, Labels]]
    core: Roi

    def paint(self, corner: Sequence[int], shape: Zyx) -> Labels:
        z, y, x = (
            slice(c - s.start, c - s.start + n)
            for c, s, n in zip(corner, self.core, shape, strict=True)
        )
        height = roi_shape(self.core)[1]
        (runs, numbers), *others = self.layers
        labels = paint(runs, numbers, height, (z, y, x))
        for runs, numbers in others:
            labels |= paint(runs, numbers, height, (z, y, x))
        return labels
