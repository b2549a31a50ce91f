"""Predict one block, as a worker does: read, evaluate tiles, hand over, assemble, write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from volseg.errors import BlockError
from volseg.geometry.grid import Block, intersect, roi_shape, shift
from volseg.geometry.handover import Handover
from volseg.geometry.lattice import AxisLattice, Lattice, Tile
from volseg.models.compiled import OPENVINO
from volseg.models.devices import means_full_memory
from volseg.models.maps import share_views
from volseg.stages.predict.loading import NetworkChoice, predictor_for
from volseg.stages.predict.look import Look, is_wanted
from volseg.stages.predict.meter import tell_tile
from volseg.stages.predict.pipeline import (
    Context,
    Reading,
    Sums,
    along_axis,
    fetch,
    run_on,
    torch_device,
    weigh,
)
from volseg.storage.arrays import StoredArray
from volseg.storage.scratch import HandoverStore
from volseg.types import Floats, Roi, Zyx
from volseg.voxels.blend import (
    Shares,
    blending_matrix,
    interpolation_matrix,
    reflected,
    to_probabilities,
)

Regions: TypeAlias = Mapping[Zyx, Roi]


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
    raw : the pyramid level that the network reads.
    factor : level-0 voxels per voxel of ``raw``, (z, y, x).
    outputs : level 0 of each map that the network gives, in the order of the choice.
    handover : blocks, tiles and region.
    """

    raw: StoredArray
    factor: tuple[float, float, float]
    outputs: tuple[StoredArray, ...]
    handover: Handover
    store: HandoverStore
    look: Look
    choice: NetworkChoice

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
        regions = {t: self.handover.region(item.index, t) for t in item.targets}
        tiles = {k for t in item.targets for k in self.handover.tiles(item.index, t)}
        sums = run_on(self.choice.device, self._begin, regions)
        evaluated = 0
        for _, layer in groupby(sorted(tiles, key=self._layer), key=self._layer):
            found = list(layer)
            wanted = [t for t in found if is_wanted(self.handover, self.look.mask, t)]
            seen = self.read(wanted) if wanted else None
            evaluated += run_on(
                self.choice.device, self._evaluate_layer, found, wanted, seen, item, regions, sums
            )
        shares, flawed = run_on(self.choice.device, fetch, sums)()
        if flawed:
            raise BlockError(f"the network returned values that are not finite in {flawed[0]}")
        for target in item.targets:
            self.store.save(item.index, target, shares[target])
        return evaluated

    def _begin(self, regions: Regions) -> Sums:
        predictor_for(self.choice)  # what a worker lacks is told before anything is read
        device, maps = torch_device(self.choice.device), len(self.outputs)
        return Sums(
            {
                target: torch.zeros((maps, *roi_shape(box)), dtype=torch.int32, device=device)
                for target, box in regions.items()
            },
            {},
        )

    def _evaluate_layer(
        self,
        tiles: Sequence[Tile],
        wanted: Sequence[Tile],
        seen: Reading | None,
        item: Evaluate,
        regions: Regions,
        sums: Sums,
    ) -> int:
        """Evaluate tiles of one layer, and add their shares; return how many were evaluated."""
        context, evaluated = seen.send() if seen else None, 0
        for tile in tiles:
            inputs = self.tile_input(tile, context) if context and tile in wanted else None
            if inputs is not None:
                self._add(tile, inputs, regions, sums)
                evaluated += 1
            tell_tile(self.store.folder, item.index)
        return evaluated

    def _add(self, tile: Tile, inputs: Tensor, regions: Regions, sums: Sums) -> None:
        """Evaluate a tile, and add its shares to what is handed over."""
        predictor, lattice = predictor_for(self.choice), self._lattice(tile)
        needed = self.needed_of(tile, regions.values())
        maps = predictor.evaluate(inputs, needed, lattice.normal)
        sums.flawed[tile] = ~torch.isfinite(maps).all()
        support = self.handover.support(tile)
        z, y, x = (_blending(a, k) for a, k in zip(lattice.axes, tile.position, strict=True))
        weighted = weigh(maps, (z, y, x), self._shares(lattice))
        for target, box in regions.items():
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

    def _lattice(self, tile: Tile) -> Lattice:
        return self.handover.lattices[tile.lattice]

    def _layer(self, tile: Tile) -> tuple[int, int]:
        """Tell what is read together: all of a lattice; of one of deep slices, tile by tile."""
        normal = self._lattice(tile).normal
        return tile.lattice, tile.position[normal] if normal else 0

    def needed_of(self, tile: Tile, regions: Iterable[Roi]) -> Roi:
        """Find the network voxels of a tile that have a share in what is handed over."""
        support, lattice = self.handover.support(tile), self._lattice(tile)
        shared = [s for box in regions if (s := intersect(support, box)) is not None]
        spans = []
        for axis, k in enumerate(tile.position):
            start, stop = min(s[axis].start for s in shared), max(s[axis].stop for s in shared)
            weights = _blending(lattice.axes[axis], k)[start - support[axis].start :]
            used = np.flatnonzero(weights[: stop - start].any(axis=0))
            # at the very end of a tile its weight may round to 0
            spans.append(slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1))
        return spans[0], spans[1], spans[2]

    def _stacked(self, box: Roi) -> Zyx:
        """Size a hand-over: one map below the other, so that one file is there for all or none."""
        z, y, x = roi_shape(box)
        return len(self.outputs) * z, y, x

    def _maps(self, stacked: Shares) -> Shares:
        """View a hand-over map by map, shape (maps, z, y, x)."""
        return stacked.reshape(len(self.outputs), -1, *stacked.shape[1:])

    def _positions(self, tile: Tile, axis: int) -> tuple[np.ndarray, bool]:
        """Find where a tile's network voxels lie in ``raw``; tell whether exactly on voxels."""
        lattice, k = self._lattice(tile), tile.position[axis]
        along, margin = lattice.axes[axis], lattice.margin[axis]
        spacing = along.scale / self.factor[axis]
        first = along.origin(k) - margin
        network = np.arange(first, first + along.tile + 2 * margin)
        if spacing == 1:
            return network, True
        return (network + 0.5) * spacing - 0.5, False

    def read(self, tiles: Sequence[Tile]) -> Reading:
        """Read, once, what all tiles of a block see; reflection needs nothing from outside."""
        box = []
        for axis, n in enumerate(self.raw.shape):
            apart = {t.position[axis]: t for t in tiles}.values()
            seen = [reflected(*self._span(tile, axis), n) for tile in apart]
            box.append(slice(min(int(s.min()) for s in seen), max(int(s.max()) for s in seen) + 1))
        return self.look.read((box[0], box[1], box[2]), torch_device(self.choice.device))

    def tile_input(self, tile: Tile, context: Context) -> Tensor | None:
        """Cut, reflect and, where the voxel sizes differ, resample one tile's input.

        Where there is no tissue, what is around is mirrored; None if there is none at all.
        """
        spans = [self._span(tile, axis) for axis in range(3)]
        axes = zip(spans, self.raw.shape, strict=True)
        values = context.cut([reflected(start, stop, n) for (start, stop), n in axes])
        if values is None:
            return None
        for axis in range(3):
            positions, exact = self._positions(tile, axis)
            if not exact:
                matrix = interpolation_matrix(positions - spans[axis][0], values.shape[axis])
                values = along_axis(values, matrix, axis - 3)
        return values

    def _span(self, tile: Tile, axis: int) -> tuple[int, int]:
        """Find the voxels of ``raw`` that a tile sees along an axis, beyond its ends too."""
        positions, _ = self._positions(tile, axis)
        return int(np.floor(positions[0])), int(np.ceil(positions[-1])) + 1

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
        nothing = self.look.find_nothing(block)
        for total, array in zip(totals, self.outputs, strict=True):
            found = to_probabilities(total)
            if nothing is not None:
                found[nothing] = 0
            array.write(block, found)
        return int(np.prod(roi_shape(core)))


@lru_cache(maxsize=64)
def _blending(axis: AxisLattice, k: int) -> Floats:
    return blending_matrix(axis, k)
