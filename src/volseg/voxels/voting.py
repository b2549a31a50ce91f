"""Reduce labels by vote. Apart from means: compiled code takes time to wake."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.pyramid import reduced_shape
from volseg.types import Zyx
from volseg.voxels.compilation import compiled


def reduce_labels(block: NDArray[Any], factor: Zyx) -> NDArray[Any]:
    """Take the most frequent label of each group; the smallest of equally frequent ones.

    Labels are never interpolated: every label of the result stands in its group.

    Examples
    --------
    >>> reduce_labels(np.array([[[5, 5], [0, 9]]]), (1, 2, 2))
    array([[[5]]])
    """
    result = np.empty(reduced_shape(block.shape[:3], factor), block.dtype)
    _vote(block, factor, result)
    return result


@compiled
def _vote(block: NDArray[Any], factor: Zyx, result: NDArray[Any]) -> None:
    """Fill in the most frequent of each group; at the far border the last voxel votes again."""
    (fz, fy, fx), (depth, height, width) = factor, block.shape
    votes = np.empty(fz * fy * fx, block.dtype)
    differ = np.empty(width, np.uint8)
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
