"""Keep what blocks hand over to each other between two tasks: scratch, never results."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from volseg.errors import StorageError
from volseg.storage.chunks import pack, unpack
from volseg.storage.files import write_file
from volseg.types import Zyx
from volseg.voxels.blend import Shares


@dataclass(frozen=True)
class HandoverStore:
    """A folder of hand-overs, one file for each (source block, target block)."""

    folder: Path

    def _path(self, source: Zyx, target: Zyx) -> Path:
        return self.folder / ("to-" + _name(target)) / ("from-" + _name(source))

    def exists(self, source: Zyx, target: Zyx) -> bool:
        """Tell whether something has been handed over and not yet used up."""
        return self._path(source, target).exists()

    def save(self, source: Zyx, target: Zyx, shares: Shares) -> None:
        """Hand shares over; the file is there completely or not at all.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        content = pack(np.ascontiguousarray(shares).data)
        write_file(self._path(source, target), content, durable=False)

    def load(self, source: Zyx, target: Zyx, shape: Zyx) -> Shares:
        """Read a hand-over of a known shape.

        Raises
        ------
        StorageError
            If it is missing or damaged; a damaged one is removed, so that it is made again.
        """
        path = self._path(source, target)
        try:
            size = math.prod(shape) * np.dtype(np.uint16).itemsize
            return np.frombuffer(unpack(path.read_bytes(), size), np.uint16).reshape(shape)
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            path.unlink(missing_ok=True)
            raise StorageError(f"{path} is damaged; run the same command again") from error

    def discard(self, sources: list[Zyx], target: Zyx) -> None:
        """Remove what was handed over to a finished block."""
        for source in sources:
            self._path(source, target).unlink(missing_ok=True)
        folder = self.folder / ("to-" + _name(target))
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _name(index: Zyx) -> str:
    return "-".join(map(str, index))
