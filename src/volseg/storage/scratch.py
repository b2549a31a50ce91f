"""Keep data that blocks exchange during a run: scratch, never results."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from volseg.errors import StorageError, own_words
from volseg.objects.components import Components, Planes
from volseg.objects.runs import Runs
from volseg.storage.chunks import Data, pack, unpack
from volseg.storage.files import discard, write_file
from volseg.types import Labels, Zyx
from volseg.voxels.blend import Shares

ARRAYS = ("values", "sizes", "firsts")


@dataclass(frozen=True)
class ComponentStore:
    """A folder with the components of each block, and the numbers of their objects."""

    folder: Path

    def _path(self, index: Zyx, kind: str) -> Path:
        return self.folder / f"{_name(index)}.{kind}.zst"

    def save(self, index: Zyx, components: Components) -> None:
        """Keep the components of a block, completely or not at all."""
        runs = components.runs._asdict()
        runs |= {name: getattr(components, name) for name in ARRAYS}
        planes = {f"{axis}{side}": plane for (axis, side), plane in components.planes.items()}
        _write(self._path(index, "planes"), planes)
        _write(self._path(index, "runs"), runs)

    def load(self, index: Zyx) -> Components:
        """Read the components of a block, without their planes."""
        kept = _read(self._path(index, "runs"))
        runs = Runs(*(kept[name] for name in Runs._fields))
        return Components(runs, **{name: kept[name] for name in ARRAYS}, planes={})

    def load_planes(self, index: Zyx) -> Planes:
        """Read the outermost planes of a block."""
        kept = _read(self._path(index, "planes"))
        return {(int(k[0]), int(k[1:])): plane for k, plane in kept.items()}

    def exists(self, index: Zyx) -> bool:
        """Tell whether the components of a block have been kept."""
        return all(self._path(index, kind).exists() for kind in ("planes", "runs"))

    def save_numbers(self, numbers: Labels) -> None:
        """Keep the objects' numbers of all components, in the order of the blocks."""
        write_file(self.folder / f"numbers.{numbers.dtype.name}", numbers.tobytes())

    def load_numbers(self, start: int, stop: int) -> Labels:
        """Read the numbers of some components; only these are read."""
        for dtype in (np.dtype(np.uint32), np.dtype(np.uint64)):
            path = self.folder / f"numbers.{dtype.name}"
            if path.exists():
                at = start * dtype.itemsize
                return np.fromfile(path, dtype, count=stop - start, offset=at)
        raise StorageError(f"{self.folder} holds no numbers; run the same command again")


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    # numpy's own format is parsed with ast, which Python 3.11 cannot do in several threads at once
    kept = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    _keep(path, safetensors.numpy.save(kept))


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with _reading(path) as packed:
        return dict(safetensors.numpy.load(bytes(unpack(packed))))


def _keep(path: Path, content: Data) -> None:
    # not synced, which takes longer than all else: what a power cut damages, the checksum finds
    write_file(path, pack(content, checked=True), durable=False)


@contextmanager
def _reading(path: Path) -> Iterator[bytes]:
    try:
        yield path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {own_words(error)}") from error
    except (ValueError, safetensors.SafetensorError) as error:
        path.unlink(missing_ok=True)
        raise StorageError(f"{path} is damaged; run the same command again") from error


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
        """Hand shares over; the file is there completely or not at all."""
        _keep(self._path(source, target), np.ascontiguousarray(shares).data)

    def load(self, source: Zyx, target: Zyx, shape: Zyx) -> Shares:
        """Read a hand-over of a known shape.

        Raises
        ------
        StorageError
            If it is missing or damaged; a damaged one is removed, so that it is made again.
        """
        with _reading(self._path(source, target)) as packed:
            size = math.prod(shape) * np.dtype(np.uint16).itemsize
            return np.frombuffer(unpack(packed, size), np.uint16).reshape(shape)

    def discard(self, sources: list[Zyx], target: Zyx) -> None:
        """Remove what was handed over to a finished block."""
        for source in sources:
            self._path(source, target).unlink(missing_ok=True)
        folder = self.folder / ("to-" + _name(target))
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _name(index: Zyx) -> str:
    return "-".join(map(str, index))


@contextmanager
def lend_scratch(place: Path, verb: str) -> Iterator[Path]:
    """Lend a folder for scratch in the volume, where all workers reach it, and remove it."""
    folder = place / f"{verb}-{socket.gethostname()}-{os.getpid()}"
    discard(folder)  # what a killed process of the same number has left
    try:
        yield folder
    finally:
        discard(folder)
        with suppress(OSError):  # others use it too
            folder.parent.rmdir()
