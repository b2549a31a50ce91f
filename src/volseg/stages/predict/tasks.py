"""Predict one block, as a worker does: read, evaluate tiles, hand over, assemble, write."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from volseg.errors import BlockError
from volseg.geometry.grid import Block, intersect, roi_shape, shift
from volseg.geometry.handover import Handover
from volseg.geometry.lattice import AxisLattice
from volseg.models.devices import choose_device, choose_precision
from volseg.models.inference import Predictor, build_predictor
from volseg.models.registry import Views, find_architecture
from volseg.stages.predict.look import Context, Look, is_wanted
from volseg.stages.predict.meter import tell_tile
from volseg.storage.arrays import StoredArray
from volseg.storage.scratch import HandoverStore
from volseg.storage.weights import load_card, load_weights
from volseg.types import Floats, Roi, Zyx
from volseg.voxels.blend import (
    Shares,
    along_axes,
    blending_matrix,
    interpolation_matrix,
    reflected,
    to_probabilities,
    to_shares,
)

_NETWORK = threading.Lock()
"""One tile at a time per process: a network uses all cores, or the whole GPU, by itself."""


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
class NetworkChoice:
    """A network, and how it evaluates tiles; see `volseg.models.inference`.

    Attributes
    ----------
    model : path of the weights.
    device, precision : never ``auto``: what was chosen when the run was planned, for all workers.
    centerline : whether what the network says of centerlines is wanted, too.
    """

    model: str
    device: str
    precision: str
    tta: bool = False
    rotations: bool = False
    views: Views = "xy"
    centerline: bool = False


@dataclass(frozen=True)
class PredictTask:
    """Everything a worker must know, but no arrays; called with one item at a time.

    Attributes
    ----------
    raw : the pyramid level that the network reads.
    factor : level-0 voxels per voxel of ``raw``, (z, y, x).
    output : probabilities, level 0; None if only centerlines are lacking.
    handover : blocks, tiles and region.
    store : where blocks exchange what they evaluated.
    look : what the network sees of it, and where there is tissue.
    margin : network voxels per side by which a tile's input exceeds it.
    choice : which network evaluates tiles, and how.
    centerline : probabilities of centerlines, level 0; None if they are not wanted.
    """

    raw: StoredArray
    factor: tuple[float, float, float]
    output: StoredArray | None
    handover: Handover
    store: HandoverStore
    look: Look
    margin: Zyx
    choice: NetworkChoice
    centerline: StoredArray | None = None

    @property
    def outputs(self) -> list[tuple[int, StoredArray]]:
        """List which of the network's maps are written, and where."""
        arrays = enumerate((self.output, self.centerline))
        return [(k, array) for k, array in arrays if array is not None]

    @property
    def on_gpu(self) -> bool:
        """Tell whether tiles are evaluated on a GPU."""
        return self.choice.device != "cpu"

    def __call__(self, item: Evaluate | Block) -> int:
        """Evaluate tiles, or add up what was handed to a block and write it.

        Returns
        -------
        the number of tiles evaluated, or of voxels written
        """
        try:
            return self._evaluate(item) if isinstance(item, Evaluate) else self._assemble(item)
        except MemoryError as error:
            remedy = "give fewer --workers (a --cluster fewer cores), or --overwrite and a smaller"
            raise MemoryError(f"{error}; {remedy} --block") from error

    def _evaluate(self, item: Evaluate) -> int:
        regions = {t: self.handover.region(item.index, t) for t in item.targets}
        tiles = sorted({k for t in item.targets for k in self.handover.tiles(item.index, t)})
        shares = {t: np.zeros(self._stacked(box), np.uint16) for t, box in regions.items()}
        wanted = [t for t in tiles if is_wanted(self.handover, self.look.mask, t)]
        context = self._read(wanted) if wanted else None
        predictor, evaluated = predictor_for(self.choice), 0
        for tile in tiles:
            inputs = self._tile_input(tile, context) if context and tile in wanted else None
            if inputs is None:
                tell_tile(self.store.folder, item.index)
                continue
            with _NETWORK:
                probabilities = predictor(inputs, self._needed_of(tile, regions.values()))
            if not np.isfinite(probabilities).all():
                raise BlockError(f"the network returned values that are not finite in tile {tile}")
            maps = probabilities.reshape(-1, *probabilities.shape[-3:])
            support = self.handover.lattice.support(tile)
            weighted = [self._weigh(tile, maps[k]) for k, _ in self.outputs]
            for target, box in regions.items():
                shared = intersect(support, box)
                if shared is not None:
                    own = shift(shared, [s.start for s in box])
                    seen = shift(shared, [s.start for s in support])
                    for total, added in zip(self._maps(shares[target]), weighted, strict=True):
                        total[own] += added[seen]
            evaluated += 1
            tell_tile(self.store.folder, item.index)
        for target in item.targets:
            self.store.save(item.index, target, shares[target])
        return evaluated

    def _needed_of(self, tile: Zyx, regions: Iterable[Roi]) -> Roi:
        """Find the network voxels of a tile that have a share in what is handed over."""
        support, lattice = self.handover.lattice.support(tile), self.handover.lattice.axes
        shared = [s for box in regions if (s := intersect(support, box)) is not None]
        spans = []
        for axis, k in enumerate(tile):
            start, stop = min(s[axis].start for s in shared), max(s[axis].stop for s in shared)
            weights = _blending(lattice[axis], k)[start - support[axis].start :]
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

    def _weigh(self, tile: Zyx, probabilities: Floats) -> Shares:
        axes = zip(self.handover.lattice.axes, tile, strict=True)
        z, y, x = (_blending(a, k) for a, k in axes)
        return to_shares(along_axes(probabilities, (z, y, x)))

    def _positions(self, axis: int, k: int) -> tuple[np.ndarray, bool]:
        """Find where tile k's network voxels lie in ``raw``; tell whether exactly on voxels."""
        lattice = self.handover.lattice.axes[axis]
        spacing = lattice.scale / self.factor[axis]
        first = lattice.origin(k) - self.margin[axis]
        network = np.arange(first, first + lattice.tile + 2 * self.margin[axis])
        if spacing == 1:
            return network, True
        return (network + 0.5) * spacing - 0.5, False

    def _read(self, tiles: Sequence[Zyx]) -> Context:
        """Read, once, what all tiles of a block see; reflection needs nothing from outside."""
        box = []
        for axis in range(3):
            n = self.raw.shape[axis]
            needed = [self._needed(axis, k, n) for k in sorted({t[axis] for t in tiles})]
            box.append(slice(min(a for a, _ in needed), max(b for _, b in needed)))
        return self.look.read((box[0], box[1], box[2]))

    def _needed(self, axis: int, k: int, length: int) -> tuple[int, int]:
        seen = reflected(*self._span(axis, k), length)
        return int(seen.min()), int(seen.max()) + 1

    def _tile_input(self, tile: Zyx, context: Context) -> Floats | None:
        """Cut, reflect and, where the voxel sizes differ, resample one tile's input.

        Where there is no tissue, what is around is mirrored; None if there is none at all.
        """
        spans = [self._span(axis, k) for axis, k in enumerate(tile)]
        axes = zip(spans, self.raw.shape, strict=True)
        values = context.cut([reflected(start, stop, n) for (start, stop), n in axes])
        if values is None:
            return None
        for axis, k in enumerate(tile):
            positions, exact = self._positions(axis, k)
            if not exact:
                matrix = interpolation_matrix(positions - spans[axis][0], values.shape[axis])
                values = np.moveaxis(np.tensordot(matrix, values, axes=(1, axis)), 0, axis)
        return values

    def _span(self, axis: int, k: int) -> tuple[int, int]:
        """Find the voxels of ``raw`` that a tile sees along an axis, beyond its ends too."""
        positions, _ = self._positions(axis, k)
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
        for total, (_, array) in zip(totals, self.outputs, strict=True):
            found = to_probabilities(total)
            if nothing is not None:
                found[nothing] = 0
            array.write(block, found)
        return int(np.prod(roi_shape(core)))


@lru_cache(maxsize=64)
def _blending(axis: AxisLattice, k: int) -> Floats:
    return blending_matrix(axis.support(k), axis.origin(k), axis.tile, axis.overlap, axis.scale)


_LOADING = threading.Lock()


def predictor_for(choice: NetworkChoice) -> Predictor:
    """Load a model once per process."""
    with _LOADING:
        return _load_predictor(choice)


@lru_cache(maxsize=2)
def _load_predictor(choice: NetworkChoice) -> Predictor:
    card, device = load_card(choice.model), choose_device(choice.device)
    weights = load_weights(Path(choice.model), card)
    architecture = find_architecture(card.architecture)
    return build_predictor(
        architecture.build(card.width),
        weights,
        device,
        choose_precision(choice.precision, device),
        architecture=architecture,
        tta=choice.tta,
        rotations=choice.rotations,
        views=choice.views,
        centerline=choice.centerline,
    )
