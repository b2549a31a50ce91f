"""Connected components of a volume in two passes over its blocks. Pure functions over arrays.

Pass 1 labels each block by itself and keeps little of it: the runs along x, the outermost planes,
and each component's size and first voxel. Components that touch across block borders are then
joined, over faces, edges and corners (26-connectivity), and numbered by their first voxel in raster
order: a number that does not depend on how the volume was cut. Pass 2 renders the runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from volseg.blocks import roi_shape
from volseg.types import Labels, Mask, Roi, Zyx

CONNECTIVITY = 26
Pairs = NDArray[np.int64]
"""Shape (pairs, 2): two components that touch."""

EARLIER: tuple[Zyx, ...] = tuple(
    (z, y, x) for z, y, x in itertools.product((-1, 0, 1), repeat=3) if (z, y, x) < (0, 0, 0)
)
"""The 13 neighbours of a block that come before it in raster order, as steps in the grid."""


@dataclass(frozen=True)
class Components:
    """What pass 1 keeps of one block.

    Attributes
    ----------
    starts, values : uint32
        Where, in the block's raster order, the label changes, and to what; the first start is 0.
    sizes, firsts : int64, shape (components,)
        Voxels of each component, and the index of its first voxel in the volume's raster order.
    planes : uint32, shapes (y, x), (z, x), (z, y)
        The outermost planes: ``planes[axis, side]`` with side 0 (first) or -1 (last).
    """

    starts: NDArray[np.uint32]
    values: NDArray[np.uint32]
    sizes: NDArray[np.int64]
    firsts: NDArray[np.int64]
    planes: Mapping[tuple[int, int], NDArray[np.uint32]]


def find_components(mask: Mask, core: Roi, shape: Zyx) -> Components:
    """Label one block by itself.

    Parameters
    ----------
    mask : bool, shape of ``core``
    core : where the block lies in the volume
    shape : the volume's (z, y, x)
    """
    labels = _label(mask)
    flat = labels.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1]).astype(np.uint32)
    values = flat[starts]
    count = int(values.max())
    lengths = _lengths(starts, flat.size)
    sizes = np.bincount(values, lengths, minlength=count + 1).astype(np.int64)[1:]
    present, first_run = np.unique(values, return_index=True)
    first_run = first_run[present > 0]
    inside = np.unravel_index(starts[first_run], labels.shape)
    z, y, x = (i.astype(np.int64) + s.start for i, s in zip(inside, core, strict=True))
    firsts = (z * shape[1] + y) * shape[2] + x
    planes = {(axis, side): np.take(labels, side, axis) for axis in range(3) for side in (0, -1)}
    return Components(starts, values, sizes, firsts, planes)


def _label(mask: Mask) -> NDArray[np.uint32]:
    # cc3d makes room for half as many components as voxels; a thin block can hold more
    if math.prod(-(-n // 2) for n in mask.shape) < mask.size // 2:
        solid = np.ascontiguousarray(mask)
        return np.asarray(cc3d.connected_components(solid, connectivity=26), np.uint32)
    labels = np.empty(mask.shape, np.uint32)
    ndimage.label(mask, np.ones((3, 3, 3), bool), output=labels)
    return labels


def _lengths(starts: NDArray[np.uint32], size: int) -> NDArray[np.int64]:
    return np.asarray(np.diff(starts.astype(np.int64), append=size), np.int64)


def render(components: Components, numbers: Labels, core: Roi) -> Labels:
    """Write a block's labels out, each component with the number of its object.

    Parameters
    ----------
    components : Components
    numbers : shape (components,)
        0 for those that are dropped.
    core : where the block lies
    """
    shape = roi_shape(core)
    table = np.concatenate([np.zeros(1, numbers.dtype), numbers])
    lengths = _lengths(components.starts, math.prod(shape))
    return np.repeat(table[components.values], lengths).reshape(shape)


def touching(here: Components, there: Components, step: Zyx) -> Pairs:
    """Find the components of two neighbouring blocks that touch, by faces, edges or corners.

    Parameters
    ----------
    here, there : Components
    step : each -1, 0 or 1
        From ``here`` to ``there`` in the grid of blocks.

    Returns
    -------
    int64, shape (pairs, 2), unique
        Components of ``here`` and of ``there``, counted from 0.
    """
    ours = _border(here, step)
    theirs = _border(there, (-step[0], -step[1], -step[2]))
    occupied = np.argwhere(ours)
    if not occupied.size or not theirs.any():
        return np.zeros((0, 2), np.int64)
    own = ours[tuple(occupied.T)]
    free = [s == 0 for s in step]
    padded = np.pad(theirs, [(int(f), int(f)) for f in free])
    seen = []
    for moves in itertools.product(*[(0, 1, 2) if f else (0,) for f in free]):
        other = padded[tuple((occupied + moves).T)]
        met = other > 0
        pair = own[met].astype(np.int64) << 32 | other[met]
        # neighbours in a plane mostly repeat the pair before
        seen.append(pair[np.flatnonzero(np.diff(pair, prepend=-1))])
    pairs = np.unique(np.concatenate(seen))
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF], axis=1) - 1


def _border(components: Components, step: Zyx) -> NDArray[np.uint32]:
    """Cut the voxels that face a neighbour, three axes, of length one where the step is not 0."""
    axis = next(k for k in range(3) if step[k])
    plane = np.expand_dims(components.planes[axis, -1 if step[axis] > 0 else 0], axis)
    for other in range(axis + 1, 3):
        if step[other]:
            plane = np.take(plane, [-1 if step[other] > 0 else 0], other)
    return plane


@dataclass(frozen=True)
class Numbering:
    """The objects of a volume.

    Attributes
    ----------
    numbers : uint32, or uint64 where there are more objects, shape (components,)
        The object of each component of all blocks; 0 for those that are dropped.
    objects : how many there are.
    """

    numbers: Labels
    objects: int


def number_objects(
    sizes: NDArray[np.int64],
    firsts: NDArray[np.int64],
    pairs: Sequence[Pairs],
    min_size: int = 0,
) -> Numbering:
    """Join components to objects, drop the small ones, and number the rest by first voxel.

    Parameters
    ----------
    sizes, firsts : shape (components,)
        See `Components`; of all blocks, one after the other.
    pairs : arrays of shape (pairs, 2)
        Components, counted over all blocks, that touch.
    min_size : objects of fewer voxels are dropped
    """
    count = len(sizes)
    if count == 0:
        return Numbering(np.zeros(0, np.uint32), 0)
    a, b = np.concatenate([np.zeros((0, 2), np.int64), *pairs]).T
    graph = sparse.coo_array((np.ones(len(a), bool), (a, b)), shape=(count, count))
    found, group = csgraph.connected_components(graph, directed=False)
    size, first = np.zeros(found, np.int64), np.full(found, np.iinfo(np.int64).max)
    np.add.at(size, group, sizes)
    np.minimum.at(first, group, firsts)
    kept = np.flatnonzero(size >= min_size)
    number = np.zeros(found, label_type(len(kept)))
    number[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1, dtype=number.dtype)
    return Numbering(number[group], len(kept))


def label_type(objects: int) -> np.dtype[np.unsignedinteger]:
    """Choose the smallest of uint32 and uint64 that can number this many objects."""
    return np.dtype(np.uint32 if objects <= np.iinfo(np.uint32).max else np.uint64)
