"""Tiles: what a network sees of each, and which of its voxels have a share in the result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

from volseg.geometry.grid import intersect
from volseg.geometry.handover import Handover
from volseg.geometry.lattice import AxisLattice, Lattice, Tile
from volseg.stages.predict.look import Look
from volseg.stages.predict.pipeline import Context, Reading, along_axis, torch_device
from volseg.stages.predict.plan import PredictPlan
from volseg.storage.arrays import StoredArray
from volseg.types import Floats, Roi
from volseg.voxels.blend import blending_matrix, interpolation_matrix, reflected


@dataclass(frozen=True)
class Tiles:
    """Tiles of a volume, of which the input can be read.

    Attributes
    ----------
    raw : the pyramid level that the network reads.
    factor : level-0 voxels per voxel of ``raw``, (z, y, x).
    look : what the network sees of the level, and where there is tissue.
    """

    raw: StoredArray
    factor: tuple[float, float, float]
    handover: Handover
    look: Look
    device: str

    def lattice_of(self, tile: Tile) -> Lattice:
        """Find the lattice that a tile is of."""
        return self.handover.lattices[tile.lattice]

    def layer_of(self, tile: Tile) -> tuple[int, int]:
        """Tell what is read together: all of a lattice; of one of deep slices, tile by tile."""
        normal = self.lattice_of(tile).normal
        return tile.lattice, tile.position[normal] if normal else 0

    def needed(self, tile: Tile, regions: Iterable[Roi]) -> Roi:
        """Find the network voxels of a tile that have a share in what is handed over."""
        support, lattice = self.handover.support(tile), self.lattice_of(tile)
        shared = [s for box in regions if (s := intersect(support, box)) is not None]
        spans = []
        for axis, k in enumerate(tile.position):
            start, stop = min(s[axis].start for s in shared), max(s[axis].stop for s in shared)
            weights = blending(lattice.axes[axis], k)[start - support[axis].start :]
            used = np.flatnonzero(weights[: stop - start].any(axis=0))
            # at the very end of a tile its weight may round to 0
            spans.append(slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1))
        return spans[0], spans[1], spans[2]

    def read(self, tiles: Sequence[Tile]) -> Reading:
        """Read, once, what all tiles of a block see; reflection needs nothing from outside."""
        box = []
        for axis, n in enumerate(self.raw.shape):
            apart = {t.position[axis]: t for t in tiles}.values()
            seen = [reflected(*self._span(tile, axis), n) for tile in apart]
            box.append(slice(min(int(s.min()) for s in seen), max(int(s.max()) for s in seen) + 1))
        return self.look.read((box[0], box[1], box[2]), torch_device(self.device))

    def cut(self, tile: Tile, context: Context) -> Tensor | None:
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

    def _positions(self, tile: Tile, axis: int) -> tuple[np.ndarray, bool]:
        """Find where a tile's network voxels lie in ``raw``; tell whether exactly on voxels."""
        lattice, k = self.lattice_of(tile), tile.position[axis]
        along, margin = lattice.axes[axis], lattice.margin[axis]
        spacing = along.scale / self.factor[axis]
        first = along.origin(k) - margin
        network = np.arange(first, first + along.tile + 2 * margin)
        if spacing == 1:
            return network, True
        return (network + 0.5) * spacing - 0.5, False

    def _span(self, tile: Tile, axis: int) -> tuple[int, int]:
        """Find the voxels of ``raw`` that a tile sees along an axis, beyond its ends too."""
        positions, _ = self._positions(tile, axis)
        return int(np.floor(positions[0])), int(np.ceil(positions[-1])) + 1


def tiles_of(plan: PredictPlan) -> Tiles:
    """Say how the tiles of a plan are read; intensities must have been counted."""
    level, device = plan.level, plan.choice.device
    raw, factor = plan.image.levels[level], plan.image.factors[level]
    return Tiles(raw, factor, plan.handover, plan.known_look, device)


@lru_cache(maxsize=64)
def blending(axis: AxisLattice, k: int) -> Floats:
    """Look up the weights of a tile along an axis, with the resampling to level 0."""
    return blending_matrix(axis, k)
