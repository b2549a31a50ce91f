"""Findings of a verification, with their places: the first few of each kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import Grid, describe
from volseg.storage.arrays import StoredArray
from volseg.types import Roi, Zyx

SHOWN = 5
"""Findings of one kind in one level of one array that are kept; the others are counted."""
Key = tuple[str, int, str]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    kind : metadata, incomplete, origin, ledger, unreadable, pyramid, intensities, label, objects
        or probabilities.
    array : ``raw``, ``probabilities/<name>`` or ``labels/<name>``.
    message : what was found and what was expected.
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

    def has(self, kind: str, array: str, level: int = 0) -> bool:
        """Tell whether something of a kind was found in a level of an array."""
        return (array, level, kind) in self.kept

    def listed(self) -> tuple[Finding, ...]:
        """List what was kept, in the order in which the kinds were first found."""
        return tuple(f for same in self.kept.values() for f in same)


def first_difference(found: NDArray[Any], expected: NDArray[Any]) -> tuple[Zyx, int] | None:
    """Find the first voxel in which two arrays differ, and count all.

    Returns
    -------
    voxel : (z, y, x)
    count : or None in place of both where the arrays are equal

    Examples
    --------
    >>> first_difference(np.array([[[1, 2, 3]]]), np.array([[[1, 0, 0]]]))
    ((0, 0, 1), 2)
    """
    differ = found != expected
    count = int(np.count_nonzero(differ))
    if not count:
        return None
    z, y, x = (int(n) for n in np.unravel_index(int(differ.argmax()), differ.shape))
    return (z, y, x), count


def locate(kind: str, array: str, level: int, stored: StoredArray, roi: Roi, voxel: Zyx) -> Finding:
    """Say where a wrong voxel is; the message comes later.

    Parameters
    ----------
    kind, array, level : see `Finding`
    stored : the level's array
    roi : what was looked at
    voxel : relative to ``roi``
    """
    z, y, x = (v + s.start for v, s in zip(voxel, roi, strict=True))
    block = Grid(stored.shape, stored.shard).index_at((z, y, x))
    return Finding(kind, array, "", level, block, describe(roi), (z, y, x))
