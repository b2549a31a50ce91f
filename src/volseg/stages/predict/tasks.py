"""Predict one block, as a worker does: read, evaluate tiles, hand over, assemble, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from volseg.errors import BlockError
from volseg.geometry.grid import Block, intersect, roi_shape, shift
from volseg.geometry.handover import Handover
from volseg.geometry.lattice import Lattice, Tile
from volseg.models.compiled import OPENVINO
from volseg.models.devices import means_full_memory
from volseg.models.maps import share_views
from volseg.stages.predict.loading import NetworkChoice, predictor_for
from volseg.stages.predict.look import is_wanted
from volseg.stages.predict.meter import tell_tile
from volseg.stages.predict.pipeline import Reading, Sums, fetch, run_on, torch_device, weigh
from volseg.stages.predict.tiles import Tiles, blending
from volseg.storage.arrays import StoredArray
from volseg.storage.scratch import HandoverStore
from volseg.types import Roi, Zyx
from volseg.voxels.blend import Shares, to_probabilities


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a block's tiles, as far as the targets need them."""

    block: Block
    targets: tuple[Zyx, ...]

    @property
    def index(self) -> Zyx:
        """The block's position."""
        return self.block.index

    def __str__(self) -> str:
        """Name the block; some of what its tiles see lies around it."""
        return f"tiles of {self.block}"


@dataclass(frozen=True)
class PredictTask:
    """Everything a worker must know, but no arrays; called with one item at a time.

    Attributes
    ----------
    outputs : level 0 of each map that the network gives, in the order of the choice.
    """

    tiles: Tiles
    outputs: tuple[StoredArray, ...]
    store: HandoverStore
    choice: NetworkChoice

    @property
    def handover(self) -> Handover:
        """Blocks, tiles and region."""
        return self.tiles.handover

    @property
    def on_gpu(self) -> bool:
        """Tell whether tiles are evaluated on a GPU."""
        return self.choice.device not in {"cpu", OPENVINO}

    def __call__(self, item: Evaluate | Block) -> int:
        """Evaluate tiles, or write what was handed to a block; return how many tiles or voxels."""
        try:
            return self._evaluate(item) if isinstance(item, Evaluate) else self._assemble(item)
        except (MemoryError, RuntimeError) as error:
            if not means_full_memory(error):
                raise
            remedy = "give fewer --workers (a --cluster fewer cores), or --overwrite and a smaller"
            raise MemoryError(f"{error}; {remedy} --block") from error

    def _evaluate(self, item: Evaluate) -> int:
        tiles = {k for t in item.targets for k in self.handover.tiles(item.index, t)}
        device, evaluated = self.choice.device, 0
        sums = run_on(device, self._begin, item)
        for _, layer in groupby(sorted(tiles, key=self.tiles.layer_of), self.tiles.layer_of):
            found = list(layer)
            wanted = [t for t in found if is_wanted(self.handover, self.tiles.look.mask, t)]
            seen = self.tiles.read(wanted) if wanted else None
            evaluated += run_on(device, self._evaluate_layer, item, found, wanted, seen, sums)
        shares, flawed = run_on(device, fetch, sums)()
        if flawed:
            raise BlockError(f"the network returned values that are not finite in {flawed[0]}")
        for target in item.targets:
            self.store.save(item.index, target, shares[target])
        return evaluated

    def _begin(self, item: Evaluate) -> Sums:
        predictor_for(self.choice)  # what a worker lacks is told before anything is read
        regions = {t: self.handover.region(item.index, t) for t in item.targets}
        device, maps = torch_device(self.choice.device), len(self.outputs)
        totals = {
            target: torch.zeros((maps, *roi_shape(box)), dtype=torch.int32, device=device)
            for target, box in regions.items()
        }
        return Sums(regions, totals, {})

    def _evaluate_layer(
        self,
        item: Evaluate,
        tiles: Sequence[Tile],
        wanted: Sequence[Tile],
        seen: Reading | None,
        sums: Sums,
    ) -> int:
        """Evaluate tiles of one layer, and add their shares; return how many were evaluated."""
        context, evaluated = seen.send() if seen else None, 0
        for tile in tiles:
            inputs = self.tiles.cut(tile, context) if context and tile in wanted else None
            if inputs is not None:
                self._add(tile, inputs, sums)
                evaluated += 1
            tell_tile(self.store.folder, item.index)
        return evaluated

    def _add(self, tile: Tile, inputs: Tensor, sums: Sums) -> None:
        """Evaluate a tile, and add its shares to what is handed over."""
        predictor, lattice = predictor_for(self.choice), self.tiles.lattice_of(tile)
        needed = self.tiles.needed(tile, sums.regions.values())
        maps = predictor.evaluate(inputs, needed, lattice.normal)
        sums.flawed[tile] = ~torch.isfinite(maps).all()
        support = self.handover.support(tile)
        z, y, x = (blending(a, k) for a, k in zip(lattice.axes, tile.position, strict=True))
        weighted = weigh(maps, (z, y, x), self._shares(lattice))
        for target, box in sums.regions.items():
            shared = intersect(support, box)
            if shared is not None:
                own = shift(shared, [s.start for s in box])
                seen = shift(shared, [s.start for s in support])
                sums.totals[target][:, *own] += weighted[:, *seen]

    def _shares(self, lattice: Lattice) -> list[int]:
        """Count the views that share each map, as `weigh` takes them."""
        views = len(self.handover.lattices)
        known = predictor_for(self.choice).maps if views > 1 else ()
        return [
            share_views(known[k], lattice.normal, views) if k < len(known) else views
            for k in self.choice.maps
        ]

    def _stacked(self, box: Roi) -> Zyx:
        """Size a hand-over: one map below the other, so that one file is there for all or none."""
        z, y, x = roi_shape(box)
        return len(self.outputs) * z, y, x

    def _maps(self, stacked: Shares) -> Shares:
        """View a hand-over map by map, shape (maps, z, y, x)."""
        return stacked.reshape(len(self.outputs), -1, *stacked.shape[1:])

    def _assemble(self, item: Block) -> int:
        """Sum what was handed over and write whole shards; outside the region stays zero."""
        core, block = self.handover.core(item.index), item.core
        totals = self._maps(np.zeros(self._stacked(block), np.uint16))
        for source in self.handover.sources(item.index):
            box = self.handover.region(source, item.index)
            handed = self._maps(self.store.load(source, item.index, self._stacked(box)))
            own = shift(box, [s.start for s in block])
            for total, added in zip(totals, handed, strict=True):
                total[own] += added
        nothing = self.tiles.look.find_nothing(block)
        for total, array in zip(totals, self.outputs, strict=True):
            found = to_probabilities(total)
            if nothing is not None:
                found[nothing] = 0
            array.write(block, found)
        return int(np.prod(roi_shape(core)))
