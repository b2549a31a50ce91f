"""Split: part objects that touch, each looked at whole, and number all again by first voxel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from volseg.engine.progress import Job
from volseg.engine.run import run_blocks
from volseg.geometry.grid import Block
from volseg.objects.joining import Numbering, rank_firsts
from volseg.objects.splitting import Splitter
from volseg.stages.label.split_tasks import Beginning, Split, SplitBlock, measure_block, piece_store
from volseg.stages.label.tasks import Layer, Run
from volseg.storage.arrays import StoredArray
from volseg.storage.ledger import block_key
from volseg.types import Labels, Zyx

MEASURED = 8
"""Blocks that one task measures."""


@dataclass(frozen=True)
class Renumbered:
    """The objects after splitting.

    Attributes
    ----------
    table : shape (objects + 1,)
        By the number of an object before, its number now; 0 if it fell apart.
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
    layers : what is painted into a block, before anything is split.
    """

    run: Run
    layers: Callable[[Zyx], tuple[Layer, ...]]
    guides: tuple[StoredArray, ...] = ()

    @property
    def _splitter(self) -> Splitter:
        header = self.run.ledger.header
        z, y, x = header["split_spacing"]
        plain = Splitter(
            header["split"],
            (z, y, x),
            header.get("split_depth", 1.0),
            self.run.connectivity,
            int(header["min_size"]),
            int(header.get("split_centres", 0)),
        )
        if plain.method == "offset":
            axes, far = header["split_axes"], dict(zip("zyx", header["split_reach"], strict=True))
            z, y, x = (far[axis] if axis in axes else 0.0 for axis in "zyx")
            return replace(plain, reach=(z, y, x), votes=float(header["split_votes"]))
        if plain.method != "contour":
            return plain
        return replace(
            plain,
            sure=int(header["split_sure_of_255"]),
            contour=int(header["split_contour_of_255"]),
            fewest=int(header["split_fewest"]),
        )

    def split(self, offsets: Mapping[Zyx, int], numbering: Numbering) -> Renumbered:
        """Split the objects, keep the numbers of their pieces, and number all of them again."""
        boxes, begun = self._measure(offsets, numbering)
        sides = boxes[:, 3:] - boxes[:, :3]
        small = sides.prod(1) <= int(self.run.ledger.header["split_limit"])
        self._split_blocks(boxes, begun, small)
        found = {i: s for i in offsets if (s := self._found(i)).firsts}
        whole = np.ones(numbering.objects, bool)
        for split in found.values():
            whole[np.array(split.objects) - 1] = False
        # pieces stand behind all objects until they are ranked together
        firsts = np.concatenate([begun, *(np.array(s.firsts) for s in found.values())])
        kept = np.concatenate([whole, np.ones(len(firsts) - len(whole), bool)])
        numbers, begin = rank_firsts(firsts, kept), numbering.objects
        for index, split in found.items():
            end = begin + len(split.firsts)
            piece_store(self.run.plan.store.folder, index).save_numbers(numbers[begin:end])
            begin = end
        table = np.concatenate([np.zeros(1, numbers.dtype), numbers[: numbering.objects]])
        return Renumbered(table, int(kept.sum()), int((~small).sum()))

    def pieces(self) -> dict[Zyx, tuple[Layer, ...]]:
        """Find the pieces that are painted into each block, on top of its other layers."""
        layers: dict[Zyx, tuple[Layer, ...]] = {}
        for block in self.run.plan.grid.blocks():
            layer = Layer(piece_store(self.run.plan.store.folder, block.index), 0)
            for target in self._found(block.index).targets:
                layers[target] = (*layers.get(target, ()), layer)
        return layers

    def lacks(self, index: Zyx) -> bool:
        """Tell whether the objects that begin in a block must be split, maybe once more."""
        if block_key("split", index) not in self.run.ledger.records:
            return True
        store = piece_store(self.run.plan.store.folder, index)
        return not all(store.exists(target) for target in self._found(index).targets)

    def _found(self, index: Zyx) -> Split:
        record = self.run.ledger.records.get(block_key("split", index)) or [[], [], []]
        objects, firsts, targets = record
        return Split(objects, firsts, [(z, y, x) for z, y, x in targets])

    def _measure(
        self, offsets: Mapping[Zyx, int], numbering: Numbering
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Measure the objects of the volume.

        Returns
        -------
        boxes : int64, shape (objects, 6); first voxels, and those after the last
        firsts : int64, shape (objects,); index of the first voxel in the volume's raster order
        """
        most = np.iinfo(np.int64).max
        # a place for what was dropped, too
        low, firsts = (np.full((numbering.objects + 1, *n), most) for n in ((3,), ()))
        high = np.zeros_like(low)

        def on_result(index: Zyx, found: tuple[NDArray[np.int64], NDArray[np.int64]]) -> None:
            boxes, begun = found
            number = numbering.numbers[offsets[index] :][: len(boxes)]
            np.minimum.at(low, number, boxes[:, :3])
            np.maximum.at(high, number, boxes[:, 3:])
            np.minimum.at(firsts, number, begun)

        task = partial(measure_block, self.run.plan.grid, self.run.plan.store)
        run_blocks(task, offsets, self.run.plan.engine, on_result=on_result, batch=MEASURED)
        return np.concatenate([low, high], axis=1)[1:], firsts[1:]

    def _split_blocks(
        self, boxes: NDArray[np.int64], firsts: NDArray[np.int64], small: NDArray[np.bool_]
    ) -> None:
        """Let each block split the objects that begin in it."""
        plan, grid = self.run.plan, self.run.plan.grid
        first = np.stack(np.unravel_index(firsts, grid.shape), axis=1)
        owner = np.ravel_multi_index(tuple((first // np.array(grid.size)).T), grid.counts)
        order = np.argsort(owner, kind="stable")
        bounds = np.searchsorted(owner[order], np.arange(np.prod(grid.counts) + 1))
        blocks = list(enumerate(grid.blocks()))

        def items() -> Iterator[Beginning]:
            for k, block in blocks:
                chosen = order[bounds[k] : bounds[k + 1]]
                chosen = chosen[small[chosen]]
                if self.lacks(block.index):
                    yield self._beginning(block, chosen + 1, boxes[chosen])

        def on_result(item: Beginning, found: Split) -> None:
            self.run.ledger.record(
                block_key("split", item.index), [found.objects, found.firsts, found.targets]
            )

        done = sum(not self.lacks(block.index) for _, block in blocks)
        job = Job(self.run.progress, len(blocks), "blocks", "splitting", done)
        task = SplitBlock(grid, self._splitter, plan.store.folder, self.guides)
        run_blocks(task, items(), plan.engine, on_result=on_result, progress=job)

    def _beginning(
        self, block: Block, objects: NDArray[np.int64], boxes: NDArray[np.int64]
    ) -> Beginning:
        reached = {
            near.index
            for z, y, x, end_z, end_y, end_x in boxes.tolist()
            for near in self.run.plan.grid.blocks(
                (slice(z, end_z), slice(y, end_y), slice(x, end_x))
            )
        }
        return Beginning(block.index, objects, boxes, {i: self.layers(i) for i in reached})
