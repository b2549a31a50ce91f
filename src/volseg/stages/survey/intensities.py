"""Look at volumes that others wrote, as `convert` does at those that it writes."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks
from volseg.errors import VolumeError, command
from volseg.geometry.grid import Block, Grid, gather_chunks, grow, shift
from volseg.sources.stack import ACCEPTED_TYPES
from volseg.stages.survey.notes import describe_background, describe_histogram, describe_slices
from volseg.storage.arrays import StoredArray
from volseg.storage.volumes import Image
from volseg.voxels.background import SIDE, SMALLEST, find_constant
from volseg.voxels.histogram import count_intensities
from volseg.voxels.slices import SliceNotes, note_slices

BLOCK_VOXELS = 1 << 24
"""Of what is read at once, unless a chunk is larger."""
WINDOW, MOST_SLICES = 1024, 64
"""Pixels a side of what is looked at of slices, and slices that are looked at together."""


def _count_block(array: StoredArray, block: Block) -> tuple[NDArray[np.int64], dict[float, int]]:
    """Count how often each intensity occurs in a block, and in squares of one value."""
    # what squares are made of reaches into the neighbours
    box = grow(block.core, (0, SIDE - 1, SIDE - 1), array.shape)
    around = array[box]
    own = shift(block.core, [s.start for s in box])
    voxels = around[own]
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise VolumeError(
            f"{array.path} holds values that are not finite, in {block}; replace them first"
        )
    areas: dict[float, int] = {}
    for plane in around if min(array.shape[1:]) >= SMALLEST else ():
        for value, found in find_constant(plane):
            count = int(found[own[1:]].sum())
            areas[value] = areas.get(value, 0) + count
    return count_intensities(voxels)[0], areas


def _note_block(array: StoredArray, block: Block) -> SliceNotes:
    """Take notes on the slices of a block that reaches over all of what is looked at."""
    return note_slices(array[block.core])


def with_survey(image: Image, engine: EngineOptions, progress: Progress) -> Image:
    """Give an image a histogram, a fingerprint made from that, and notes on its slices.

    Nothing is written, and its own notes are kept. Counts are whole numbers, so blocks of any size
    and order give the same. Slices are looked at in a window of the volume, so that any number of
    them costs little.
    """
    if image.attributes.get("survey") and image.attributes.get("histogram"):
        return image
    array = image.levels[0]
    counted, background = _count(image, engine, progress)
    slices = describe_slices(_note(array, engine, progress), array.shape)
    survey = {"background": background, "slices": slices}
    return replace(image, attributes={**counted, **image.attributes, "survey": survey})


def _note(array: StoredArray, engine: EngineOptions, progress: Progress) -> list[SliceNotes]:
    """Take notes on all slices, in order."""
    depth = min(array.chunk[0], MOST_SLICES)
    _, *window = (centred(n, min(n, WINDOW)) for n in array.shape)
    found: dict[int, SliceNotes] = {}

    def on_result(block: Block, notes: SliceNotes) -> None:
        found[block.index[0]] = notes

    blocks = [
        Block((k, 0, 0), (slice(z, min(z + depth, array.shape[0])), window[0], window[1]))
        for k, z in enumerate(range(0, array.shape[0], depth))
    ]
    job = Job(progress, len(blocks), "blocks", "looking at slices")
    run_blocks(partial(_note_block, array), blocks, engine, on_result=on_result, progress=job)
    return [found[k] for k in sorted(found)]


def centred(length: int, part: int) -> slice:
    """Cut a part out of the middle."""
    start = (length - part) // 2
    return slice(start, start + part)


def check_counted(array: StoredArray) -> None:
    """Refuse intensities of other types than `volseg convert` accepts."""
    if array.dtype.name not in ACCEPTED_TYPES:
        raise VolumeError(
            f"{array.path} holds {array.dtype.name}; expected {', '.join(ACCEPTED_TYPES)}: write "
            f"it again as one of them, which `{command('convert', array.path, 'VOLUME.zarr')}` does"
        )


def _count(
    image: Image, engine: EngineOptions, progress: Progress
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Count all intensities; return what is noted of them, and of background."""
    array = image.levels[0]
    check_counted(array)
    task, grid = partial(_count_block, array), plan_blocks(array)
    total, values = (part.copy() for part in count_intensities(np.zeros(0, array.dtype)))
    areas: dict[float, int] = {}

    def on_result(_: Block, found: tuple[NDArray[np.int64], dict[float, int]]) -> None:
        np.add(total, found[0], out=total)
        for value, count in found[1].items():
            areas[value] = areas.get(value, 0) + count

    voxels = math.prod(array.shape)
    job = Job(progress, voxels, "voxels", "counting intensities", size=core_voxels)
    run_blocks(task, grid.blocks(), engine, on_result=on_result, progress=job)
    histogram = describe_histogram(total, values)
    background = describe_background(areas, total, values, array.dtype)
    return {"histogram": histogram, "fingerprint": _fingerprint(array, histogram)}, background


def plan_blocks(array: StoredArray) -> Grid:
    """Cut an array of any layout into rows, layers or stacks of whole chunks, each read once."""
    return Grid(array.shape, gather_chunks(array.chunk, array.shape, BLOCK_VOXELS))


def _fingerprint(array: StoredArray, histogram: dict[str, Any]) -> str:
    """Tell data of other intensities apart; `convert`, which sees whole planes, tells more."""
    told = json.dumps([array.shape, array.dtype.name, histogram])
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
