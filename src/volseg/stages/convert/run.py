"""Convert: a stack of images to an OME-Zarr volume, one slab of a shard's depth at a time."""

from __future__ import annotations

import hashlib
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg import __version__
from volseg.engine.memory import physical_bytes
from volseg.engine.progress import Job, Progress
from volseg.errors import SourceError
from volseg.geometry.grid import Block, Grid, full_roi, intersect, shift
from volseg.sources.stack import Stack, check_finite
from volseg.stages.convert.plan import ConvertPlan, ConvertReport
from volseg.stages.levels import step_factor
from volseg.stages.survey.notes import (
    advise,
    describe_background,
    describe_histogram,
    describe_slices,
)
from volseg.storage.attributes import update_attributes
from volseg.storage.ome import IMAGES
from volseg.storage.targets import drafting_folder
from volseg.storage.volumes import Image, create_image
from volseg.voxels.downsample import reduce_mean
from volseg.voxels.slices import SliceNotes, note_slices


def convert(plan: ConvertPlan, progress: Progress) -> ConvertReport:
    """Write a stack as an OME-Zarr volume, or nothing at all."""
    begun, stack, target = time.monotonic(), plan.stack, plan.target
    with drafting_folder(target, overwrite=plan.overwrite) as partial:
        unfinished = {"version": __version__, "complete": False, **_describe_images(plan)}
        image = create_image(
            partial, plan.spec, plan.space, name=target.name, attributes=unfinished
        )
        notes = _write_levels(plan, image, progress)
        noted = notes.describe(stack, plan.fill_value)
        told = advise(replace(image, attributes=noted))
        provenance = {"source": plan.source, "voxel_size_from": plan.voxel_size_from}
        update_attributes(
            partial, {"version": __version__, "complete": True, **provenance, **noted}
        )
    return replace(
        plan.report,
        levels=len(image.levels),
        seconds=time.monotonic() - begun,
        warnings=(*plan.report.warnings, *notes.tell_filled(plan.fill_value), *told),
    )


def _describe_images(plan: ConvertPlan) -> dict[str, Any]:
    """Say how many unrelated images there are, and their names and sizes where these differ."""
    if not plan.space.planar:
        return {}
    files, count, known = plan.stack.files, plan.stack.shape[0], list(plan.stack.names)
    known = known or ([file.name for file in files] if len(files) == count > 1 else [])
    names = {"names": known} if known else {}
    sizes = {"sizes": [list(size) for size in plan.stack.sizes]} if plan.stack.sizes else {}
    return {IMAGES: {"count": count, **names, **sizes}}


@dataclass
class Notes:
    """Notes on the voxels, slab by slab.

    Attributes
    ----------
    filled : voxels that were not finite.
    """

    parts: list[SliceNotes] = field(default_factory=list)
    filled: int = 0

    def tell_filled(self, value: float | None) -> tuple[str, ...]:
        """Say how many voxels were not finite."""
        if not self.filled:
            return ()
        return (f"{self.filled} voxels were not finite (NaN), and are {value:g} now",)

    def add(self, working: list[Future[Any]]) -> None:
        """Wait for a slab, if there is one, and add what was found in it."""
        if working:
            noted, *_ = [f.result() for f in working]
            self.parts.append(noted)

    def describe(self, stack: Stack, fill_value: float | None) -> dict[str, Any]:
        """Put it in the form in which it stands in the volume."""
        areas: dict[float, int] = {}
        checksums = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            checksums.update(part.checksums.astype("<u4").tobytes())
            for value, count in part.areas.items():
                areas[value] = areas.get(value, 0) + count
        checksums.update(f"{stack.shape} {stack.dtype.name}".encode())
        counts = np.sum([p.counts for p in self.parts], axis=0)
        values = self.parts[0].values
        return {
            "histogram": describe_histogram(counts, values),
            "fingerprint": checksums.hexdigest(),
            "survey": {
                "background": describe_background(areas, counts, values, stack.dtype, fill_value),
                "slices": describe_slices(self.parts, stack.shape),
            },
        }


def _write_levels(plan: ConvertPlan, image: Image, progress: Progress) -> Notes:
    """Stream the stack through all levels; return what is noted of its voxels.

    Two slabs are held: while one is written, which is mostly waiting for the disk, the next one is
    decoded, counted, summed up and reduced. Each level is written by one thread, in order.
    """
    stack = plan.stack
    depth, planes = image.levels[0].shard[0], stack.shape[0]
    writer, notes = LevelWriter(image, 0), Notes()
    before: list[Future[Any]] = []
    slabs = _allocate(stack, min(depth, planes), 2 if planes > depth else 1)
    with (
        Job(progress, math.prod(stack.shape), "voxels", "converting").shown(),
        ThreadPoolExecutor(plan.workers) as readers,
        ThreadPoolExecutor(1) as noting,
        ThreadPoolExecutor(1) as reducing,
        ThreadPoolExecutor(1) as writing,
    ):
        for number, start in enumerate(range(0, planes, depth)):
            slab = slabs[number % 2][: planes - start]
            notes.filled += _decode(plan, start, slab, readers)
            working: list[Future[Any]] = [
                noting.submit(note_slices, slab),
                reducing.submit(writer.pass_on, slab),
                writing.submit(writer.write, slab),
            ]
            notes.add(before)
            before = working
            progress.advance(slab.size)
        notes.add(before)
    return notes


def _allocate(stack: Stack, depth: int, count: int) -> list[NDArray[Any]]:
    """Allocate slabs once: memory that is new to the process costs as much as reading into it."""
    shape = (depth, *stack.shape[1:])
    try:
        # systems promise more than there is, and then end whoever uses it
        if count * math.prod(shape) * stack.dtype.itemsize > physical_bytes():
            raise MemoryError
        return [np.empty(shape, stack.dtype) for _ in range(count)]
    except MemoryError as error:
        raise SourceError(
            f"{stack.files[0]}: {shape[0]} pages of {shape[2]} x {shape[1]} {stack.dtype} do not "
            f"fit in memory; use a larger machine, or fetch the file again if they are smaller"
        ) from error


def _decode(plan: ConvertPlan, start: int, slab: NDArray[Any], readers: ThreadPoolExecutor) -> int:
    """Read planes, or rows of chunks, side by side; return how many voxels were not finite."""
    stack = plan.stack
    chunk = (1, *stack.shape[1:]) if stack.array is None else stack.array.chunk
    _, y, x = full_roi(stack.shape)
    region = slice(start, start + len(slab)), y, x

    def fill(block: Block) -> int:
        box = intersect(block.core, region) or block.core
        part = slab[shift(box, (start, 0, 0))]
        if stack.array is None:
            stack.read_page(box[0].start, part[0])
        else:
            part[...] = stack.array[box]
        if plan.fill_value is None or part.dtype.kind != "f":
            check_finite(stack, box[0].start, part)
            return 0
        odd = ~np.isfinite(part)
        part[odd] = plan.fill_value
        return int(np.count_nonzero(odd))

    rows = Grid(stack.shape, (chunk[0], chunk[1], stack.shape[2])).blocks(region)
    return sum([future.result() for future in [readers.submit(fill, block) for block in rows]])


@dataclass
class LevelWriter:
    """Collects the rows of one level until a shard's depth is full, writes it, and passes on."""

    image: Image
    level: int
    rows: list[NDArray[Any]] = field(default_factory=list)
    held: int = 0
    written: int = 0
    following: LevelWriter | None = None

    def add(self, slab: NDArray[Any]) -> None:
        """Take rows; write and reduce whenever they fill a shard, or reach the volume's end."""
        array = self.image.levels[self.level]
        self.rows.append(slab)
        self.held += len(slab)
        if self.held < array.shard[0] and self.written + self.held < array.shape[0]:
            return
        block = self.rows[0] if len(self.rows) == 1 else np.concatenate(self.rows)
        self.rows, self.held = [], 0
        self.write(block)
        self.pass_on(block)

    def write(self, block: NDArray[Any]) -> None:
        """Write a shard's depth of rows."""
        array = self.image.levels[self.level]
        z = slice(self.written, self.written + len(block))
        array.write((z, slice(0, array.shape[1]), slice(0, array.shape[2])), block)
        self.written += len(block)

    def pass_on(self, block: NDArray[Any]) -> None:
        """Hand a shard's depth of rows, reduced, to the next level, if there is one."""
        level = self.level + 1
        if level < len(self.image.levels):
            self.following = self.following or LevelWriter(self.image, level)
            self.following.add(reduce_mean(block, step_factor(self.image, level)))
