"""Reduce a block to a coarser level: intensities by mean, labels by vote."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.pyramid import reduced_shape
from volseg.types import Zyx
from volseg.voxels.compilation import compiled


def reduce_mean(block: NDArray[Any], factor: Zyx) -> NDArray[Any]:
    """Average groups of voxels; integers are rounded to nearest, halves up.

    Parameters
    ----------
    block : any real type, shape (z, y, x)
    factor : (z, y, x); each 1 or 2.

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


def reduce_labels(block: NDArray[Any], factor: Zyx) -> NDArray[Any]:
    """Take the most frequent label of each group; the smallest of equally frequent ones.

    Labels are never interpolated: every label of the result stands in its group.

    Examples
    --------
    >>> reduce_labels(np.array([[[5, 5], [0, 9]]]), (1, 2, 2))
    array([[[5]]])
    """
    result = np.empty(reduced_shape(block.shape[:3], factor), block.dtype)
    votes, differ = np.empty(math.prod(factor), block.dtype), np.empty(block.shape[2], np.uint8)
    _vote(np.ascontiguousarray(block), factor, result, votes, differ)
    return result


@compiled
def _vote(
    block: NDArray[Any],
    factor: Zyx,
    result: NDArray[Any],
    votes: NDArray[Any],
    differ: NDArray[np.uint8],
) -> None:
    """Fill in the most frequent of each group; at the far border the last voxel votes again."""
    (fz, fy, fx), (depth, height, width) = factor, block.shape
    for z in range(result.shape[0]):
        for y in range(result.shape[1]):
            # row by row, which the processor does many voxels at a time: most groups agree
            first = block[z * fz, y * fy]
            differ[:] = 0
            for other in range(1, fz * fy):
                row = block[
                    min(z * fz + other // fy, depth - 1), min(y * fy + other % fy, height - 1)
                ]
                for x in range(width):
                    differ[x] |= row[x] != first[x]
            for x in range(result.shape[2]):
                left, right = x * fx, min(x * fx + fx - 1, width - 1)
                result[z, y, x] = first[left]
                if differ[left] or differ[right] or first[left] != first[right]:
                    for n in range(len(votes)):
                        votes[n] = block[
                            min(z * fz + n // (fy * fx), depth - 1),
                            min(y * fy + n // fx % fy, height - 1),
                            min(x * fx + n % fx, width - 1),
                        ]
                    result[z, y, x] = _most_frequent(votes)


@compiled
def _most_frequent(votes: NDArray[Any]) -> Any:
    """Find the most frequent value; the smallest of equally frequent ones."""
    best, most = votes[0], 0
    for vote in votes:
        count = 0
        for other in votes:
            count += other == vote
        if count > most or (count == most and vote < best):
            best, most = vote, count
    return best
