"""Contacts between the objects of two results: faces, and voxels of both. Pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ShapeError
from volseg.types import VoxelSize, zyx

COUNTED = ("faces_z", "faces_y", "faces_x", "shared_voxels")
"""Counts of a contact: faces across each axis, and voxels that are of both objects."""


def count_contacts(
    ours: NDArray[Any], theirs: NDArray[Any], core: tuple[int, int, int], *, planar: bool = False
) -> NDArray[np.int64]:
    """Count, by pairs of objects, the faces where one ends at a voxel of the other.

    Parameters
    ----------
    ours, theirs : integer, shape (z, y, x)
        A block, and one voxel more behind it along each axis where the volume goes on.
    core : shape of the block
        A face is counted by the block that holds the voxel before it, so that blocks add up.
    planar : whether slices are unrelated images, which have no faces in common

    Returns
    -------
    int64, shape (pairs, 6); our object, theirs, and `COUNTED`.

    Examples
    --------
    >>> ours, theirs = np.array([[[1, 1, 0, 0]]]), np.array([[[0, 7, 7, 0]]])
    >>> count_contacts(ours, theirs, (1, 1, 4)).tolist()
    [[1, 7, 0, 0, 1, 1]]
    """
    if ours.shape != theirs.shape:
        raise ShapeError(f"both results must match: ours {ours.shape}, theirs {theirs.shape}")
    found = []
    for axis in range(1 if planar else 0, 3):
        before, after = list(map(slice, core)), list(map(slice, core))
        stop = min(core[axis], ours.shape[axis] - 1)
        before[axis], after[axis] = slice(0, stop), slice(1, stop + 1)
        low, high = zyx(before), zyx(after)
        for here, there in ((low, high), (high, low)):
            # where one object goes on there is no face of it
            ends = (ours[here] > 0) & (theirs[there] > 0) & (ours[here] != ours[there])
            found.append(_counted(ours[here][ends], theirs[there][ends], axis))
    z, y, x = map(slice, core)
    a, b = ours[z, y, x], theirs[z, y, x]
    both = (a > 0) & (b > 0)
    found.append(_counted(a[both], b[both], 3))
    return merge_contacts(found)


def _counted(ours: NDArray[Any], theirs: NDArray[Any], column: int) -> NDArray[np.int64]:
    pairs, counts = np.unique(np.stack([ours, theirs]).astype(np.int64), axis=1, return_counts=True)
    rows = np.zeros((len(counts), 2 + len(COUNTED)), np.int64)
    rows[:, :2], rows[:, 2 + column] = pairs.T, counts
    return rows


def merge_contacts(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Add up the contacts of several blocks, in the order of their pairs."""
    rows = np.concatenate(parts) if parts else np.zeros((0, 2 + len(COUNTED)), np.int64)
    pairs, at = np.unique(rows[:, :2], axis=0, return_inverse=True)
    merged = np.zeros((len(pairs), rows.shape[1]), np.int64)
    merged[:, :2] = pairs
    np.add.at(merged[:, 2:], at.ravel(), rows[:, 2:])
    return merged


def contact_table(
    rows: NDArray[np.int64], voxel_size: VoxelSize | None
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Name the columns of contacts, and add their area where the voxel size is known."""
    names = ("label", "touched", *COUNTED)
    columns: dict[str, NDArray[Any]] = {n: rows[:, k] for k, n in enumerate(names)}
    units = {"shared_voxels": "voxel"}
    if voxel_size is not None:
        z, y, x = voxel_size
        columns["area_nm2"] = rows[:, 2:5] @ np.array([y * x, z * x, z * y], float)
        units["area_nm2"] = "nm2"
    return columns, units
