"""Levels of a pyramid, written while rows come in from the top: nothing is read again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.storage.volumes import Image
from volseg.types import Zyx
from volseg.voxels.downsample import reduce_mean


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
        if self.level + 1 < len(self.image.levels):
            self._next().add(reduce_mean(block, self._factor()))

    def _next(self) -> LevelWriter:
        if self.following is None:
            self.following = LevelWriter(self.image, self.level + 1)
        return self.following

    def _factor(self) -> Zyx:
        here, there = self.image.factors[self.level], self.image.factors[self.level + 1]
        z, y, x = (round(b / a) for a, b in zip(here, there, strict=True))
        return z, y, x
