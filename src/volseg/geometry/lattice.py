"""The lattice of tiles that a network sees, anchored at the volume's origin. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from volseg.errors import ParameterError
from volseg.types import Roi, Zyx


@dataclass(frozen=True)
class AxisLattice:
    """The tiles along one axis, on a lattice anchored at the volume's origin.

    Tile k holds the network's voxels from ``k * step - overlap`` on, so the first tile begins
    ``overlap`` before the volume, where context is reflected.

    Attributes
    ----------
    length : volume voxels along the axis.
    tile, overlap : network voxels; neighbouring tiles share ``overlap``.
    scale : volume voxels per network voxel.

    Examples
    --------
    >>> lattice = AxisLattice(length=100, tile=48, overlap=16)
    >>> [lattice.support(k) for k in range(lattice.count)]
    [(0, 32), (16, 64), (48, 96), (80, 100)]
    """

    length: int
    tile: int
    overlap: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.overlap <= self.tile:
            raise ParameterError(
                f"an overlap must be at most half of the tile, found {self.overlap} of {self.tile}"
            )

    @property
    def step(self) -> int:
        """Network voxels between the origins of neighbouring tiles."""
        return self.tile - self.overlap

    @property
    def count(self) -> int:
        """Number of tiles with a share in the volume."""
        return self.reaching(0, self.length).stop

    def origin(self, k: int) -> int:
        """Find the first network voxel of tile k."""
        return k * self.step - self.overlap

    def _edge(self, network: float) -> int:
        """First volume voxel whose centre lies at or beyond a network voxel's leading face."""
        return math.ceil(network * self.scale - 0.5)

    def support(self, k: int) -> tuple[int, int]:
        """Find the volume voxels, start and stop, in which tile k has a share."""
        start, stop = self._edge(self.origin(k)), self._edge(self.origin(k) + self.tile)
        return max(start, 0), min(stop, self.length)

    def reaching(self, start: int, stop: int) -> range:
        """Find the tiles that have a share in the volume voxels start:stop."""
        first = max(int(start / self.scale) // self.step - 1, 0)
        while self.support(first)[1] <= start:
            first += 1
        last = first
        while self.support(last)[0] < stop:
            last += 1
        return range(first, last)

    def home(self, k: int) -> int:
        """Find the volume voxel whose block evaluates tile k."""
        return min(max(self._edge(k * self.step), 0), self.length - 1)


@dataclass(frozen=True)
class Lattice:
    """The tiles of a volume: the product of three axes.

    Attributes
    ----------
    axes : along z, y and x.
    margin : network voxels per side (z, y, x) by which a tile's input exceeds it.
    normal : axis along which a network of slices looks; 0 where it sees volumes.
    """

    axes: tuple[AxisLattice, AxisLattice, AxisLattice]
    margin: Zyx = (0, 0, 0)
    normal: int = 0

    @property
    def tile(self) -> Zyx:
        """Size of a tile in network voxels."""
        z, y, x = (axis.tile for axis in self.axes)
        return z, y, x

    def support(self, index: Zyx) -> Roi:
        """Find the region of the volume in which a tile has a share."""
        z, y, x = (slice(*a.support(k)) for a, k in zip(self.axes, index, strict=True))
        return z, y, x


class Tile(NamedTuple):
    """A tile of a run: its lattice among those of the run, and its position there."""

    lattice: int
    position: Zyx

    def __str__(self) -> str:
        """Name the tile in messages."""
        return "tile " + ",".join(map(str, self.position))
