"""Assignment of tiles to blocks, and hand-overs between neighbouring blocks. Pure arithmetic.

A block evaluates the tiles whose home lies in its core. Their shares reach into neighbours; the
part that falls into one block's core is a *hand-over*. A block is complete when all of those for it
are there.
Everything factorises by axis, so nothing here grows with the number of blocks. A run has a lattice
of tiles for each axis that its network looks along.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from volseg.geometry.grid import Grid
from volseg.geometry.lattice import Lattice, Tile
from volseg.types import Roi, Zyx, zyx


@dataclass(frozen=True)
class Handover:
    """The exchange between the blocks of one run.

    Attributes
    ----------
    roi : the region that is wanted; shares beyond it are never computed.
    """

    grid: Grid
    lattices: tuple[Lattice, ...]
    roi: Roi

    def targets(self) -> Iterator[Zyx]:
        """Yield the blocks that are wanted, in raster order."""
        for block in self.grid.blocks(self.roi):
            yield block.index

    def sources(self, target: Zyx) -> list[Zyx]:
        """List the blocks that hand something over to a block, in raster order."""
        return self._combine(
            [self._axis_sources(lattice, a, t) for a, t in enumerate(target)]
            for lattice in self.lattices
        )

    def targets_of(self, source: Zyx) -> list[Zyx]:
        """List the blocks that a block hands something over to, in raster order."""
        return self._combine(
            [self._axis_targets(lattice, a, s) for a, s in enumerate(source)]
            for lattice in self.lattices
        )

    def tiles(self, source: Zyx, target: Zyx) -> list[Tile]:
        """List the tiles of one block that have a share in another."""
        pairs = list(zip(source, target, strict=True))
        found = []
        for n, lattice in enumerate(self.lattices):
            axes = [self._axis_tiles(lattice, a, s, t) for a, (s, t) in enumerate(pairs)]
            found += [Tile(n, index) for index in _product(axes)]
        return found

    def core(self, target: Zyx) -> Roi:
        """Find the wanted part of a block's core."""
        return zyx(self._core(a, t) for a, t in enumerate(target))

    def region(self, source: Zyx, target: Zyx) -> Roi:
        """Find the region that one block hands over to another: a box about all shares."""
        supports = [self.support(tile) for tile in self.tiles(source, target)]
        return zyx(
            slice(
                max(core.start, min(s[axis].start for s in supports)),
                min(core.stop, max(s[axis].stop for s in supports)),
            )
            for axis, core in enumerate(self.core(target))
        )

    def support(self, tile: Tile) -> Roi:
        """Find the region of the volume in which a tile has a share."""
        return self.lattices[tile.lattice].support(tile.position)

    def reaching(self) -> Iterator[Tile]:
        """Yield the tiles with a share in the region, lattice by lattice in raster order."""
        for n, lattice in enumerate(self.lattices):
            for z, y, x in itertools.product(*self._reaching(lattice)):
                yield Tile(n, (z, y, x))

    def count_tiles(self) -> list[int]:
        """Count the tiles of each lattice with a share in the region."""
        return [math.prod(map(len, self._reaching(lattice))) for lattice in self.lattices]

    def count_work(self) -> float:
        """Count the network voxels of tiles for each one that the region holds."""
        evaluated = held = 0.0
        for lattice, count in zip(self.lattices, self.count_tiles(), strict=True):
            sides = zip(self.roi, lattice.axes, strict=True)
            evaluated += count * math.prod(lattice.tile)
            held += math.prod((s.stop - s.start) / along.scale for s, along in sides)
        return evaluated / held

    def evaluators(self) -> Iterator[Zyx]:
        """Yield the blocks that evaluate at least one tile, in raster order."""
        each = []
        for lattice in self.lattices:
            axes = zip(lattice.axes, self.grid.size, self._reaching(lattice), strict=True)
            z, y, x = (sorted({a.home(k) // size for k in near}) for a, size, near in axes)
            each.append(itertools.product(z, y, x))
        yield from (block for block, _ in itertools.groupby(heapq.merge(*each)))

    def _core(self, axis: int, index: int) -> slice:
        """Find the wanted part of a block's core along one axis."""
        start, size = index * self.grid.size[axis], self.grid.size[axis]
        wanted = self.roi[axis]
        return slice(max(start, wanted.start), min(start + size, wanted.stop))

    def _reaching(self, lattice: Lattice) -> list[range]:
        axes = zip(lattice.axes, self.roi, strict=True)
        return [a.reaching(s.start, s.stop) for a, s in axes]

    def _axis_sources(self, lattice: Lattice, axis: int, target: int) -> list[int]:
        along, core = lattice.axes[axis], self._core(axis, target)
        homes = (along.home(k) for k in along.reaching(core.start, core.stop))
        return sorted({h // self.grid.size[axis] for h in homes})

    def _axis_tiles(self, lattice: Lattice, axis: int, source: int, target: int) -> list[int]:
        along, core = lattice.axes[axis], self._core(axis, target)
        size = self.grid.size[axis]
        reaching = along.reaching(core.start, core.stop)
        return [k for k in reaching if along.home(k) // size == source]

    def _axis_targets(self, lattice: Lattice, axis: int, source: int) -> list[int]:
        along, wanted, size = lattice.axes[axis], self.roi[axis], self.grid.size[axis]
        # blocks that a tile can span
        reach = int(along.tile * along.scale) // size + 2
        first, last = max(source - reach, wanted.start // size), source + reach
        near = range(first, min(last, (wanted.stop - 1) // size) + 1)
        return [t for t in near if self._axis_tiles(lattice, axis, source, t)]

    @staticmethod
    def _combine(each: Iterable[list[list[int]]]) -> list[Zyx]:
        """Combine the blocks along each axis, and those of all lattices, in raster order."""
        return sorted({index for axes in each for index in _product(axes)})


def _product(axes: list[list[int]]) -> list[Zyx]:
    """Combine the results along each axis, in raster order."""
    z, y, x = axes
    return list(itertools.product(z, y, x))
