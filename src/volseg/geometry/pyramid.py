"""Pyramids: which levels a volume gets, and how a block is reduced. Pure functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import VoxelSize, Zyx

SMALLEST = 64
"""The last level is the first whose longest axis has at most this many voxels."""


def pyramid_factors(shape: Zyx, voxel_size: VoxelSize | None) -> list[Zyx]:
    """Choose the levels of a pyramid, finest first.

    Parameters
    ----------
    shape : (z, y, x)
        Of level 0.
    voxel_size : nm, or None
        An axis is not halved while its voxels are coarser than another's by a factor of 2 or more
        (rounded: by more than the square root of 2 after halving).

    Returns
    -------
    list of (z, y, x)
        Level-0 voxels per voxel of each level; the first is (1, 1, 1).

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
        factors.append((halved[0], halved[1], halved[2]))
    return factors


def reduced_shape(shape: Zyx, factor: Zyx) -> Zyx:
    """Count the voxels of a level; an incomplete one at the far border counts."""
    z, y, x = (-(-n // f) for n, f in zip(shape, factor, strict=True))
    return z, y, x


def reduce_mean(block: NDArray[Any], factor: Zyx) -> NDArray[Any]:
    """Average groups of voxels; integers are rounded to nearest, halves up.

    Parameters
    ----------
    block : any real type, shape (z, y, x)
    factor : (z, y, x)
        Each 1 or 2.

    Returns
    -------
    same type, shape (ceil(z / fz), ceil(y / fy), ceil(x / fx))
        At the far border the last voxel stands in for missing ones.

    Examples
    --------
    >>> reduce_mean(np.array([[[1, 2, 7]]], np.uint8), (1, 1, 2))
    array([[[2, 7]]], dtype=uint8)
    """
    is_float = block.dtype.kind == "f"
    wide = np.dtype(np.float64) if is_float else np.dtype(f"i{min(2 * block.itemsize, 8)}")
    bits = math.prod(factor).bit_length() - 1
    result = np.empty(reduced_shape(block.shape[:3], factor), block.dtype)
    # plane by plane, so that the wide sums stay in the processor's cache
    for k, plane in enumerate(result):
        group = block[k * factor[0] : (k + 1) * factor[0]]
        total = group[0].astype(wide)
        if factor[0] == 2:
            total += group[-1]
        total = _sum_pairs(_sum_pairs(total, factor[1]).T, factor[2]).T
        if is_float:
            plane[...] = total / math.prod(factor)
        else:
            total += (1 << bits) >> 1
            plane[...] = total >> bits
    return result


def _sum_pairs(plane: NDArray[Any], factor: int) -> NDArray[Any]:
    """Add neighbouring rows; a last row without a neighbour counts twice."""
    if factor == 1:
        return plane
    if len(plane) % 2:
        plane = np.concatenate([plane, plane[-1:]])
    return np.asarray(plane[::2] + plane[1::2])
