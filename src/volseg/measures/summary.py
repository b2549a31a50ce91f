"""Summarise a volume: counts with their uncertainty, densities, and areas by slice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import roi_shape, roi_size
from volseg.types import Roi, VoxelSize

NM_PER_UM = 1000.0
NM2_PER_UM2, NM3_PER_UM3 = NM_PER_UM**2, NM_PER_UM**3
CONFIDENCE = 0.95
Column = NDArray[Any]


@dataclass(frozen=True)
class Sizes:
    """Sizes of objects in µm³, or of unrelated images in µm², and how many there are in each.

    Attributes
    ----------
    mean, median, total : of objects
    analysed : of what was segmented
    density, unbiased : objects per unit of it, all and those of `Summary.objects_unbiased`
    low, high : 95% confidence interval of the latter
    """

    mean: float
    median: float
    total: float
    analysed: float
    density: float
    unbiased: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """A volume in one row.

    Attributes
    ----------
    objects : how many
    objects_low, objects_high : 95% confidence interval of that count
    objects_unbiased : how many do not touch the region's far faces
    touching_border : how many reach the border of what was segmented
    analysed_voxels, object_voxels : in what was segmented, and in objects
    volume_fraction : of the objects, 0..1
    mean_voxels, median_voxels : per object; NaN without objects
    mean_profile_voxels : mean area of one object in one slice; NaN without objects
    mean_slice_voxels : mean area of all objects in one slice
    images : how many unrelated ones; None of a volume
    voxel_size : nm (z, y, x), None if unknown; then so is all that follows
    analysed_um2, density_per_um2 : of unrelated images, area, and objects in each of its µm²
    density_unbiased_per_um2 : by `objects_unbiased`
    density_unbiased_low_per_um2, density_unbiased_high_per_um2 : its 95% confidence interval
    mean_nm2, median_nm2, total_nm2 : object areas, of unrelated images
    analysed_um3, density_per_um3 : volume, and objects in each of its cubic micrometres
    density_unbiased_per_um3 : by `objects_unbiased`
    density_unbiased_low_per_um3, density_unbiased_high_per_um3 : its 95% confidence interval
    mean_nm3, median_nm3, total_nm3 : object volumes; of unrelated images a slice's thickness counts
    mean_profile_nm2, mean_slice_nm2 : the areas above
    """

    objects: int
    objects_low: float
    objects_high: float
    objects_unbiased: int
    touching_border: int
    analysed_voxels: int
    object_voxels: int
    volume_fraction: float
    mean_voxels: float
    median_voxels: float
    mean_profile_voxels: float
    mean_slice_voxels: float
    images: int | None = None
    voxel_size: VoxelSize | None = None
    analysed_um2: float | None = None
    density_per_um2: float | None = None
    density_unbiased_per_um2: float | None = None
    density_unbiased_low_per_um2: float | None = None
    density_unbiased_high_per_um2: float | None = None
    mean_nm2: float | None = None
    median_nm2: float | None = None
    total_nm2: float | None = None
    analysed_um3: float | None = None
    density_per_um3: float | None = None
    density_unbiased_per_um3: float | None = None
    density_unbiased_low_per_um3: float | None = None
    density_unbiased_high_per_um3: float | None = None
    mean_nm3: float | None = None
    median_nm3: float | None = None
    total_nm3: float | None = None
    mean_profile_nm2: float | None = None
    mean_slice_nm2: float | None = None

    def sizes(self, *, areas: bool) -> Sizes | None:
        """Give sizes as volumes, or as areas of unrelated images; None where they are unknown."""
        power = 2 if areas else 3
        per = f"per_um{power}"
        names = (
            *(f"{name}_nm{power}" for name in ("mean", "median", "total")),
            *(f"analysed_um{power}", f"density_{per}", f"density_unbiased_{per}"),
            *(f"density_unbiased_low_{per}", f"density_unbiased_high_{per}"),
        )
        mean, median, total, *others = (getattr(self, name) for name in names)
        if total is None:
            return None
        um = NM_PER_UM**power
        return Sizes(mean / um, median / um, total / um, *others)


def summarise(
    columns: Mapping[str, Column],
    region: Roi,
    voxel_size: VoxelSize | None,
    images: Sequence[tuple[int, int]] | None = None,
) -> Summary:
    """Summarise the rows of `object_table`; of unrelated images, only their own voxels count.

    Objects that touch the far faces of the region (the ends of z, y, and x) are not counted in
    ``objects_unbiased``: of an object that a face cuts, only one of the two regions that share the
    face counts it, so that neighbouring regions add up. See H. J. G. Gundersen, "Notes on the
    estimation of the numerical density of arbitrary profiles: the edge effect", J. Microscopy 1977.
    """
    voxels = columns["voxels"]
    count, analysed, total = len(voxels), _count_voxels(region, images), int(voxels.sum())
    unbiased = count - int(columns["touches_far_border"].sum())
    low, high = poisson_interval(count)
    profiles = int((columns["bbox_z_stop"] - columns["bbox_z_start"]).sum())
    basic = Summary(
        objects=count,
        objects_low=low,
        objects_high=high,
        objects_unbiased=unbiased,
        touching_border=int(columns["touches_border"].sum()),
        analysed_voxels=analysed,
        object_voxels=total,
        volume_fraction=total / analysed,
        mean_voxels=total / count if count else math.nan,
        median_voxels=float(np.median(voxels)) if count else math.nan,
        mean_profile_voxels=total / profiles if profiles else math.nan,
        mean_slice_voxels=total / roi_shape(region)[0],
        images=None if images is None else roi_shape(region)[0],
    )
    return basic if voxel_size is None else _with_units(basic, voxel_size)


def _count_voxels(region: Roi, images: Sequence[tuple[int, int]] | None) -> int:
    """Count voxels of a region but for those that images were padded with."""
    if images is None:
        return roi_size(region)
    z, *plane = region
    return sum(
        math.prod(max(min(n, s.stop) - s.start, 0) for n, s in zip(size, plane, strict=True))
        for size in images[z]
    )


def _with_units(basic: Summary, voxel_size: VoxelSize) -> Summary:
    low, high = poisson_interval(basic.objects_unbiased)
    found: dict[str, Any] = {}
    for power in (3,) if basic.images is None else (2, 3):
        each, per = math.prod(voxel_size[3 - power :]), f"per_um{power}"
        analysed = basic.analysed_voxels * each / NM_PER_UM**power
        found |= {
            f"analysed_um{power}": analysed,
            f"density_{per}": basic.objects / analysed,
            f"density_unbiased_{per}": basic.objects_unbiased / analysed,
            f"density_unbiased_low_{per}": low / analysed,
            f"density_unbiased_high_{per}": high / analysed,
            f"mean_nm{power}": basic.mean_voxels * each,
            f"median_nm{power}": basic.median_voxels * each,
            f"total_nm{power}": basic.object_voxels * each,
        }
    pixel = voxel_size[1] * voxel_size[2]
    return replace(
        basic,
        voxel_size=voxel_size,
        mean_profile_nm2=basic.mean_profile_voxels * pixel,
        mean_slice_nm2=basic.mean_slice_voxels * pixel,
        **found,
    )


def poisson_interval(count: int) -> tuple[float, float]:
    """Find the exact interval of `CONFIDENCE` for the mean of a Poisson count.

    Notes
    -----
    F. Garwood, "Fiducial limits for the Poisson distribution", Biometrika 1936: quantiles of
    chi-squared distributions, here as those of the gamma distribution. It holds for objects that
    lie independently of each other; clustered ones vary more.

    Examples
    --------
    >>> low, high = poisson_interval(10)
    >>> round(low, 2), round(high, 2)
    (4.8, 18.39)
    """
    from scipy.special import gammaincinv

    tail = (1 - CONFIDENCE) / 2
    low = float(gammaincinv(count, tail)) if count else 0.0
    return low, float(gammaincinv(count + 1, 1 - tail))


def slice_table(
    columns: Mapping[str, Column],
    areas: NDArray[np.int64],
    region: Roi,
    voxel_size: VoxelSize | None,
) -> tuple[dict[str, Column], dict[str, str]]:
    """Describe each slice of the region in one row.

    Parameters
    ----------
    columns : of `object_table`
    areas : int64, one per slice of the volume
        Voxels of objects.
    region : what was segmented
    voxel_size : nm (z, y, x); without it there are no columns in nm

    Returns
    -------
    columns : ``z``, ``objects`` whose bounding boxes hold the slice, ``area``
    units : of each column
    """
    change = np.zeros(len(areas) + 1, np.int64)
    np.add.at(change, columns["bbox_z_start"], 1)
    np.add.at(change, columns["bbox_z_stop"], -1)
    z = np.arange(region[0].start, region[0].stop)
    rows: dict[str, Column] = {"z": z, "objects": np.cumsum(change)[z], "area": areas[z]}
    units = {"z": "voxel", "objects": "1", "area": "voxel^2"}
    if voxel_size is not None:
        rows["area_nm2"] = areas[z] * (voxel_size[1] * voxel_size[2])
        units["area_nm2"] = "nm^2"
    return rows, units
