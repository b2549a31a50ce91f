"""Measure objects from additive sums over blocks. Pure functions over arrays.

Everything is counted in integers over runs along x, so sums over blocks equal sums over the whole,
exactly and in any order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.blocks import roi_size
from volseg.types import Roi, VoxelSize

AXES = "zyx"
NM_PER_UM = 1000.0
Column = NDArray[Any]


@dataclass(frozen=True)
class Moments:
    """Additive sums over the objects of a block, a part, or a whole volume.

    Attributes
    ----------
    labels : the objects' labels, ascending, each once
    voxels : int64, shape (objects,)
    sums : int64, shape (objects, 3)
        Sums of the voxels' coordinates (z, y, x) in the volume.
    starts, stops : int64, shape (objects, 3)
        Bounding boxes.
    """

    labels: NDArray[np.unsignedinteger[Any]]
    voxels: NDArray[np.int64]
    sums: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]


def measure_block(labels: NDArray[Any], core: Roi) -> Moments:
    """Sum over the objects of one block.

    Parameters
    ----------
    labels : any integer type, shape of ``core``
        What is not above 0 is background.
    core : where the block lies in the volume
    """
    rows = labels.reshape(-1, labels.shape[-1])
    changes = np.ones(rows.shape, bool)
    np.not_equal(rows[:, 1:], rows[:, :-1], out=changes[:, 1:])
    starts = np.flatnonzero(changes)
    values = rows.reshape(-1)[starts]
    lengths = np.diff(starts, append=rows.size)
    occupied = values > 0
    starts, lengths, values = starts[occupied], lengths[occupied], values[occupied]
    row, x = np.divmod(starts, labels.shape[2])
    z, y = np.divmod(row, labels.shape[1])
    z, y, x = (i + s.start for i, s in zip((z, y, x), core, strict=True))
    first = np.stack([z, y, x], axis=1)
    # the sum of x, x + 1, ... over a run is a whole number
    sums = np.stack([z * lengths, y * lengths, x * lengths + lengths * (lengths - 1) // 2], axis=1)
    stops = first + 1
    stops[:, 2] = x + lengths
    unsigned = values.astype(np.dtype(f"u{values.dtype.itemsize}"), copy=False)
    return _grouped(Moments(unsigned, lengths.astype(np.int64), sums, first, stops))


def merge(parts: Sequence[Moments]) -> Moments:
    """Add up the sums of several blocks; at least one."""
    return _grouped(
        Moments(
            np.concatenate([p.labels for p in parts]),
            np.concatenate([p.voxels for p in parts]),
            np.concatenate([p.sums for p in parts]),
            np.concatenate([p.starts for p in parts]),
            np.concatenate([p.stops for p in parts]),
        )
    )


def _grouped(moments: Moments) -> Moments:
    """Reduce rows of equal labels to one."""
    if not len(moments.labels):
        return moments
    order = np.argsort(moments.labels, kind="stable")
    labels = moments.labels[order]
    heads = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    return Moments(
        labels[heads],
        np.add.reduceat(moments.voxels[order], heads),
        np.add.reduceat(moments.sums[order], heads),
        np.minimum.reduceat(moments.starts[order], heads),
        np.maximum.reduceat(moments.stops[order], heads),
    )


def object_table(
    moments: Moments, region: Roi, voxel_size: VoxelSize | None
) -> tuple[dict[str, Column], dict[str, str]]:
    """Describe each object in one row.

    Parameters
    ----------
    moments : of the whole volume
    region : what was segmented; an object that reaches its border may be cut
    voxel_size : nm (z, y, x); without it there are no columns in nm

    Returns
    -------
    columns : by name, all of one length
    units : of each column
    """
    centroids = moments.sums / moments.voxels[:, None]
    columns: dict[str, Column] = {"label": moments.labels, "voxels": moments.voxels}
    units = {"label": "1", "voxels": "voxel"}
    if voxel_size is not None:
        columns["volume_nm3"] = moments.voxels * math.prod(voxel_size)
        units["volume_nm3"] = "nm^3"
    for k, axis in enumerate(AXES):
        columns[f"centroid_{axis}"] = centroids[:, k]
        units[f"centroid_{axis}"] = "voxel"
    for k, axis in enumerate(AXES):
        if voxel_size is not None:
            columns[f"centroid_{axis}_nm"] = centroids[:, k] * voxel_size[k]
            units[f"centroid_{axis}_nm"] = "nm"
    for name, bounds in (("start", moments.starts), ("stop", moments.stops)):
        for k, axis in enumerate(AXES):
            columns[f"bbox_{axis}_{name}"] = bounds[:, k]
            units[f"bbox_{axis}_{name}"] = "voxel"
    low, high = [s.start for s in region], [s.stop for s in region]
    cut = np.logical_or((moments.starts <= low).any(axis=1), (moments.stops >= high).any(axis=1))
    columns["touches_border"] = cut
    units["touches_border"] = "1"
    return columns, units


@dataclass(frozen=True)
class Summary:
    """A volume in one row.

    Attributes
    ----------
    objects : how many
    touching_border : how many of them reach the border of what was segmented
    analysed_voxels, object_voxels : in what was segmented, and in objects
    volume_fraction : of the objects, 0..1
    mean_voxels, median_voxels : per object; NaN without objects
    voxel_size : nm (z, y, x), None if unknown; then so is all that follows
    analysed_um3, density_per_um3 : volume, and objects in each of its cubic micrometres
    mean_nm3, median_nm3, total_nm3 : object volumes
    """

    objects: int
    touching_border: int
    analysed_voxels: int
    object_voxels: int
    volume_fraction: float
    mean_voxels: float
    median_voxels: float
    voxel_size: VoxelSize | None = None
    analysed_um3: float | None = None
    density_per_um3: float | None = None
    mean_nm3: float | None = None
    median_nm3: float | None = None
    total_nm3: float | None = None


def summarise(columns: Mapping[str, Column], region: Roi, voxel_size: VoxelSize | None) -> Summary:
    """Summarise the rows of `object_table`."""
    voxels = columns["voxels"]
    count, analysed, total = len(voxels), roi_size(region), int(voxels.sum())
    mean = total / count if count else math.nan
    median = float(np.median(voxels)) if count else math.nan
    basic = Summary(
        objects=count,
        touching_border=int(columns["touches_border"].sum()),
        analysed_voxels=analysed,
        object_voxels=total,
        volume_fraction=total / analysed,
        mean_voxels=mean,
        median_voxels=median,
    )
    if voxel_size is None:
        return basic
    each = math.prod(voxel_size)
    cubic = analysed * each / NM_PER_UM**3
    return replace(
        basic,
        voxel_size=voxel_size,
        analysed_um3=cubic,
        density_per_um3=count / cubic,
        mean_nm3=mean * each,
        median_nm3=median * each,
        total_nm3=total * each,
    )
