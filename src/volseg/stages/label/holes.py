"""Fill holes: label the background like objects, and find what one object encloses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.engine.run import run_blocks
from volseg.errors import VolumeError, command
from volseg.geometry.grid import Block, Grid, roi_shape
from volseg.objects.components import Components, Pairs, Planes, touching
from volseg.objects.holes import (
    DUAL,
    NOTHING,
    OUTSIDE,
    Touched,
    find_background,
    merge_touched,
    number_holes,
    reaching_border,
    touched_within,
)
from volseg.objects.runs import paint
from volseg.sources.masks import MaskSource, open_mask
from volseg.stages.components.blocks import before, begin_at
from volseg.stages.label.plan import Foundation
from volseg.stages.label.tasks import HOLES, Layer, Numbered, Run
from volseg.storage.scratch import ComponentStore
from volseg.storage.volumes import open_image
from volseg.types import Labels, Roi, Zyx


@dataclass(frozen=True)
class FindHoles:
    """Label what is not object in one block, and keep its components.

    Attributes
    ----------
    objects, holes : the components of both, and their numbers.
    """

    grid: Grid
    objects: ComponentStore
    holes: ComponentStore
    connectivity: int

    def __call__(self, item: Numbered) -> int:
        """Label one block; return the number of its components."""
        objects, numbers = item.layers[0].load(item.block.index)
        found = find_background(
            objects, numbers, item.block.core, self.grid.shape, self.connectivity
        )
        self.holes.save(item.block.index, found)
        return len(found.sizes)


@dataclass(frozen=True)
class Around:
    """A block, and where the numbers of its objects and its neighbours' before it stand.

    Attributes
    ----------
    spans : start and stop, by block; of those that are there.
    """

    index: Zyx
    spans: Mapping[Zyx, tuple[int, int]]


@dataclass(frozen=True)
class Enclosed:
    """Objects and neighbours that the background of a block touches.

    Attributes
    ----------
    pairs : its components that touch a neighbour's, with each neighbour before it.
    meetings : a block, its components of the background, and objects that they touch across.
    """

    touched: Touched
    pairs: list[tuple[Zyx, Pairs]]
    meetings: list[tuple[Zyx, Pairs]]


@dataclass(frozen=True)
class JoinHoles:
    """Find what the background of one block touches, in it and in the blocks before it.

    Attributes
    ----------
    find : how both were labelled.
    mask : outside of which nothing was looked for, so that no hole reaches there.
    """

    find: FindHoles
    mask: MaskSource | None

    def __call__(self, item: Around) -> Enclosed:
        """Look at one block and its neighbours."""
        find, index = self.find, item.index
        core, numbers = find.grid.block(index).core, find.objects.load_numbers(*item.spans[index])
        inside, objects = find.holes.load(index), find.objects.load(index)
        touched = touched_within(inside, objects, numbers, roi_shape(core)[1], find.connectivity)
        empty, full = find.holes.load_planes(index), find.objects.load_planes(index)
        touched.low[reaching_border(empty, core, find.grid.shape, find.connectivity)] = OUTSIDE
        touched.low[self._beyond_mask(inside, core)] = OUTSIDE
        found = Enclosed(touched, [], [])
        for step, other in before(find.grid, index):
            empty_there = find.holes.load_planes(other)
            theirs = find.objects.load_numbers(*item.spans[other])
            full_there = find.objects.load_planes(other)
            back = -step[0], -step[1], -step[2]
            dual = DUAL[find.connectivity]
            found.pairs.append((other, touching(empty, empty_there, step, dual)))
            found.meetings.append((index, self._meet(empty, full_there, step, theirs)))
            found.meetings.append((other, self._meet(empty_there, full, back, numbers)))
        return found

    def _beyond_mask(self, inside: Components, core: Roi) -> NDArray[np.int64]:
        """Find the components of the background that reach out of the mask, counted from 0."""
        if self.mask is None:
            return np.zeros(0, np.int64)
        _, height, width = roi_shape(core)
        found = set[int]()
        for z, plane in enumerate(range(core[0].start, core[0].stop)):
            here = slice(z, z + 1), slice(0, height), slice(0, width)
            outside = ~self.mask[slice(plane, plane + 1), core[1], core[2]]
            found.update(np.unique(paint(inside.runs, inside.values, height, here)[outside]))
        return np.array(sorted(found - {0}), np.int64) - 1

    def _meet(self, empty: Planes, full: Planes, step: Zyx, numbers: Labels) -> Pairs:
        pairs = touching(empty, full, step, DUAL[self.find.connectivity])
        pairs[:, 1] = numbers[pairs[:, 1]]
        return pairs[pairs[:, 1] > 0]


def fill_holes(run: Run, offsets: Mapping[Zyx, int], numbers: Labels) -> None:
    """Give each enclosed component of the background its object, and keep the numbers with it.

    Parameters
    ----------
    offsets : where the numbers of each block's components begin, in raster order
    numbers : the object of each component of all blocks
    """
    plan = run.plan
    find = FindHoles(plan.grid, plan.store, run.holes, run.connectivity)

    def as_item(block: Block) -> Numbered:
        return Numbered(block, (Layer(find.objects, offsets[block.index]),))

    counts = run.label_blocks(HOLES, "finding holes", find, find.holes, as_item)
    starts, count = begin_at(counts)
    touched = Touched(np.full(count, NOTHING), np.zeros(count, np.int64))
    joins: list[Pairs] = []

    def on_result(item: Around, found: Enclosed) -> None:
        start = starts[item.index]
        here = slice(start, start + len(found.touched.low))
        # a block after this one may have met its components before it came itself
        np.minimum(touched.low[here], found.touched.low, out=touched.low[here])
        np.maximum(touched.high[here], found.touched.high, out=touched.high[here])
        for other, local in found.pairs:
            joins.append(local + np.array([start, starts[other]]))
        for index, met in found.meetings:
            merge_touched(touched, met + np.array([starts[index], 0]))

    ends = itertools.pairwise([*offsets.values(), len(numbers)])
    spans = dict(zip(offsets, ends, strict=True))
    items = (
        Around(i, {i: spans[i]} | {k: spans[k] for _, k in before(find.grid, i)}) for i in offsets
    )
    task = JoinHoles(find, mask_of(plan.source))
    run_blocks(task, items, plan.engine, on_result=on_result)
    find.holes.save_numbers(number_holes(touched, joins).astype(numbers.dtype))


def mask_of(source: Foundation) -> MaskSource | None:
    """Open the mask that probabilities were made in, if there was one."""
    if source.mask is None:
        return None
    volume = source.path.parents[1]
    mask = open_mask(open_image(volume), source.mask["labels"])
    if mask.fingerprint != source.mask["fingerprint"]:
        again = command("segment", volume, "--mask", source.mask["labels"], "--overwrite")
        raise VolumeError(
            f"the mask {mask.name} has changed since {source.path} was made in it, and "
            f"--fill-holes and --median need it; run `{again}` with the mask as it is now"
        )
    return mask
