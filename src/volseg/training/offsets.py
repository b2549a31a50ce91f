"""Offsets to the centres of objects: vectors, as targets. Pure functions.

They are kept in voxels of the labels, 0 outside of objects, so that patches are cut from them, and
turned, as vectors are; `encode` makes them maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Doubles, Floats, Mask, Roi
from volseg.voxels.blend import directions, reflected

if TYPE_CHECKING:
    from torch import Tensor

WHOLE = -1
"""The key of the centres of objects, where they are not those of sections."""
Sizes = Sequence[tuple[int, int]]
Sums = tuple[NDArray[np.int64], Doubles]
"""Numbers of objects, and a row of each."""


@dataclass(frozen=True, eq=False)
class Centres:
    """Centres of mass of the objects of labels.

    Attributes
    ----------
    tables : by the slice, or under `WHOLE`, the numbers of objects, ascending, and their centres,
        shape (objects, 3), in voxels; NaN of those that are known in part.
    """

    tables: Mapping[int, Sums]

    def aim(self, objects: NDArray[Any], box: Roi, sizes: Sizes = ()) -> Floats:
        """Find the vector from each voxel of a box to the centre of its object.

        Parameters
        ----------
        objects : integer, shape (z, y, x); of the box; 0 is background.
        sizes : (y, x) of each slice, if its reflection lies beyond

        Returns
        -------
        float32, shape (3, z, y, x); in voxels; 0 in the background.
        """
        found = np.zeros((3, *objects.shape), np.float32)
        for k, z in enumerate(range(box[0].start, box[0].stop)):
            inside = np.nonzero(objects[k])
            if not len(inside[0]):
                continue
            numbers, places = self.tables[WHOLE if WHOLE in self.tables else z]
            centre = places[np.searchsorted(numbers, objects[k][inside].astype(np.int64))]
            found[0, k][inside] = centre[:, 0] - z
            for axis in (1, 2):
                ends, at = (box[axis].start, box[axis].stop), inside[axis - 1]
                line, sign = np.arange(*ends), np.ones(ends[1] - ends[0])
                if len(sizes):
                    line, sign = (f(*ends, sizes[z][axis - 1]) for f in (reflected, directions))
                found[axis, k][inside] = (centre[:, axis] - line[at]) * sign[at]
        return found


def find_centres(slices: Iterable[tuple[NDArray[Any], Mask]], *, flat: bool) -> Centres:
    """Find the centres of the objects of labels.

    Parameters
    ----------
    slices : in order; objects, 0 elsewhere, and what nobody annotated, shape (y, x)
    flat : whether the sections of an object have centres of their own

    Examples
    --------
    >>> planes = [(np.array([[0, 5, 5, 5, 7]]), np.zeros((1, 5), bool))]
    >>> find_centres(planes, flat=False).tables[WHOLE][1].tolist()
    [[0.0, 0.0, 2.0], [0.0, 0.0, 4.0]]
    """
    from scipy import ndimage  # heavy, and only training needs it

    tables, every = dict[int, Sums](), list[Sums]()
    before: tuple[NDArray[Any], Mask] | None = None
    for z, (objects, lacking) in enumerate(slices):
        y, x = np.nonzero(objects)
        numbered = objects[y, x].astype(np.int64)
        numbers, at, count = np.unique(numbered, return_inverse=True, return_counts=True)
        near = ndimage.binary_dilation(lacking) if lacking.any() else lacking
        cut = [objects[near & (objects > 0)]]
        if before is not None and not flat:
            cut += [objects[before[1] & (objects > 0)], before[0][lacking & (before[0] > 0)]]
        sums = [count, z * count, *(np.bincount(at, c, len(numbers)) for c in (y, x)), 0 * count]
        parts = np.unique(np.concatenate(cut)).astype(np.int64)
        found = [(numbers, np.stack(sums, axis=1)), (parts, np.eye(5)[[4] * len(parts)])]
        if flat:
            tables[z] = _centres(found)
        else:
            before = objects, lacking
            every += found
    return Centres(tables if flat else {WHOLE: _centres(every)})


def _centres(found: Sequence[Sums]) -> Sums:
    """Divide what is found of each number: places by voxels; none of what is known in part."""
    numbers, at = np.unique(np.concatenate([n for n, _ in found]), return_inverse=True)
    total = np.zeros((len(numbers), 5))
    np.add.at(total, at, np.concatenate([sums for _, sums in found]))
    places = total[:, 1:4] / total[:, :1]
    places[total[:, 4] > 0] = np.nan
    return numbers, places


def number_components(mask: Mask, *, flat: bool) -> NDArray[np.int32]:
    """Give each connected part of a mask, or of each of its slices, a number of its own."""
    from scipy import ndimage  # heavy, and only training needs it

    joined = np.ones((3, 3, 3), bool)
    if flat:
        joined[[0, 2]] = False
    found: NDArray[np.int32] = ndimage.label(mask, joined, output=np.int32)[0]
    return found


def encode(vector: Tensor, inside: Tensor, reach: float) -> Tensor:
    """Make a map of a component of vectors: 0.5 is none, 0 and 1 are the reach.

    A voxel takes the mean of the objects' voxels among those between which it lies, and is NaN
    where most of these are background.

    Parameters
    ----------
    vector, inside : of a patch, as they and the objects' class were interpolated
    reach : in the unit of the vectors

    Examples
    --------
    >>> from torch import Tensor
    >>> encode(Tensor([0.0, 2.0, -3.0]), Tensor([0.0, 1.0, 0.75]), 8.0).tolist()
    [nan, 0.625, 0.25]
    """
    found = (0.5 + vector / inside / (2 * reach)).clamp(0, 1)
    return found.masked_fill(inside < 0.5, float("nan"))
