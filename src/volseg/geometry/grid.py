"""Regions of a volume, and the grid of blocks that it is cut into. Pure arithmetic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from volseg.errors import ParameterError
from volseg.types import Roi, Zyx, zyx


@dataclass(frozen=True)
class Block:
    """The scheduled unit: one cell of a grid that is anchored at the volume's origin.

    Attributes
    ----------
    core : the voxels that this block alone writes.
    """

    index: Zyx
    core: Roi

    def __str__(self) -> str:
        """Name the block by its position, and its voxels as ``--roi`` takes them."""
        box = ",".join(f"{s.start}:{s.stop}" for s in self.core)
        return f"block {','.join(map(str, self.index))} ({box})"


@dataclass(frozen=True)
class Grid:
    """A volume cut into blocks; those at the far border may be smaller.

    Examples
    --------
    >>> grid = Grid((10, 8, 8), (4, 8, 8))
    >>> grid.counts, grid.block((2, 0, 0)).core[0]
    ((3, 1, 1), slice(8, 10, None))
    """

    shape: Zyx
    size: Zyx

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or min(self.size) < 1:
            raise ParameterError(
                f"shapes and block sizes must be positive, found shape {self.shape} and block "
                f"{self.size}"
            )

    @property
    def counts(self) -> Zyx:
        """Number of blocks along each axis."""
        return zyx(-(-n // b) for n, b in zip(self.shape, self.size, strict=True))

    def block(self, index: Zyx) -> Block:
        """Find the block at a position of the grid."""
        z, y, x = (
            slice(i * b, min((i + 1) * b, n))
            for i, b, n in zip(index, self.size, self.shape, strict=True)
        )
        return Block(index, (z, y, x))

    def blocks(self, roi: Roi | None = None) -> Iterator[Block]:
        """Yield the blocks that touch a region, in raster order; without one, all."""
        box = roi or full_roi(self.shape)
        ranges = (range(s.start // b, -(-s.stop // b)) for s, b in zip(box, self.size, strict=True))
        for z, y, x in itertools.product(*ranges):
            yield self.block((z, y, x))

    def index_at(self, voxel: Zyx) -> Zyx:
        """Find the position in the grid of the block that owns a voxel."""
        return zyx(v // b for v, b in zip(voxel, self.size, strict=True))

    def neighbour(self, index: Zyx, step: Zyx) -> Zyx | None:
        """Find the position of the block one step away; None outside the grid."""
        z, y, x = (i + s for i, s in zip(index, step, strict=True))
        inside = all(0 <= i < n for i, n in zip((z, y, x), self.counts, strict=True))
        return (z, y, x) if inside else None


def cut_blocks(grid: Grid, region: Roi) -> list[Block]:
    """List the blocks that touch a region, cut to it.

    Examples
    --------
    >>> for block in cut_blocks(Grid((1, 1, 8), (1, 1, 4)), full_roi((1, 1, 8))):
    ...     print(block)
    block 0,0,0 (0:1,0:1,0:4)
    block 0,0,1 (0:1,0:1,4:8)
    """
    cut = ((b.index, intersect(b.core, region)) for b in grid.blocks(region))
    return [Block(index, core) for index, core in cut if core is not None]


def full_roi(shape: Sequence[int]) -> Roi:
    """Cover a whole volume."""
    return zyx(slice(0, n) for n in shape)


def roi_shape(roi: Roi) -> Zyx:
    """Count the voxels of a region along each axis."""
    return zyx(s.stop - s.start for s in roi)


def roi_size(roi: Roi) -> int:
    """Count the voxels of a region."""
    return math.prod(roi_shape(roi))


def whole_multiples(size: Zyx, unit: Zyx) -> Zyx:
    """Round a size up to whole multiples of a unit.

    Examples
    --------
    >>> whole_multiples((10, 64, 65), (32, 64, 64))
    (32, 64, 128)
    """
    return zyx(-(-n // u) * u for n, u in zip(size, unit, strict=True))


def gather_chunks(chunk: Zyx, shape: Zyx, voxels: int, axes: Sequence[int] = (2, 1, 0)) -> Zyx:
    """Join chunks, first along the last axis, to boxes of so many voxels about, no longer than all.

    Examples
    --------
    >>> gather_chunks((8, 64, 64), (100, 200, 1000), 1 << 20)
    (8, 128, 1024)
    """
    size = list(chunk)
    for axis in axes:
        times = max(voxels // math.prod(size), 1)
        size[axis] *= min(times, -(-shape[axis] // size[axis]))
    return zyx(size)


def grow(roi: Roi, halo: Zyx, shape: Zyx) -> Roi:
    """Add a halo on every side, within the volume."""
    return zyx(
        slice(max(s.start - h, 0), min(s.stop + h, n))
        for s, h, n in zip(roi, halo, shape, strict=True)
    )


def intersect(a: Roi, b: Roi) -> Roi | None:
    """Find the region that two regions share, or None.

    Examples
    --------
    >>> full = full_roi((4, 4, 4))
    >>> intersect(full, (slice(2, 9), slice(0, 1), slice(3, 5)))
    (slice(2, 4, None), slice(0, 1, None), slice(3, 4, None))
    """
    z, y, x = (slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return None if min(roi_shape((z, y, x))) < 1 else (z, y, x)


def shift(roi: Roi, origin: Sequence[int]) -> Roi:
    """Express a region relative to an origin."""
    return zyx(slice(s.start - o, s.stop - o) for s, o in zip(roi, origin, strict=True))


def coarsen(roi: Roi, factor: Sequence[float]) -> Roi:
    """Find the voxels, so many times as large, that a region reaches into.

    Examples
    --------
    >>> coarsen((slice(0, 8), slice(3, 9), slice(4, 5)), (1, 2, 2))
    (slice(0, 8, None), slice(1, 5, None), slice(2, 3, None))
    """
    pairs = zip(roi, factor, strict=True)
    return zyx(slice(int(s.start // f), int(-(-s.stop // f))) for s, f in pairs)


def describe(box: Sequence[slice]) -> str:
    """Write a box as the command line takes it: ``z0:z1,y0:y1,x0:x1``."""
    return ",".join(f"{s.start}:{s.stop}" for s in box)


def parse_roi(text: str, shape: Zyx) -> Roi:
    """Read a region written as ``z0:z1,y0:y1,x0:x1``; bounds may be left out.

    Examples
    --------
    >>> parse_roi("2:5,:,10:", (8, 20, 30))
    (slice(2, 5, None), slice(0, 20, None), slice(10, 30, None))
    """
    parts = text.split(",")
    try:
        bounds = [[int(v) if v.strip() else None for v in p.split(":")] for p in parts]
    except ValueError:
        bounds = []
    if len(bounds) != 3 or any(len(b) != 2 for b in bounds):
        raise ParameterError(f"a region is written z0:z1,y0:y1,x0:x1, found {text!r}")
    box = []
    for axis, (start, stop), n in zip("zyx", bounds, shape, strict=True):
        first, last = start or 0, n if stop is None else stop
        if not 0 <= first < last <= n:
            raise ParameterError(
                f"the region's {axis} range {first}:{last} is empty or leaves the volume, which "
                f"has {n} voxels there"
            )
        box.append(slice(first, last))
    return zyx(box)
