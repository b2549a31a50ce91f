"""Convert: a stack of images to an OME-Zarr volume, one slab of a shard's depth at a time."""

from __future__ import annotations

import hashlib
import math
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg import __version__
from volseg.engine.memory import physical_bytes
from volseg.engine.options import available_cores
from volseg.engine.progress import Progress
from volseg.errors import ConflictError, SourceError
from volseg.geometry.grid import Block, Grid, full_roi, intersect, shift
from volseg.sources.stack import Stack, check_finite, open_stack
from volseg.sources.voxel_size import settle_voxel_size
from volseg.stages.convert.level_writer import LevelWriter
from volseg.stages.convert.target import check_target, replacing
from volseg.storage.arrays import fit_spec
from volseg.storage.attributes import update_attributes
from volseg.storage.locations import as_remote, parse_location
from volseg.storage.volumes import Image, create_image
from volseg.types import VoxelSize, Zyx
from volseg.voxels.intensity import count_intensities


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    Attributes
    ----------
    voxel_size : nm (z, y, x); overrides what the file says.
    channel : which channel of a colour source.
    workers : threads that decode; None is one per core.
    overwrite : replace a volume that is there already, once the new one is complete.
    dry_run : look at the source, write nothing.
    """

    voxel_size: VoxelSize | None = None
    channel: int | None = None
    workers: int | None = None
    overwrite: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class ConvertReport:
    """What was, or would be, converted.

    Attributes
    ----------
    voxel_size, voxel_size_from : nm (z, y, x), None if unknown; and where it comes from.
    raw_bytes : uncompressed size of level 0.
    memory_bytes : of the slabs that are held at once, as far as they do not compress.
    """

    shape: Zyx
    dtype: str
    voxel_size: VoxelSize | None
    voxel_size_from: str | None
    levels: int
    raw_bytes: int
    memory_bytes: int
    seconds: float
    warnings: tuple[str, ...]


def convert(
    source: str | Path, target: Path, options: ConvertOptions, progress: Progress
) -> ConvertReport:
    """Write a stack as an OME-Zarr volume, or nothing at all.

    Parameters
    ----------
    source : TIFF file, folder or glob of slices, Zarr image or array
    target : folder that is to be created
    options : ConvertOptions
    progress : Progress

    Raises
    ------
    SourceError, VoxelSizeError
        If the source cannot be read as one stack.
    ConflictError
        If the target exists, or the source lies in it.
    StorageError
        If it cannot be written.
    """
    begun = time.monotonic()
    check_target(target, overwrite=options.overwrite)
    check_apart(source, target)
    with opened(source, options.channel) as stack:
        if stack.array is not None:
            check_apart(target, parse_location(str(source)))
        size, origin, warnings = settle_voxel_size(stack.stated, options.voxel_size)
        spec = fit_spec(stack.shape, stack.dtype.name)
        levels = 0
        if not options.dry_run:
            with replacing(target, overwrite=options.overwrite) as partial:
                unfinished = {"version": __version__, "complete": False}
                image = create_image(partial, spec, size, name=target.name, attributes=unfinished)
                levels = len(image.levels)
                noted = _write_levels(stack, image, options, progress)
                provenance = {"source": _describe(stack), "voxel_size_from": origin}
                update_attributes(
                    partial, {"version": __version__, "complete": True, **provenance, **noted}
                )
        plane = int(np.prod(stack.shape[1:])) * stack.dtype.itemsize
        return ConvertReport(
            stack.shape,
            stack.dtype.name,
            size,
            origin,
            levels,
            plane * stack.shape[0],
            # Two slabs of level 0, one encoded, less than a third of one for all other levels.
            int(plane * min(spec.shard[0], stack.shape[0]) * 10 / 3),
            time.monotonic() - begun,
            (*stack.warnings, *warnings),
        )


@contextmanager
def opened(source: str | Path, channel: int | None) -> Iterator[Stack]:
    """Open a stack and close its files at the end."""
    stack = open_stack(source, channel)
    try:
        yield stack
    finally:
        stack.close()


def check_apart(source: str | Path, target: Path) -> None:
    """Refuse to replace what is to be read, or a part of it.

    Raises
    ------
    ConflictError
        If the first lies in the second.
    """
    place = parse_location(str(source))
    both = (as_remote(place) is None) == (as_remote(target) is None)
    if both and place.resolve().is_relative_to(target.resolve()):
        raise ConflictError(f"{source} lies in {target}; a volume is written elsewhere")


def _describe(stack: Stack) -> dict[str, Any]:
    first, last = stack.files[0], stack.files[-1]
    if stack.array is not None:
        return {"first": first.name, **stack.metadata}
    return {
        "files": len(stack.files),
        "first": first.name,
        "last": last.name,
        "bytes": sum(f.stat().st_size for f in stack.files),
        **stack.metadata,
    }


@dataclass
class Notes:
    """What is noted of the voxels, slab by slab: how often each intensity occurs, and their sum."""

    counts: NDArray[np.int64] | int = 0
    values: NDArray[Any] = field(default_factory=lambda: np.zeros(0))
    checksums: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def add(self, working: list[Future[Any]]) -> None:
        """Wait for a slab, if there is one, and add what was found in it."""
        if not working:
            return
        (found, self.values), checksums = [f.result() for f in working][:2]
        self.counts = self.counts + found
        self.checksums.update(checksums)

    def describe(self, stack: Stack) -> dict[str, Any]:
        """Put it in the form in which it stands in the volume."""
        present = np.flatnonzero(self.counts)
        counts = np.broadcast_to(self.counts, self.values.shape)
        self.checksums.update(f"{stack.shape} {stack.dtype.name}".encode())
        histogram = {"values": self.values[present].tolist(), "counts": counts[present].tolist()}
        return {"histogram": histogram, "fingerprint": self.checksums.hexdigest()}


def _write_levels(
    stack: Stack, image: Image, options: ConvertOptions, progress: Progress
) -> dict[str, Any]:
    """Stream the stack through all levels; return what is noted of its voxels.

    Two slabs are held: while one is written, which is mostly waiting for the disk, the next one is
    decoded, counted, summed up and reduced. Each level is written by one thread, in order.
    """
    depth, planes = image.levels[0].shard[0], stack.shape[0]
    threads = options.workers or available_cores()
    writer, notes = LevelWriter(image, 0), Notes()
    before: list[Future[Any]] = []
    slabs = _allocate(stack, min(depth, planes), 2 if planes > depth else 1)
    progress.start(int(np.prod(stack.shape)), "voxels", "converting")
    try:
        with (
            ThreadPoolExecutor(threads) as readers,
            ThreadPoolExecutor(2) as noting,
            ThreadPoolExecutor(1) as reducing,
            ThreadPoolExecutor(1) as writing,
        ):
            for number, start in enumerate(range(0, planes, depth)):
                slab = slabs[number % 2][: planes - start]
                _decode(stack, start, slab, readers)
                working: list[Future[Any]] = [
                    noting.submit(count_intensities, slab),
                    noting.submit(_checksums, slab),
                    reducing.submit(writer.pass_on, slab),
                    writing.submit(writer.write, slab),
                ]
                notes.add(before)
                before = working
                progress.advance(slab.size)
            notes.add(before)
    finally:
        progress.finish()
    return notes.describe(stack)


def _checksums(slab: NDArray[Any]) -> bytes:
    """Sum up each plane; tells other data apart, and costs a fraction of a cryptographic hash."""
    return b"".join(zlib.crc32(plane.data).to_bytes(4, "little") for plane in slab)


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


def _decode(stack: Stack, start: int, slab: NDArray[Any], readers: ThreadPoolExecutor) -> None:
    """Read planes side by side into a slab, or what is stored in chunks row of chunks by row."""
    chunk = (1, *stack.shape[1:]) if stack.array is None else stack.array.chunk
    _, y, x = full_roi(stack.shape)
    region = slice(start, start + len(slab)), y, x

    def fill(block: Block) -> None:
        box = intersect(block.core, region) or block.core
        part = slab[shift(box, (start, 0, 0))]
        if stack.array is None:
            stack.read_page(box[0].start, part[0])
        else:
            part[...] = stack.array[box]
        check_finite(stack, box[0].start, part)

    rows = Grid(stack.shape, (chunk[0], chunk[1], stack.shape[2])).blocks(region)
    for future in [readers.submit(fill, block) for block in rows]:
        future.result()
