"""Holes: background that one object encloses, found blockwise. Pure functions over arrays.

The background is labelled as objects are, with the dual of their connectivity. Each of its
components keeps the lowest and the highest number of the objects that it touches, which merge in
any order; a component is a hole if both are equal and it does not reach the volume's border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import full_roi
from volseg.objects.components import Components, Pairs, Planes, find_components
from volseg.objects.runs import Indices, paint
from volseg.objects.union_find import connected_groups
from volseg.types import Labels, Roi, Zyx
from volseg.voxels.compilation import compiled

NOTHING = np.iinfo(np.int64).max
"""Lowest object of a component that touches none."""
OUTSIDE = 0
"""The number that stands for all beyond the volume's border."""
DUAL = {6: 26, 18: 6, 26: 6, 4: 8, 8: 4}
"""Connectivity of the background, by that of objects, so that no two cross each other.

T. Y. Kong, A. Rosenfeld, "Digital topology: introduction and survey", Computer Vision, Graphics,
and Image Processing 48 (1989), section 4.
"""


@dataclass(frozen=True)
class Touched:
    """The objects that components of the background touch.

    Attributes
    ----------
    low, high : int64, shape (components,)
        The lowest and the highest number; `OUTSIDE` where the border is touched, `NOTHING` and 0
        where nothing is.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]


def find_background(
    objects: Components, numbers: Labels, core: Roi, shape: Zyx, connectivity: int
) -> Components:
    """Label the background of one block.

    Parameters
    ----------
    numbers : shape (components,)
        0 for those that were dropped, and are background.
    core : where the block lies
    shape : the volume's (z, y, x)
    connectivity : of the objects
    """
    box = full_roi([s.stop - s.start for s in core])
    kept = (numbers > 0).astype(np.uint8)
    inside = paint(objects.runs, kept[objects.values - 1], box[1].stop, box)
    return find_components(inside == 0, core, shape, DUAL[connectivity])


def touched_within(
    background: Components, objects: Components, numbers: Labels, height: int, connectivity: int
) -> Touched:
    """Find the objects that each component of the background touches within its block.

    Parameters
    ----------
    background, objects : of one block
    numbers : of the objects
    height : rows of a plane of the block
    connectivity : of the objects
    """
    count = len(background.sizes)
    low, high = np.full(count, NOTHING), np.zeros(count, np.int64)
    number = numbers[objects.values - 1].astype(np.int64)
    how = height, DUAL[connectivity]
    _touch((*background.runs, background.values), (*objects.runs, number), how, low, high)
    return Touched(low, high)


@compiled
def _touch(
    here: tuple[Indices, Indices, Indices, Indices],
    there: tuple[Indices, Indices, Indices, NDArray[np.int64]],
    how: tuple[int, int],
    low: NDArray[np.int64],
    high: NDArray[np.int64],
) -> None:
    rows, starts, stops, values = here
    rows_there, starts_there, stops_there, numbers = there
    height, connectivity = how
    for row in range(len(rows) - 1):
        z, y = row // height, row % height
        for step in range(9):
            dz, dy = step // 3 - 1, step % 3 - 1
            apart = abs(dz) + abs(dy)
            other = row + dz * height + dy
            if not (0 <= y + dy < height and z + dz >= 0 and other < len(rows) - 1):
                continue
            if (apart == 2 and connectivity == 6) or (dz != 0 and connectivity in (4, 8)):
                continue
            # in the same row, neighbours lie end to end
            reach = int(apart == 0 or connectivity == 26 or connectivity == 8)
            i, j = rows[row], rows_there[other]
            while i < rows[row + 1] and j < rows_there[other + 1]:
                meets = starts[i] < stops_there[j] + reach and starts_there[j] < stops[i] + reach
                if meets and numbers[j] > 0:
                    component = values[i] - 1
                    low[component] = min(low[component], numbers[j])
                    high[component] = max(high[component], numbers[j])
                if stops[i] < stops_there[j]:
                    i += 1
                else:
                    j += 1


def reaching_border(planes: Planes, core: Roi, shape: Zyx, connectivity: int) -> NDArray[np.int64]:
    """Find the components of a block that reach the volume's border, counted from 0.

    Within slices, as 4 and 8 join, the first slice and the last are no border.
    """
    faces = [
        plane
        for (axis, side), plane in planes.items()
        if (core[axis].start == 0 if side == 0 else core[axis].stop == shape[axis])
        and not (axis == 0 and connectivity in (4, 8))
    ]
    found = np.unique(np.concatenate([np.zeros(0, np.int64), *(f.ravel() for f in faces)]))
    return found[found > 0].astype(np.int64) - 1


def merge_touched(touched: Touched, meetings: Pairs) -> None:
    """Add objects that touch across the borders of blocks, in place.

    Parameters
    ----------
    touched : of all components
    meetings : shape (meetings, 2); a component, counted from 0, and the number of an object.
    """
    np.minimum.at(touched.low, meetings[:, 0], meetings[:, 1])
    np.maximum.at(touched.high, meetings[:, 0], meetings[:, 1])


def number_holes(touched: Touched, pairs: Sequence[Pairs]) -> NDArray[np.int64]:
    """Give each component of the background the number of the object that encloses it.

    Parameters
    ----------
    touched : of all components
    pairs : arrays of shape (pairs, 2); components that touch.

    Returns
    -------
    int64, shape (components,); 0 for what is open, or touches more than one object.

    Examples
    --------
    >>> touched = Touched(np.array([3, NOTHING, 3, 0]), np.array([3, 0, 4, 7]))
    >>> number_holes(touched, [np.array([[0, 1]])]).tolist()
    [3, 3, 0, 0]
    """
    count = len(touched.low)
    found, group = connected_groups(count, np.concatenate([np.zeros((0, 2), np.int64), *pairs]))
    low, high = np.full(found, NOTHING), np.zeros(found, np.int64)
    np.minimum.at(low, group, touched.low)
    np.maximum.at(high, group, touched.high)
    holes: NDArray[np.int64] = np.where(low == high, low, OUTSIDE)[group]
    return holes
