"""Assignment of tiles to blocks, and hand-overs between neighbouring blocks. Pure arithmetic.

A block evaluates the tiles whose home lies in its core. Their shares reach into neighbours; the
part that falls into one block's core is a *hand-over*. A block is complete when all of those for it
are there.
Everything factorises by axis, so nothing here grows with the number of blocks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from volseg.geometry.grid import Grid
from volseg.geometry.lattice import Lattice
from volseg.types import Roi, Zyx


@dataclass(frozen=True)
class Handover:
    """The exchange between the blocks of one run.

    Attributes
    ----------
    grid : the blocks.
    lattice : the tiles.
    roi : the region that is wanted; shares beyond it are never computed.
    """

    grid: Grid
    lattice: Lattice
    roi: Roi

    def _core(self, axis: int, index: int) -> slice:
        """Find the wanted part of a block's core along one axis."""
        start, size = index * self.grid.size[axis], self.grid.size[axis]
        wanted = self.roi[axis]
        return slice(max(start, wanted.start), min(start + size, wanted.stop))

    def _axis_sources(self, axis: int, target: int) -> list[int]:
        lattice, core = self.lattice.axes[axis], self._core(axis, target)
        homes = (lattice.home(k) for k in lattice.reaching(core.start, core.stop))
        return sorted({h // self.grid.size[axis] for h in homes})

    def _axis_tiles(self, axis: int, source: int, target: int) -> list[int]:
        lattice, core = self.lattice.axes[axis], self._core(axis, target)
        size = self.grid.size[axis]
        reaching = lattice.reaching(core.start, core.stop)
        return [k for k in reaching if lattice.home(k) // size == source]

    def _axis_targets(self, axis: int, source: int) -> list[int]:
        wanted, size = self.roi[axis], self.grid.size[axis]
        blocks = range(wanted.start // size, -(-wanted.stop // size))
        near = range(max(source - self._reach(axis), blocks.start), blocks.stop)
        found = []
        for target in near:
            if self._axis_tiles(axis, source, target):
                found.append(target)
            elif target > source + self._reach(axis):
                break
        return found

    def _reach(self, axis: int) -> int:
        """Bound how many blocks a tile can span."""
        lattice = self.lattice.axes[axis]
        return int(lattice.tile * lattice.scale) // self.grid.size[axis] + 2

    def targets(self) -> Iterator[Zyx]:
        """Yield the blocks that are wanted, in raster order."""
        for block in self.grid.blocks(self.roi):
            yield block.index

    def sources(self, target: Zyx) -> list[Zyx]:
        """List the blocks that hand something over to a block, itself included."""
        return _product([self._axis_sources(a, t) for a, t in enumerate(target)])

    def targets_of(self, source: Zyx) -> list[Zyx]:
        """List the blocks that a block hands something over to, itself included."""
        return _product([self._axis_targets(a, s) for a, s in enumerate(source)])

    def tiles(self, source: Zyx, target: Zyx) -> list[Zyx]:
        """List the tiles of one block that have a share in another."""
        pairs = enumerate(zip(source, target, strict=True))
        return _product([self._axis_tiles(a, s, t) for a, (s, t) in pairs])

    def core(self, target: Zyx) -> Roi:
        """Find the wanted part of a block's core."""
        z, y, x = (self._core(a, t) for a, t in enumerate(target))
        return z, y, x

    def region(self, source: Zyx, target: Zyx) -> Roi:
        """Find the region that one block hands over to another."""
        box = []
        for axis, (s, t) in enumerate(zip(source, target, strict=True)):
            core = self._core(axis, t)
            spans = [self.lattice.axes[axis].support(k) for k in self._axis_tiles(axis, s, t)]
            start, stop = min(a for a, _ in spans), max(b for _, b in spans)
            box.append(slice(max(core.start, start), min(core.stop, stop)))
        return box[0], box[1], box[2]

    def reaching(self) -> Iterator[Zyx]:
        """Yield the tiles with a share in the region, in raster order."""
        z, y, x = self._reaching()
        yield from itertools.product(z, y, x)

    def count_tiles(self) -> int:
        """Count the tiles with a share in the region."""
        return math.prod(map(len, self._reaching()))

    def _reaching(self) -> list[range]:
        axes = zip(self.lattice.axes, self.roi, strict=True)
        return [a.reaching(s.start, s.stop) for a, s in axes]

    def evaluators(self) -> Iterator[Zyx]:
        """Yield the blocks that evaluate at least one tile, in raster order."""
        axes = []
        for axis, wanted in enumerate(self.roi):
            size = self.grid.size[axis]
            lattice = self.lattice.axes[axis]
            homes = (lattice.home(k) // size for k in lattice.reaching(wanted.start, wanted.stop))
            axes.append(sorted(set(homes)))
        z, y, x = axes
        yield from itertools.product(z, y, x)


def _product(axes: list[list[int]]) -> list[Zyx]:
    """Combine the results along each axis, in raster order."""
    z, y, x = axes
    return list(itertools.product(z, y, x))
