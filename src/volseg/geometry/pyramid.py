"""Arithmetic of pyramids: the levels of a volume and their shapes."""

from __future__ import annotations

import math

from volseg.types import VoxelSize, Zyx, zyx

SMALLEST = 64
"""The last level is the first whose longest axis has at most this many voxels."""


def pyramid_factors(shape: Zyx, voxel_size: VoxelSize | None) -> list[Zyx]:
    """Choose the levels of a pyramid, finest first.

    Parameters
    ----------
    shape : (z, y, x); of level 0.
    voxel_size : nm, or None
        An axis is not halved while its voxels are coarser than another's by a factor of 2 or more
        (rounded: by more than the square root of 2 after halving).

    Returns
    -------
    list of (z, y, x); level-0 voxels per voxel of each level; the first is (1, 1, 1).

    Examples
    --------
    >>> pyramid_factors((20, 512, 512), (50.0, 5.0, 5.0))
    [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8)]
    """
    size = voxel_size or (1.0, 1.0, 1.0)
    factors: list[Zyx] = [(1, 1, 1)]
    while max(-(-n // f) for n, f in zip(shape, factors[-1], strict=True)) > SMALLEST:
        last = factors[-1]
        current = [v * f for v, f in zip(size, last, strict=True)]
        finest = min(c for c, n, f in zip(current, shape, last, strict=True) if n > f)
        halved = [
            f * 2 if n > f and c < finest * math.sqrt(2) else f
            for f, c, n in zip(last, current, shape, strict=True)
        ]
        factors.append(zyx(halved))
    return factors


def reduced_shape(shape: Zyx, factor: Zyx) -> Zyx:
    """Count the voxels of a level; an incomplete one at the far border counts."""
    return zyx(-(-n // f) for n, f in zip(shape, factor, strict=True))
