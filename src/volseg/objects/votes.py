"""Seeds of objects that touch: where many of their voxels point. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from volseg.types import FULL_PROBABILITY, Mask, Probabilities, VoxelSize

BLUR, DIP = 1.5, 2.0
"""Standard deviation of the blur of votes, in sides of the finest axis; and by which factor votes
dip between two peaks, at least."""


def vote_seeds(
    mask: Mask, offsets: Sequence[Probabilities], reach: VoxelSize, spacing: VoxelSize, votes: float
) -> NDArray[np.int32]:
    """Mark the voxels of an object by the place that they point at, where many do.

    Each voxel votes for the one that its offset points at. Seeds are the peaks of the votes,
    blurred, down to where they have half as many; a peak stands unless votes dip by less than that
    on a way to a higher one (h-maxima of their logarithm, see `distance_seeds` of
    `volseg.objects.splitting`). So a seed is as wide as its object is unsure, and small objects
    have theirs. A voxel is of the seed that it votes for. Of the stretches, joined over faces, of
    voxels of one seed the largest counts.

    Parameters
    ----------
    mask : bool, shape (z, y, x); one object and nothing else.
    offsets : uint8, shape (z, y, x), for each axis that has a reach
        0.5 of 255 is none.
    reach : voxels (z, y, x) that offsets of 0 and 255 stand for; 0 where there is no such map
    spacing : lengths of a voxel's sides; the finest is 1
    votes : at a peak, for each voxel

    Returns
    -------
    int32, shape (z, y, x); seeds, from 1.

    Examples
    --------
    >>> mask, to = np.ones((1, 1, 10), bool), np.array([1, 1, 1, 1, 1, 8, 8, 8, 8, 8])
    >>> offsets = (127.5 + 127.5 / 8 * (to - np.arange(10))).round().astype(np.uint8)
    >>> vote_seeds(mask, [offsets[None, None]], (0, 0, 8), (1, 1, 1), 1.0)[0, 0].tolist()
    [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    """
    from scipy import ndimage
    from skimage.morphology import local_maxima, reconstruction

    given, target = iter(offsets), np.zeros(np.count_nonzero(mask), np.int32)
    for axis, (far, n) in enumerate(zip(reach, mask.shape, strict=True)):
        line = np.arange(n, dtype=float).reshape([-1 if k == axis else 1 for k in range(3)])
        at = np.broadcast_to(line, mask.shape)[mask]
        if far:
            at += (2 / FULL_PROBABILITY * next(given)[mask] - 1) * far
        target = target * n + np.clip(np.rint(at), 0, n - 1).astype(np.int32)
        del at
    count = np.bincount(target, minlength=mask.size).reshape(mask.shape).astype(np.float32)
    blur = [BLUR / side if n > 1 else 0 for side, n in zip(spacing, mask.shape, strict=True)]
    dense = ndimage.gaussian_filter(count, blur, mode="constant", output=count)
    lowered = reconstruction(dense / np.float32(DIP), dense)  # type: ignore[no-untyped-call]
    peaks = local_maxima(lowered, connectivity=3) & (lowered >= votes / DIP)  # type: ignore[no-untyped-call]
    seeds = ndimage.label(peaks, np.ones((3, 3, 3)), output=np.int32)[0]
    marked = np.zeros(mask.shape, np.int32)
    marked[mask] = seeds.ravel()[target]
    return _keep_largest(marked)


def _keep_largest(marked: NDArray[np.int32]) -> NDArray[np.int32]:
    """Keep the largest stretch of each number, joined over faces, and number anew, from 1."""
    from scipy import ndimage

    kept, count = np.zeros_like(marked), 0
    for number, box in enumerate(ndimage.find_objects(marked), 1):
        if box is None:
            continue
        parts = ndimage.label(marked[box] == number)[0]
        count += 1
        kept[box][parts == np.bincount(parts.ravel())[1:].argmax() + 1] = count
    return kept
