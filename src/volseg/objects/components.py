"""Connected components of a volume in two passes over its blocks. Pure functions over arrays.

Pass 1 labels each block by itself and keeps little of it: the runs along x, the outermost planes,
and each component's size and first voxel. Components that touch across block borders are then
joined and numbered, see `volseg.objects.joining`. Pass 2 paints the runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.defaults import CONNECTIVITY
from volseg.geometry.grid import full_roi, roi_shape
from volseg.objects.runs import Runs, find_runs, join_runs, neighbour_pairs, paint, sum_runs
from volseg.types import FULL_PROBABILITY, Labels, Roi, Zyx, zyx

DIFFERING = {6: 1, 18: 2, 26: 3, 4: 1, 8: 2}
"""Along how many axes the positions of neighbours may differ, by connectivity."""
PLANAR = {6: 4, 18: 8, 26: 8, 4: 4, 8: 8}
"""Connectivity within slices, by that in a volume."""
Planes = Mapping[tuple[int, int], NDArray[np.unsignedinteger]]
"""A block's outermost planes: ``planes[axis, side]`` with side 0 (first) or -1 (last)."""
Pairs = NDArray[np.int64]
"""Shape (pairs, 2): two components that touch."""

EARLIER: tuple[Zyx, ...] = tuple(
    (z, y, x) for z, y, x in itertools.product((-1, 0, 1), repeat=3) if (z, y, x) < (0, 0, 0)
)
"""The 13 neighbours of a block that come before it in raster order, as steps in the grid."""


@dataclass(frozen=True)
class Components:
    """Components of one block, as pass 1 keeps them.

    Attributes
    ----------
    values : uint32, shape (runs,); the component of each run, from 1.
    sizes, firsts : int64, shape (components,)
        Voxels of each component, and the index of its first voxel in the volume's raster order.
    planes : unsigned, shapes (y, x), (z, x), (z, y); empty where they are not needed.
    """

    runs: Runs
    values: NDArray[np.uint32]
    sizes: NDArray[np.int64]
    firsts: NDArray[np.int64]
    planes: Planes


def find_components(
    volume: NDArray[Any], core: Roi, shape: Zyx, connectivity: int = CONNECTIVITY, *, level: int = 1
) -> Components:
    """Label one block by itself.

    Parameters
    ----------
    volume : bool or integer, shape of ``core``
    core : where the block lies in the volume
    shape : the volume's (z, y, x)
    connectivity : see `DIFFERING`; 4 and 8 join nothing across slices
    level : from which a voxel is foreground
    """
    runs, height = find_runs(volume, level), volume.shape[1]
    values, count = join_runs(runs, height, connectivity)
    lengths = runs.stops - runs.starts
    sizes = np.bincount(values, lengths, minlength=count + 1).astype(np.int64)[1:]
    # components are numbered by their first runs
    first = np.searchsorted(np.maximum.accumulate(values), np.arange(1, count + 1))
    row = np.searchsorted(runs.rows, first, side="right") - 1
    z, y = row // height + core[0].start, row % height + core[1].start
    x = runs.starts[first].astype(np.int64) + core[2].start
    narrow = values.astype(np.min_scalar_type(count))
    planes = {}
    for axis, side in itertools.product(range(3), (0, -1)):
        box, at = list(full_roi(volume.shape)), side % volume.shape[axis]
        box[axis] = slice(at, at + 1)
        painted = paint(runs, narrow, height, zyx(box))
        planes[axis, side] = painted.squeeze(axis)
    return Components(runs, values, sizes, (z * shape[1] + y) * shape[2] + x, planes)


def number_runs(components: Components, numbers: Labels) -> Labels:
    """Give each run of a block the number of its object.

    Parameters
    ----------
    numbers : shape (components,)
        0 for those that are dropped.

    Returns
    -------
    type of ``numbers``, shape (runs,)
    """
    return numbers[components.values - 1]


def render(components: Components, numbers: Labels, core: Roi) -> Labels:
    """Paint a block's labels, each component with the number of its object.

    Parameters
    ----------
    numbers : shape (components,)
        0 for those that are dropped.
    """
    shape = roi_shape(core)
    return paint(components.runs, number_runs(components, numbers), shape[1], full_roi(shape))


def find_seeded(components: Components, volume: NDArray[Any], level: int) -> NDArray[np.bool_]:
    """Tell which components of a block hold a voxel of at least a level.

    Hysteresis, as in J. Canny, "A computational approach to edge detection", IEEE PAMI 8 (1986),
    section V: weak voxels count where they are connected to strong ones.

    Parameters
    ----------
    volume : bool or integer, shape (z, y, x); what they were found in.
    level : at least that of the components

    Returns
    -------
    bool, shape (components,)
    """
    seeds = find_runs(volume, level)
    # a seed's run lies within one run of its row: the last that begins no later
    width = np.int64(volume.shape[2])
    found = _places(components.runs, width), _places(seeds, width)
    inside = np.searchsorted(found[0], found[1], side="right") - 1
    seeded = np.zeros(len(components.sizes), bool)
    seeded[components.values[inside] - 1] = True
    return seeded


def sum_levels(components: Components, volume: NDArray[Any]) -> NDArray[np.int64]:
    """Sum the values of the voxels of each component of a block.

    Parameters
    ----------
    volume : bool or integer, shape (z, y, x); what they were found in.

    Returns
    -------
    int64, shape (components,)
    """
    totals = np.zeros(len(components.sizes), np.int64)
    sum_runs(components.runs, components.values, np.ascontiguousarray(volume), totals)
    return totals


def measure_sections(
    components: Components, planes: Planes, core: Roi
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Measure the sections of the components of a block in its slices.

    Parameters
    ----------
    planes : of the block
    core : where it lies

    Returns
    -------
    largest : int64, shape (components,); voxels of the largest section of each.
    open : int64, shape (n, 3)
        Of components at the block's border, of which an object may have several: the component,
        counted from 0, each slice of the volume that it reaches, and its voxels there.
    """
    depth, height, _ = roi_shape(core)
    runs, count = components.runs, len(components.sizes)
    z = np.repeat(np.arange(depth), np.diff(runs.rows[::height]))
    keys, at = np.unique((components.values - np.int64(1)) * depth + z, return_inverse=True)
    voxels = np.zeros(len(keys), np.int64)
    np.add.at(voxels, at, runs.stops.astype(np.int64) - runs.starts)
    component, largest = keys // depth, np.zeros(count, np.int64)
    np.maximum.at(largest, component, voxels)
    at_border = np.zeros(count + 1, bool)
    for plane in planes.values():
        at_border[plane] = True
    rows = np.stack([component, keys % depth + core[0].start, voxels], axis=1)
    return largest, rows[at_border[component + 1]]


def mean_probabilities(totals: NDArray[np.int64], voxels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the mean probability of each object from its sum of levels of 255."""
    means: NDArray[np.float64] = totals / (voxels * FULL_PROBABILITY)
    return means


def _places(runs: Runs, width: np.int64) -> NDArray[np.int64]:
    """Find the index of each run's first voxel."""
    rows = runs.rows.astype(np.int64)
    row = np.repeat(np.arange(len(rows) - 1), rows[1:] - rows[:-1])
    return row * width + runs.starts


def touching(here: Planes, there: Planes, step: Zyx, connectivity: int = CONNECTIVITY) -> Pairs:
    """Find the components of two neighbouring blocks that touch, by faces, edges or corners.

    Parameters
    ----------
    here, there : see `Planes`
    step : each -1, 0 or 1
        From ``here`` to ``there`` in the grid of blocks.
    connectivity : see `DIFFERING`

    Returns
    -------
    int64, shape (pairs, 2), unique; components of ``here`` and of ``there``, counted from 0.
    """
    reach = DIFFERING[connectivity] - sum(s != 0 for s in step)
    planar = connectivity in (4, 8)
    if reach < 0 or (planar and step[0]):
        return np.zeros((0, 2), np.int64)
    ours, theirs = _border(here, step), _border(there, (-step[0], -step[1], -step[2]))
    found = neighbour_pairs(ours, theirs, reach, rows_apart=planar)
    pairs = np.unique(found).astype(np.int64)
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF], axis=1) - 1


def _border(planes: Planes, step: Zyx) -> NDArray[np.unsignedinteger]:
    """Cut the voxels that face a neighbour: a plane, two axes, of length one where need be."""
    axis = next(k for k in range(3) if step[k])
    plane = planes[axis, -1 if step[axis] > 0 else 0]
    for position, other in enumerate(k for k in range(3) if k != axis):
        if step[other]:
            plane = np.take(plane, [-1 if step[other] > 0 else 0], position)
    return plane
