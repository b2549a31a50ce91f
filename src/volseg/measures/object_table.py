"""Measure objects from additive sums over blocks. Pure functions over arrays.

Everything is counted in integers, so sums over blocks equal sums over the whole, exactly and in
any order; only the finished sums become lengths, areas and ratios.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.measures.border import Borders, reached_sides
from volseg.measures.shape import (
    complexity_indices,
    equivalent_diameters,
    nearest_neighbours,
    principal_axes,
    ratio,
    sphericities,
    standard_deviations,
)
from volseg.measures.single_object import SingleObjects
from volseg.measures.sums import Moments, Values, choose, merge
from volseg.measures.surface import Crossings, surface_areas
from volseg.objects.components import mean_probabilities
from volseg.types import Roi, VoxelSize, zyx

AXES = "zyx"
AXIS_NAMES = ("axis_major", "axis_middle", "axis_minor")
BIN = 2**-6
"""Width of a bin of a histogram of fractions, relative to its value, and more."""
LEVELS = 1 << 20
"""Steps of intensities that are fractions: a millionth of their range."""
Column = NDArray[Any]


@dataclass(frozen=True)
class ObjectSums:
    """All that is summed over the objects of a block, a part, or a whole volume.

    Attributes
    ----------
    crossings : None if only the basic set was asked for
    intensity, probability : None where there is nothing to sum
    """

    moments: Moments
    crossings: Crossings | None = None
    intensity: Values | None = None
    probability: Values | None = None


@dataclass(frozen=True)
class Scale:
    """Scale that turns fractional intensities into whole steps, so that their sums are exact.

    Attributes
    ----------
    offset : the lowest intensity of the volume
    step : `LEVELS` of them reach to the highest
    """

    offset: float
    step: float

    @classmethod
    def between(cls, lowest: float, highest: float) -> Scale:
        """Choose a scale for all intensities of a volume; bounds from a histogram may be off."""
        low, high = lowest - abs(lowest) * BIN, highest + abs(highest) * BIN
        return cls(low, (high - low) / LEVELS or 1.0)

    def count(self, values: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
        """Express intensities in steps, to the nearest; NaN becomes the lowest."""
        steps = np.nan_to_num((values - self.offset) / self.step, nan=0.0)
        found: NDArray[np.int32] = np.rint(np.clip(steps, 0, LEVELS)).astype(np.int32)
        return found


def merge_sums(parts: Sequence[ObjectSums]) -> ObjectSums:
    """Add up the sums of several blocks; at least one, all of the same kinds."""
    first = parts[0]
    return ObjectSums(
        merge([p.moments for p in parts]),
        *(
            None if getattr(first, kind) is None else merge([getattr(p, kind) for p in parts])
            for kind in ("crossings", "intensity", "probability")
        ),
    )


def choose_sums(found: ObjectSums, labels: Sequence[int]) -> ObjectSums:
    """Keep the sums of some objects."""
    parts = {f.name: getattr(found, f.name) for f in fields(found)}
    return replace(found, **{n: choose(p, labels) for n, p in parts.items() if p is not None})


@dataclass(frozen=True)
class Table:
    """Columns of a table with one row per object.

    Attributes
    ----------
    columns : by name, all of one length
    units : of each column
    """

    columns: dict[str, Column]
    units: dict[str, str]
    voxel_size: VoxelSize | None

    @property
    def spacing(self) -> VoxelSize:
        """The voxel size, or that of a cube of one voxel."""
        return self.voxel_size or (1.0, 1.0, 1.0)

    def add(self, name: str, column: Column, unit: str = "1") -> None:
        """Add a column."""
        self.columns[name] = column
        self.units[name] = unit

    def add_size(self, name: str, column: Column, power: int = 1) -> None:
        """Add lengths, areas or volumes, in nm where the voxel size is known."""
        suffix = f"^{power}" if power > 1 else ""
        if self.voxel_size is None:
            self.add(name, column, f"voxel{suffix}")
        else:
            self.add(f"{name}_nm{power if power > 1 else ''}", column, f"nm{suffix}")


def object_table(
    sums: ObjectSums,
    region: Roi,
    voxel_size: VoxelSize | None,
    singles: SingleObjects | None = None,
    scale: Scale | None = None,
    images: Sequence[tuple[int, int]] | None = None,
) -> tuple[dict[str, Column], dict[str, str]]:
    """Describe each object in one row.

    Parameters
    ----------
    sums : of the whole volume
    region : what was segmented; an object that reaches its border may be cut
    voxel_size : nm (z, y, x); without it there are no columns in nm
    singles : what was measured one object at a time
    scale : of the intensities, if they were counted in steps
    images : (y, x) of the unrelated images that slices are, which end nowhere along z

    Returns
    -------
    columns : by name, all of one length
    units : of each column
    """
    table, singles = Table({}, {}, voxel_size), singles or SingleObjects()
    _add_places(table, sums.moments, region, images)
    if sums.crossings is not None:
        areas = singles.mesh_areas
        if areas is None:
            areas = surface_areas(sums.crossings, table.spacing)
        _add_shapes(table, sums.moments, areas, apart=images is not None)
        table.add("euler_number", sums.crossings.euler)
    if singles.lengths is not None and singles.branches is not None:
        table.add_size("centerline_length", singles.lengths)
        table.add("centerline_branches", singles.branches)
    _add_outlines(table, singles)
    voxels = sums.moments.voxels
    if sums.intensity is not None:
        values, spread = sums.intensity, standard_deviations(sums.intensity, voxels)
        columns: tuple[Column, ...]
        columns = values.total / voxels, spread, values.lowest, values.highest
        if scale is not None:
            mean, spread, low, high = (c * scale.step for c in columns)
            columns = mean + scale.offset, spread, low + scale.offset, high + scale.offset
        for name, column in zip(("mean", "sd", "min", "max"), columns, strict=True):
            table.add(f"intensity_{name}", column)
    if sums.probability is not None:
        table.add("probability_mean", mean_probabilities(sums.probability.total, voxels))
    return table.columns, table.units


def replace_rows(
    before: Mapping[str, Column],
    gone: Sequence[int],
    after: Mapping[str, Column] | None,
    voxel_size: VoxelSize | None,
    *,
    apart: bool,
) -> dict[str, Column]:
    """Replace the rows of some objects, and find the nearest neighbours of all anew.

    Parameters
    ----------
    before, after : of `object_table`, with the same columns; None for no new rows
    gone : labels of the rows that are left out
    apart : whether slices are unrelated images
    """
    kept = ~np.isin(before["label"], np.asarray(gone, before["label"].dtype))
    joined = {
        name: column[kept] if after is None else np.concatenate([column[kept], after[name]])
        for name, column in before.items()
    }
    order = np.argsort(joined["label"], kind="stable")
    columns = {name: column[order] for name, column in joined.items()}
    unit = "nearest_neighbour" if voxel_size is None else "nearest_neighbour_nm"
    if unit in columns:
        spacing = voxel_size or (1.0, 1.0, 1.0)
        columns[unit] = nearest_neighbours(read_moments(columns), spacing, apart=apart)
    return columns


def box_of_row(columns: Mapping[str, Column], row: int) -> Roi:
    """Read the bounding box of an object from its row of a table."""
    ends = [[int(columns[f"bbox_{axis}_{end}"][row]) for end in ("start", "stop")] for axis in AXES]
    return zyx(slice(*each) for each in ends)


def read_moments(columns: Mapping[str, Column]) -> Moments:
    """Read voxels, places and boxes of objects back from their table."""
    voxels = columns["voxels"]
    # quotients of whole numbers: these come back exactly, up to 2**51
    sums = [np.rint(columns[f"centroid_{axis}"] * voxels).astype(np.int64) for axis in AXES]
    starts, stops = (
        np.stack([columns[f"bbox_{axis}_{end}"] for axis in AXES], axis=1)
        for end in ("start", "stop")
    )
    nothing = np.zeros((len(voxels), 0), np.int64)
    return Moments(columns["label"], voxels, np.stack(sums, axis=1), starts, stops, nothing)


def _add_places(
    table: Table, moments: Moments, region: Roi, images: Sequence[tuple[int, int]] | None
) -> None:
    voxel_size, voxels = table.voxel_size, moments.voxels
    centroids = moments.sums / voxels[:, None]
    table.add("label", moments.labels)
    table.add("voxels", voxels, "voxel")
    if voxel_size is not None:
        table.add("volume_nm3", voxels * math.prod(voxel_size), "nm^3")
    for k, axis in enumerate(AXES):
        table.add(f"centroid_{axis}", centroids[:, k], "voxel")
    for k, axis in enumerate(AXES):
        if voxel_size is not None:
            table.add(f"centroid_{axis}_nm", centroids[:, k] * voxel_size[k], "nm")
    for name, bounds in (("start", moments.starts), ("stop", moments.stops)):
        for k, axis in enumerate(AXES):
            table.add(f"bbox_{axis}_{name}", bounds[:, k], "voxel")
    borders = region if images is None else Borders(region, images)
    near, far = reached_sides(moments.starts, moments.stops, borders)
    table.add("touches_border", near | far)
    table.add("touches_far_border", far)


def _add_outlines(table: Table, singles: SingleObjects) -> None:
    for name, column, power in (
        ("feret_diameter", singles.ferets, 1),
        ("solidity", singles.solidities, 0),
        ("section_area", singles.section_areas, 2),
        ("section_perimeter", singles.section_perimeters, 1),
        ("section_circularity", singles.circularities, 0),
        ("largest_section", singles.largest_sections, 2),
        ("darkness", singles.darknesses, 0),
        ("evenness", singles.evennesses, 0),
    ):
        if column is None:
            continue
        if power:
            table.add_size(name, column, power)
        else:
            table.add(name, column)


def _add_shapes(table: Table, moments: Moments, surfaces: Column, *, apart: bool) -> None:
    spacing = table.spacing
    volumes = moments.voxels * math.prod(spacing)
    lengths, orientations = principal_axes(moments, spacing)
    table.add_size("surface_area", surfaces, 2)
    sphericity = sphericities(volumes, surfaces)
    table.add("sphericity", sphericity)
    complexity = complexity_indices(volumes, surfaces)
    table.add("complexity_index", np.where(np.isnan(sphericity), np.nan, complexity))
    table.add_size("equivalent_diameter", equivalent_diameters(volumes))
    for name, column in zip(AXIS_NAMES, lengths.T, strict=True):
        table.add_size(name, column)
    for axis, column in zip(AXES, orientations.T, strict=True):
        table.add(f"orientation_{axis}", column)
    table.add("elongation", ratio(lengths[:, 0], lengths[:, 1]))
    table.add_size("nearest_neighbour", nearest_neighbours(moments, spacing, apart=apart))
