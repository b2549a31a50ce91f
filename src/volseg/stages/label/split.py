"""Split: part objects that touch, each looked at whole, and number all again by first voxel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress
from volseg.engine.run import run_blocks
from volseg.geometry.grid import Block, Grid
from volseg.objects.joining import Numbering, rank_firsts
from volseg.objects.splitting import Splitter
from volseg.stages.label.split_tasks import Beginning, MeasureBlock, Split, SplitBlock, piece_store
from volseg.stages.label.tasks import Layer
from volseg.storage.arrays import StoredArray
from volseg.storage.ledger import Ledger, block_key
from volseg.storage.scratch import ComponentStore
from volseg.types import Labels, Zyx

MEASURED = 8
"""Blocks that one task measures."""


@dataclass(frozen=True)
class Measured:
    """Bounding boxes and first voxels of the objects of a volume.

    Attributes
    ----------
    boxes : int64, shape (objects, 6)
        First voxels, and those after the last.
    firsts : int64, shape (objects,)
        Index of the first voxel in the volume's raster order.
    """

    boxes: NDArray[np.int64]
    firsts: NDArray[np.int64]


@dataclass(frozen=True)
class Renumbered:
    """The objects after splitting.

    Attributes
    ----------
    table : shape (objects + 1,)
        By the number of an object before, its number now; 0 if it fell apart.
    objects : how many there are.
    too_large : how many were left whole because their bounding box is beyond the limit.
    """

    table: Labels
    objects: int
    too_large: int


@dataclass(frozen=True)
class Splitting:
    """The client's side.

    Attributes
    ----------
    limit : voxels of the largest bounding box that is split.
    layers : what is painted into a block, before anything is split.
    centerlines : probabilities of them, where they are needed.
    """

    grid: Grid
    store: ComponentStore
    ledger: Ledger
    engine: EngineOptions
    progress: Progress
    layers: Callable[[Zyx], tuple[Layer, ...]]
    centerlines: StoredArray | None = None

    @property
    def _splitter(self) -> Splitter:
        header = self.ledger.header
        z, y, x = header["split_spacing"]
        depth = header.get("split_depth", 1.0)
        joined, smallest = int(header["connectivity"]), int(header["min_size"])
        return Splitter(header["split"], (z, y, x), depth, joined, smallest)

    def split(self, offsets: Mapping[Zyx, int], numbering: Numbering) -> Renumbered:
        """Split the objects, keep the numbers of their pieces, and number all of them again.

        Parameters
        ----------
        offsets : where the numbers of each block's components begin.
        numbering : the objects, before.
        """
        measured = self._measure(offsets, numbering)
        sides = measured.boxes[:, 3:] - measured.boxes[:, :3]
        small = sides.prod(1) <= int(self.ledger.header["split_limit"])
        self._split_blocks(measured, small)
        found = {i: s for i in offsets if (s := self._found(i)).firsts}
        whole = np.ones(numbering.objects, bool)
        for split in found.values():
            whole[np.array(split.objects) - 1] = False
        # pieces stand behind all objects until they are ranked together
        firsts = np.concatenate([measured.firsts, *(np.array(s.firsts) for s in found.values())])
        kept = np.concatenate([whole, np.ones(len(firsts) - len(whole), bool)])
        numbers, begin = rank_firsts(firsts, kept), numbering.objects
        for index, split in found.items():
            end = begin + len(split.firsts)
            piece_store(self.store.folder, index).save_numbers(numbers[begin:end])
            begin = end
        table = np.concatenate([np.zeros(1, numbers.dtype), numbers[: numbering.objects]])
        return Renumbered(table, int(kept.sum()), int((~small).sum()))

    def pieces(self) -> dict[Zyx, tuple[Layer, ...]]:
        """Find the pieces that are painted into each block, on top of its other layers."""
        layers: dict[Zyx, tuple[Layer, ...]] = {}
        for block in self.grid.blocks():
            layer = Layer(piece_store(self.store.folder, block.index), 0)
            for target in self._found(block.index).targets:
                layers[target] = (*layers.get(target, ()), layer)
        return layers

    def lacks(self, index: Zyx) -> bool:
        """Tell whether the objects that begin in a block must be split, maybe once more."""
        if block_key("split", index) not in self.ledger.records:
            return True
        store = piece_store(self.store.folder, index)
        return not all(store.exists(target) for target in self._found(index).targets)

    def _found(self, index: Zyx) -> Split:
        record = self.ledger.records.get(block_key("split", index)) or [[], [], []]
        objects, firsts, targets = record
        return Split(objects, firsts, [(z, y, x) for z, y, x in targets])

    def _measure(self, offsets: Mapping[Zyx, int], numbering: Numbering) -> Measured:
        most = np.iinfo(np.int64).max
        # a place for what was dropped, too
        low, firsts = (
            np.full((numbering.objects + 1, 3), most),
            np.full(numbering.objects + 1, most),
        )
        high = np.zeros((numbering.objects + 1, 3), np.int64)

        def on_result(index: Zyx, found: tuple[NDArray[np.int64], NDArray[np.int64]]) -> None:
            boxes, begun = found
            number = numbering.numbers[offsets[index] :][: len(boxes)]
            np.minimum.at(low, number, boxes[:, :3])
            np.maximum.at(high, number, boxes[:, 3:])
            np.minimum.at(firsts, number, begun)

        task = MeasureBlock(self.grid, self.store)
        run_blocks(task, offsets, self.engine, on_result=on_result, batch=MEASURED)
        return Measured(np.concatenate([low, high], axis=1)[1:], firsts[1:])

    def _split_blocks(self, measured: Measured, small: NDArray[np.bool_]) -> None:
        """Let each block split the objects that begin in it."""
        first = np.stack(np.unravel_index(measured.firsts, self.grid.shape), axis=1)
        owners = first // np.array(self.grid.size)
        owner = np.ravel_multi_index(tuple(owners.T), self.grid.counts)
        order = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[order], np.arange(np.prod(self.grid.counts) + 1))
        blocks = list(enumerate(self.grid.blocks()))

        def items() -> Iterator[Beginning]:
            for k, block in blocks:
                chosen = order[bounds[k] : bounds[k + 1]]
                chosen = chosen[small[chosen]]
                if self.lacks(block.index):
                    yield self._beginning(block, chosen + 1, measured.boxes[chosen])

        def on_result(item: Beginning, found: Split) -> None:
            self.ledger.record(
                block_key("split", item.index), [found.objects, found.firsts, found.targets]
            )

        done = sum(not self.lacks(block.index) for _, block in blocks)
        job = Job(self.progress, len(blocks), "blocks", "splitting", done)
        task = SplitBlock(self.grid, self._splitter, self.store.folder, self.centerlines)
        run_blocks(task, items(), self.engine, on_result=on_result, progress=job)

    def _beginning(
        self, block: Block, objects: NDArray[np.int64], boxes: NDArray[np.int64]
    ) -> Beginning:
        reached = {
            near.index
            for z, y, x, end_z, end_y, end_x in boxes.tolist()
            for near in self.grid.blocks((slice(z, end_z), slice(y, end_y), slice(x, end_x)))
        }
        return Beginning(block.index, objects, boxes, {i: self.layers(i) for i in reached})
