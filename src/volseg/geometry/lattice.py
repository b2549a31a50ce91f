"""The lattice of tiles that a network sees, anchored at the volume's origin. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from volseg.errors import ParameterError
from volseg.types import Roi, Zyx, zyx


@dataclass(frozen=True)
class AxisLattice:
    """The tiles along one axis, on a lattice anchored at the volume's origin.

    Tile k holds the network's voxels from ``k * step - edge`` on. Of what neighbouring tiles share,
    each uses its own up to a third, the other's beyond two thirds, and both in between.

    Attributes
    ----------
    length : volume voxels along the axis.
    tile, overlap : network voxels; neighbouring tiles share ``overlap``.
    scale : volume voxels per network voxel.
    edge : network voxels of reflected context beyond both ends, at most ``overlap``.

    Examples
    --------
    >>> lattice = AxisLattice(length=100, tile=48, overlap=18, edge=8)
    >>> [lattice.support(k) for k in range(lattice.count)]
    [(0, 34), (28, 64), (58, 94), (88, 100)]
    """

    length: int
    tile: int
    overlap: int
    scale: float = 1.0
    edge: int = 0

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.overlap <= self.tile:
            raise ParameterError(
                f"an overlap must be at most half of the tile, found {self.overlap} of {self.tile}"
            )
        if not 0 <= self.edge <= self.overlap:
            raise ParameterError(
                f"context at the ends is at most the overlap, found {self.edge} of {self.overlap}"
            )

    @property
    def step(self) -> int:
        """Network voxels between the origins of neighbouring tiles."""
        return self.tile - self.overlap

    @property
    def context(self) -> int:
        """Network voxels at each side of a tile that its neighbour knows better."""
        return self.overlap // 3

    @property
    def held(self) -> int:
        """Network voxels that the axis has."""
        return math.ceil(self.length / self.scale)

    @cached_property
    def count(self) -> int:
        """Number of tiles with a share in the volume."""
        enough = max(-(-(self.held + 2 * self.edge - self.overlap) // self.step), 1)
        # a scale may leave less than half a voxel to the last one
        begun = self._edge(self.origin(enough - 1) + self.context)
        return enough if enough == 1 or begun < self.length else enough - 1

    def origin(self, k: int) -> int:
        """Find the first network voxel of tile k."""
        return k * self.step - self.edge

    def _edge(self, network: float) -> int:
        """First volume voxel whose centre lies at or beyond a network voxel's leading face."""
        return math.ceil(network * self.scale - 0.5)

    def support(self, k: int) -> tuple[int, int]:
        """Find the volume voxels, start and stop, in which tile k has a share."""
        start, stop = self.origin(k) + self.context, self.origin(k) + self.tile - self.context
        return (
            0 if k == 0 else self._edge(start),
            self.length if k == self.count - 1 else min(self._edge(stop), self.length),
        )

    def reaching(self, start: int, stop: int) -> range:
        """Find the tiles that have a share in the volume voxels start:stop."""
        first = max(int(start / self.scale) // self.step - 1, 0)
        while self.support(first)[1] <= start:
            first += 1
        last = first
        while last < self.count and self.support(last)[0] < stop:
            last += 1
        return range(first, last)

    def home(self, k: int) -> int:
        """Find the volume voxel whose block evaluates tile k."""
        return min(max(self._edge(self.origin(k) + self.overlap), 0), self.length - 1)


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
        return zyx(axis.tile for axis in self.axes)

    def support(self, index: Zyx) -> Roi:
        """Find the region of the volume in which a tile has a share."""
        return zyx(slice(*a.support(k)) for a, k in zip(self.axes, index, strict=True))


class Tile(NamedTuple):
    """A tile of a run: its lattice among those of the run, and its position there."""

    lattice: int
    position: Zyx

    def __str__(self) -> str:
        """Name the tile in messages."""
        return "tile " + ",".join(map(str, self.position))
