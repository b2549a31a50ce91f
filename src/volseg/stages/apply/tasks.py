"""Correct one block, split one object, or take over what is untouched, as a worker does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import Block, full_roi, intersect, roi_shape, shift
from volseg.objects.seeding import split_from_seeds
from volseg.sources.labels import LabelSource
from volseg.stages.apply.resolve import SplitObject
from volseg.storage.arrays import StoredArray, create_array, fit_spec
from volseg.storage.files import discard, take_over
from volseg.types import Labels, Roi, VoxelSize, Zyx


@dataclass(frozen=True)
class Placed:
    """Labels over a box of the volume; where they are above 0, they replace others.

    Attributes
    ----------
    values, numbers : ascending labels above 0, and what each becomes.
    """

    labels: LabelSource | StoredArray
    box: Roi
    values: NDArray[np.uint64] = field(repr=False)
    numbers: NDArray[np.uint64] = field(repr=False)

    def put(self, labels: Labels, core: Roi) -> tuple[Labels, Labels]:
        """Put them into a block; return what was there, and what is, where they are above 0."""
        part = intersect(self.box, core)
        if part is None:
            return labels[:0].ravel(), labels[:0].ravel()
        here = labels[shift(part, [s.start for s in core])]
        found = self.labels[shift(part, [s.start for s in self.box])]
        inside = found > 0
        before = here[inside]
        chosen = np.searchsorted(self.values, found[inside].astype(np.uint64))
        here[inside] = after = self.numbers[chosen].astype(labels.dtype)
        return before, after


@dataclass(frozen=True)
class Corrected:
    """Outcome of a block.

    Attributes
    ----------
    areas : voxels of objects in each of its slices, more than before.
    changed : voxels that paintings gave to objects, less those that they took.
    """

    areas: list[int]
    changed: Mapping[int, int]


@dataclass(frozen=True)
class CorrectBlock:
    """Read a block of labels, correct it, and write it.

    Attributes
    ----------
    old, new : ascending labels that become others, and what they become.
    cuts, paintings : what is put over them, in this order.
    """

    source: LabelSource
    output: StoredArray
    old: NDArray[np.uint64] = field(repr=False)
    new: NDArray[np.uint64] = field(repr=False)
    cuts: tuple[Placed, ...] = field(repr=False)
    paintings: tuple[Placed, ...] = field(repr=False)

    def __call__(self, block: Block) -> Corrected:
        """Correct one block."""
        labels = np.maximum(self.source[block.core], 0).astype(self.output.dtype)
        areas = np.count_nonzero(labels, axis=(1, 2))
        if len(self.old):
            inside = labels > 0
            found = labels[inside]
            at = np.minimum(np.searchsorted(self.old, found), len(self.old) - 1)
            known = self.old[at] == found
            found[known] = self.new[at[known]]
            labels[inside] = found
        for cut in self.cuts:
            cut.put(labels, block.core)
        changed: dict[int, int] = {}
        for painting in self.paintings:
            before, after = painting.put(labels, block.core)
            for sign, group in ((-1, before), (1, after)):
                for label, count in zip(*np.unique(group, return_counts=True), strict=True):
                    changed[int(label)] = changed.get(int(label), 0) + sign * int(count)
        self.output.write(block.core, labels)
        changed.pop(0, None)
        return Corrected((np.count_nonzero(labels, axis=(1, 2)) - areas).tolist(), changed)


def cut_object(
    source: LabelSource, spacing: VoxelSize, folder: Path, item: tuple[int, SplitObject]
) -> list[int]:
    """Split an object from its seeds, and keep its pieces; return the voxels of each."""
    number, cut = item
    mask = source[cut.box] == cut.label
    pieces = split_from_seeds(mask, cut.seeds, spacing)
    path = pieces_path(folder, number)
    discard(path)
    array = create_array(path, fit_spec(roi_shape(cut.box), "uint32"))
    array.write(full_roi(array.shape), pieces.astype(np.uint32))
    counts: list[int] = np.bincount(pieces.ravel(), minlength=len(cut.seeds) + 1)[1:].tolist()
    return counts


def pieces_path(folder: Path, number: int) -> Path:
    """Name the place for the pieces of an object."""
    return folder / f"split-{number}"


def take_over_row(
    levels: tuple[tuple[StoredArray, StoredArray], ...],
    touched: tuple[frozenset[Zyx], ...],
    row: tuple[int, int, int],
) -> int:
    """Give the untouched files of one row of a level's grid to the outcome, as they are.

    Parameters
    ----------
    levels : of labels before and after
    touched : positions of the files of each level that are written anew
    row : the level, and positions along z and y
    """
    level, z, y = row
    before, after = levels[level]
    source, place = (array.path.joinpath("c", str(z), str(y)) for array in (before, after))
    width = range(-(-before.shape[2] // before.shard[2]))
    untouched = (x for x in width if (z, y, x) not in touched[level])
    names = [str(x) for x in untouched if (source / str(x)).exists()]
    if names:
        take_over(source, place, names)
    return len(names)
