"""Count the intensities of volumes that others wrote, as `convert` does of those that it writes."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks
from volseg.errors import VolumeError
from volseg.geometry.grid import Block, Grid
from volseg.sources.stack import ACCEPTED_TYPES
from volseg.storage.arrays import StoredArray
from volseg.storage.volumes import Image
from volseg.voxels.histogram import count_intensities

BLOCK_VOXELS = 1 << 24
"""Of what is read at once, unless a chunk is larger."""


@dataclass(frozen=True)
class CountBlock:
    """Count how often each intensity occurs in a block."""

    array: StoredArray

    def __call__(self, block: Block) -> NDArray[np.int64]:
        """Count one block."""
        voxels = self.array[block.core]
        if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
            raise VolumeError(
                f"{self.array.path} holds values that are not finite, in {block}; replace them "
                f"first"
            )
        return count_intensities(voxels)[0]


def with_histogram(image: Image, engine: EngineOptions, progress: Progress) -> Image:
    """Give an image a histogram of all its voxels, and a fingerprint made from that; keep its own.

    Nothing is written. Counts are whole numbers, so blocks of any size and order give the same.

    Raises
    ------
    VolumeError
        If the image is of a type that networks are not given, or holds values that are not finite.
    BlockError
        If blocks cannot be read.
    """
    if image.attributes.get("histogram"):
        return image
    array = image.levels[0]
    check_counted(array)
    counts = _count(array, engine, progress)
    values = count_intensities(np.zeros(0, array.dtype))[1]
    present = np.flatnonzero(counts)
    histogram = {"values": values[present].tolist(), "counts": counts[present].tolist()}
    noted = {"fingerprint": _fingerprint(array, histogram), **image.attributes}
    return replace(image, attributes={**noted, "histogram": histogram})


def check_counted(array: StoredArray) -> None:
    """Refuse intensities of other types than `volseg convert` accepts.

    Raises
    ------
    VolumeError
        If they are.
    """
    if array.dtype.name not in ACCEPTED_TYPES:
        raise VolumeError(
            f"{array.path} holds {array.dtype.name}; expected {', '.join(ACCEPTED_TYPES)}: write "
            f"it again as one of them"
        )


def _count(array: StoredArray, engine: EngineOptions, progress: Progress) -> NDArray[np.int64]:
    task, grid = CountBlock(array), plan_blocks(array)
    total = np.zeros(len(count_intensities(np.zeros(0, array.dtype))[0]), np.int64)

    def on_result(_: Block, found: NDArray[np.int64]) -> None:
        np.add(total, found, out=total)

    voxels = math.prod(array.shape)
    job = Job(progress, voxels, "voxels", "counting intensities", size=core_voxels)
    run_blocks(task, grid.blocks(), engine, on_result=on_result, progress=job)
    return total


def plan_blocks(array: StoredArray) -> Grid:
    """Cut an array of any layout into rows, layers or stacks of whole chunks, each read once."""
    size = list(array.chunk)
    for axis in (2, 1, 0):
        room = max(BLOCK_VOXELS // math.prod(size), 1)
        size[axis] *= min(room, -(-array.shape[axis] // size[axis]))
    return Grid(array.shape, (size[0], size[1], size[2]))


def _fingerprint(array: StoredArray, histogram: dict[str, Any]) -> str:
    """Tell data of other intensities apart; `convert`, which sees whole planes, tells more."""
    told = json.dumps([array.shape, array.dtype.name, histogram])
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
