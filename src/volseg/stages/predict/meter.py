"""Spread the voxels of a prediction over its tiles, so that progress moves within a block too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from volseg.engine.progress import Progress
from volseg.types import Zyx

_listeners: dict[Path, Callable[[Zyx], None]] = {}
"""Of the runs of this process, by the folder of what their blocks hand over. Workers elsewhere have
none: of them a run learns when a block is done."""


def tell_tile(folder: Path, block: Zyx) -> None:
    """Tell the run with a folder, if it is one of this process, that a tile of a block is done."""
    listener = _listeners.get(folder)
    if listener is not None:
        listener(block)


@dataclass
class TileMeter:
    """Counts tiles, and gives each its part of the voxels that a run still has to write.

    Attributes
    ----------
    progress : receives voxels, from any thread.
    tiles : to be evaluated, about; what is left over counts at the end.
    """

    progress: Progress
    voxels: int
    tiles: float
    evaluated: int = 0
    counted: int = 0
    told: dict[Zyx, int] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    @contextmanager
    def listening(self, folder: Path) -> Iterator[None]:
        """Count tiles of this process as soon as they are evaluated."""
        _listeners[folder] = self._hear
        try:
            yield
        finally:
            del _listeners[folder]

    def _hear(self, block: Zyx) -> None:
        with self.lock:
            self.told[block] = self.told.get(block, 0) + 1
            voxels = self._part(1)
        if voxels:
            self.progress.advance(voxels)

    def finish_block(self, block: Zyx, tiles: int) -> int:
        """Count the tiles of a block that nothing was told of; return their voxels."""
        with self.lock:
            return self._part(max(tiles - self.told.pop(block, 0), 0))

    def finish(self) -> int:
        """Return the voxels that are left over."""
        with self.lock:
            left, self.counted = self.voxels - self.counted, self.voxels
        return left

    def _part(self, tiles: int) -> int:
        self.evaluated += tiles
        share = min(self.evaluated / self.tiles, 1.0) if self.tiles else 0.0
        before, self.counted = self.counted, max(int(self.voxels * share), self.counted)
        return self.counted - before
