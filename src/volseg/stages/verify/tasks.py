"""Verify one block of one level, as a worker does: read it, and check what follows from it.

A block that cannot be read is a finding, not a failure of the run: all others are looked at too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import StorageError, list_some
from volseg.geometry.grid import Block, Grid, coarsen, describe, full_roi, intersect, roi_size
from volseg.stages.verify.findings import Finding, find_first
from volseg.storage.arrays import StoredArray
from volseg.storage.copies import read_copy
from volseg.storage.shard_reading import stores_chunks
from volseg.storage.shards import shard_path
from volseg.types import Roi, Zyx
from volseg.voxels.downsample import reduce_labels, reduce_mean
from volseg.voxels.histogram import count_intensities

SHOWN = 3
"""Blocks that a message names at most."""


@dataclass(frozen=True)
class LevelChecked:
    """Findings in a block of a level.

    Attributes
    ----------
    counts : int64; how often each intensity occurs, if that was asked for and all could be read.
    """

    voxels: int
    findings: tuple[Finding, ...]
    counts: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class CheckLevel:
    """Read a block of a level, reduce it, and compare with what the next level holds.

    Attributes
    ----------
    array : its name, see `Finding`.
    coarse : the next level; None where there is none to compare with.
    factor : voxels of ``fine`` per voxel of ``coarse``, (z, y, x).
    highest : the highest label; None where that is not known.
    """

    array: str
    level: int
    fine: StoredArray
    coarse: StoredArray | None
    factor: Zyx
    label: bool
    counted: bool
    highest: int | None = None

    def __call__(self, block: Block) -> LevelChecked:
        """Check one block."""
        try:
            content = self.fine[block.core]
        except StorageError:
            return LevelChecked(0, tuple(self._damages(block.core)))
        findings = self._compare(block.core, content) + self._beyond(block.core, content)
        counts = count_intensities(content)[0] if self.counted else None
        return LevelChecked(roi_size(block.core), findings, counts)

    def _beyond(self, core: Roi, labels: NDArray[Any]) -> tuple[Finding, ...]:
        """Find labels that are higher than any object's."""
        if self.highest is None:
            return ()
        return find_first(
            ("objects", self.array, self.level),
            self.fine,
            core,
            labels > self.highest,
            lambda voxel: f"found label {labels[voxel]}, expected {self.highest} at most",
        )

    def _damages(self, core: Roi) -> list[Finding]:
        """Name each written block that cannot be read, and its chunks that are to blame."""
        found = []
        for shard in Grid(self.fine.shape, self.fine.shard).blocks(core):
            within = intersect(shard.core, core)
            if within is None:
                continue
            chunks = list(Grid(self.fine.shape, self.fine.chunk).blocks(within))
            bad = [(c, e) for c in chunks if (e := self._error(c.core)) is not None]
            if not bad:
                continue
            where = shard.core if len(bad) == len(chunks) else bad[0][0].core
            message = f"{len(bad)} of {len(chunks)} chunks cannot be read: {bad[0][1]}"
            found.append(
                Finding("unreadable", self.array, message, self.level, shard.index, describe(where))
            )
        return found

    def _error(self, roi: Roi) -> str | None:
        try:
            self.fine[roi]
        except StorageError as error:
            return str(error)
        return None

    def _compare(self, core: Roi, content: NDArray[Any]) -> tuple[Finding, ...]:
        if self.coarse is None:
            return ()
        box = coarsen(core, self.factor)
        try:
            stored = self.coarse[box]
        except StorageError:
            return ()  # found when that level is read
        expected = (reduce_labels if self.label else reduce_mean)(content, self.factor)

        def say(voxel: Zyx) -> str:
            lacking = self._absences(core)
            return f"found {stored[voxel]}, level {self.level} gives {expected[voxel]}{lacking}"

        at = "pyramid", self.array, self.level + 1
        return find_first(at, self.coarse, box, stored != expected, say)

    def _absences(self, core: Roi) -> str:
        """Say which blocks are not there: allowed where all is 0, else the likely cause."""
        absent = absent_shards(self.fine, core)
        return f"; level {self.level} has no block {describe_indices(absent)}" if absent else ""


def compare_labels(
    array: str, labels: StoredArray, again: StoredArray, block: Block
) -> tuple[Finding, ...]:
    """Compare a block of labels with the same made anew; what cannot be read is found elsewhere."""
    try:
        found = labels[block.core]
    except StorageError:
        return ()
    expected = again[block.core]

    def say(voxel: Zyx) -> str:
        return f"found label {found[voxel]}, labelled again {expected[voxel]}"

    at = "label", array, 0
    return find_first(at, labels, block.core, found != expected, say)


def compare_copy(array: str, level: int, stored: StoredArray, block: Block) -> tuple[Finding, ...]:
    """Compare a block of a level with its copy as Zarr v2.

    What cannot be read of the level itself is found elsewhere.
    """
    try:
        expected = stored[block.core]
    except StorageError:
        return ()
    try:
        found = read_copy(stored, block.core)
    except StorageError as error:
        return (Finding("copy", array, str(error), level, roi=describe(block.core)),)
    if found.shape != expected.shape:
        message = f"its copy as Zarr v2 has another shape than {stored.shape}"
        return (Finding("copy", array, message, level),)

    def say(voxel: Zyx) -> str:
        return f"its copy as Zarr v2 has {found[voxel]}, expected {expected[voxel]}"

    at = "copy", array, level
    return find_first(at, stored, block.core, found != expected, say)


def absent_shards(array: StoredArray, roi: Roi) -> list[Zyx]:
    """List the written blocks of volseg's own arrays that are not there, so that they read as 0."""
    blocks = Grid(array.shape, array.shard).blocks(roi)
    return [b.index for b in blocks if not shard_path(array, b.index).exists()]


def describe_indices(indices: list[Zyx]) -> str:
    """Name a few blocks.

    Examples
    --------
    >>> describe_indices([(0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1)])
    '0,0,1 and 0,0,2 and 0,1,0 and 1 more'
    """
    return list_some([",".join(map(str, i)) for i in indices], SHOWN, " and ")


def check_intensities(
    array: StoredArray, counts: NDArray[np.int64], histogram: Any
) -> list[Finding]:
    """Compare how often each intensity occurs with the histogram that is frozen in the volume."""
    values = count_intensities(np.zeros(0, array.dtype))[1]
    try:
        expected = np.zeros(len(values), np.int64)
        np.add.at(expected, np.searchsorted(values, histogram["values"]), histogram["counts"])
    except (KeyError, TypeError, ValueError, IndexError):
        return [Finding("metadata", "raw", "its histogram cannot be used")]
    differing = np.flatnonzero(counts != expected)
    if not len(differing):
        return []
    k = int(differing[0])
    message = (
        f"{counts[k]} voxels have the intensity {values[k]}, expected {expected[k]}; "
        f"{len(differing)} intensities occur another number of times than when they were counted"
    )
    absent = absent_shards(array, full_roi(array.shape)) if stores_chunks(array) else []
    if absent:
        message += f"; these blocks are not there: {describe_indices(absent)}"
    return [Finding("intensities", "raw", message, 0, absent[0] if absent else None)]
