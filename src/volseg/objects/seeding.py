"""Split one object from chosen seeds, or tell that it may be several. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from volseg.objects.splitting import Pieces, Splitter, distance_seeds
from volseg.types import Floats, Mask, VoxelSize, Zyx

NECK = 0.4
"""Share of an object's largest radius by which a neck is thinner than each part that it joins."""


def has_neck(mask: Mask, spacing: VoxelSize) -> bool:
    """Tell whether a thin neck joins parts of an object, which may be several that touch.

    Parameters
    ----------
    mask : bool, shape (z, y, x); one object and nothing else.
    spacing : lengths of a voxel's sides
    """
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(np.pad(mask, 1), spacing).astype(np.float32)
    return bool(distance_seeds(distance, NECK * float(distance.max())).max() > 1)


def split_from_seeds(mask: Mask, seeds: Sequence[Zyx], spacing: VoxelSize) -> Pieces:
    """Split one object by a watershed of the distance from its border, from seeds.

    Parts of it that hold no seed go to the nearest piece.

    Parameters
    ----------
    mask : bool, shape (z, y, x); one object and nothing else.
    seeds : of its voxels, each another one
    spacing : lengths of a voxel's sides

    Returns
    -------
    int32, shape (z, y, x); 0 outside, pieces from 1, in the order of their seeds.

    Examples
    --------
    >>> mask = np.array([[[1, 1, 1, 1, 0, 1]]], bool)
    >>> split_from_seeds(mask, [(0, 0, 3), (0, 0, 0)], (1, 1, 1)).tolist()
    [[[2, 2, 1, 1, 0, 1]]]
    """
    from scipy import ndimage  # heavy, and only splitting needs it

    padded = np.pad(mask, 1)
    distance = ndimage.distance_transform_edt(padded, spacing).astype(np.float32)
    markers = np.zeros(padded.shape, np.int32)
    for number, (z, y, x) in enumerate(seeds, 1):
        markers[z + 1, y + 1, x + 1] = number
    for number, (z, y, x) in enumerate(seeds, 1):
        _climb(distance, markers, (z + 1, y + 1, x + 1), number)
    pieces = Splitter("distance", spacing).flood(distance, markers)
    lost = padded & (pieces == 0)
    if lost.any():
        nearest = ndimage.distance_transform_edt(
            pieces == 0, spacing, return_distances=False, return_indices=True
        )
        pieces[lost] = pieces[tuple(nearest[:, lost])]
    return np.ascontiguousarray(pieces[1:-1, 1:-1, 1:-1])


def _climb(distance: Floats, markers: Pieces, voxel: Zyx, number: int) -> None:
    """Mark the steepest way from a seed to the middle of its part, up to one of another seed.

    A watershed floods from the middle outwards: from a seed at the rim it would come too late.
    """
    while True:
        corner = [v - 1 for v in voxel]
        z, y, x = (slice(c, c + 3) for c in corner)
        near = distance[z, y, x]
        step = np.unravel_index(int(near.argmax()), near.shape)
        after = (int(step[0]) + corner[0], int(step[1]) + corner[1], int(step[2]) + corner[2])
        if distance[after] <= distance[voxel] or markers[after]:
            return
        markers[after], voxel = number, after
