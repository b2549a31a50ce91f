"""Findings of a verification, with their places: the first few of each kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import Grid, describe
from volseg.storage.arrays import StoredArray
from volseg.storage.remote import as_remote
from volseg.storage.scratch import lend_scratch
from volseg.storage.volumes import scratch_path
from volseg.types import Roi, Zyx

SHOWN = 5
"""Findings of one kind in one level of one array that are kept; the others are counted."""
Key = tuple[str, int, str]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    kind : metadata, incomplete, origin, ledger, unreadable, pyramid, intensities, copy, label,
        objects or probabilities.
    array : ``raw``, ``probabilities/<name>`` or ``labels/<name>``.
    level : of the pyramid; None where the whole array is meant.
    block : position of the written block, which is the file ``c/z/y/x`` of the level.
    roi : the region that was looked at, as the command line takes it.
    voxel : the first wrong one in that region, in voxels of the level.
    """

    kind: str
    array: str
    message: str
    level: int | None = None
    block: Zyx | None = None
    roi: str | None = None
    voxel: Zyx | None = None

    @property
    def place(self) -> str:
        """Say where it is.

        Examples
        --------
        >>> Finding("label", "labels/m", "", level=0, block=(0, 1, 0), voxel=(3, 40, 7)).place
        'labels/m, level 0, block 0,1,0, voxel 3,40,7'
        """
        parts = [self.array]
        parts += [] if self.level is None else [f"level {self.level}"]
        parts += [] if self.block is None else [f"block {_joined(self.block)}"]
        parts += [] if self.voxel is None else [f"voxel {_joined(self.voxel)}"]
        parts += [f"region {self.roi}"] if self.roi and self.voxel is None else []
        return ", ".join(parts)


def _joined(numbers: Zyx) -> str:
    return ",".join(map(str, numbers))


class Skipped(Exception):  # noqa: N818 - nothing is wrong
    """Something that cannot be verified; its text says why."""


@dataclass
class Findings:
    """Collects findings in any order; keeps the first few of each kind, counts all."""

    kept: dict[Key, list[Finding]] = field(default_factory=dict)
    total: int = 0

    def add(self, found: Iterable[Finding]) -> None:
        """Count findings, and keep those that come first in the array."""
        for finding in found:
            self.total += 1
            level = -1 if finding.level is None else finding.level
            same = self.kept.setdefault((finding.array, level, finding.kind), [])
            same.append(finding)
            same.sort(key=lambda f: (f.block or (), f.voxel or ()))
            del same[SHOWN:]

    def listed(self) -> tuple[Finding, ...]:
        """List what was kept, in the order in which the kinds were first found."""
        return tuple(f for same in self.kept.values() for f in same)


def find_first(
    at: tuple[str, str, int],
    stored: StoredArray,
    roi: Roi,
    wrong: NDArray[np.bool_],
    say: Callable[[Zyx], str],
) -> tuple[Finding, ...]:
    """Find the first wrong voxel of a region, and count all.

    Parameters
    ----------
    at : kind, array and level, see `Finding`
    wrong : shape of ``roi``
    say : what to say of a voxel, given relative to ``roi``
    """
    count = int(np.count_nonzero(wrong))
    if not count:
        return ()
    i, j, k = (int(n) for n in np.unravel_index(int(wrong.argmax()), wrong.shape))
    voxel = roi[0].start + i, roi[1].start + j, roi[2].start + k
    message = f"{say((i, j, k))}; voxels that differ in {describe(roi)}: {count}"
    kind, array, level = at
    block = Grid(stored.shape, stored.shard).index_at(voxel)
    return (Finding(kind, array, message, level, block, describe(roi), voxel),)


@contextmanager
def scratch_for(volume: Path, name: str) -> Iterator[Path]:
    """Lend a folder for what is made again: a temporary one if the volume cannot be written to."""
    if as_remote(volume) is not None or os.access(volume, os.W_OK):
        with lend_scratch(scratch_path(volume), f"verify-{name}") as folder:
            yield folder
    else:
        with TemporaryDirectory(prefix="volseg-verify-") as place:
            yield Path(place)
