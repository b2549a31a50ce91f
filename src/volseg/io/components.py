"""What labelling keeps of each block between its two passes: scratch, one file per block."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray

from volseg.errors import StorageError
from volseg.labels import Components
from volseg.types import Labels, Zyx

ARRAYS = ("starts", "values", "sizes", "firsts")


@dataclass(frozen=True)
class ComponentStore:
    """A folder with the components of each block, and the numbers of their objects."""

    folder: Path

    def _path(self, index: Zyx, kind: str) -> Path:
        return self.folder / f"{'-'.join(map(str, index))}.{kind}"

    def save(self, index: Zyx, components: Components) -> None:
        """Keep the components of a block, completely or not at all.

        Raises
        ------
        StorageError
            If they cannot be written.
        """
        runs = {name: getattr(components, name) for name in ARRAYS}
        planes = {f"{axis}{side}": plane for (axis, side), plane in components.planes.items()}
        _write(self._path(index, "planes"), planes)
        _write(self._path(index, "runs"), runs)

    def load(self, index: Zyx, *, planes: bool = False) -> Components:
        """Read the components of a block, with their planes only where those are needed.

        Raises
        ------
        StorageError
            If they are missing or damaged.
        """
        runs = _read(self._path(index, "runs"))
        found = _read(self._path(index, "planes")) if planes else {}
        return Components(
            **{name: runs[name] for name in ARRAYS},
            planes={(int(k[0]), int(k[1:])): plane for k, plane in found.items()},
        )

    def exists(self, index: Zyx) -> bool:
        """Tell whether the components of a block have been kept."""
        return all(self._path(index, kind).exists() for kind in ("planes", "runs"))

    def save_numbers(self, numbers: Labels) -> None:
        """Keep the objects' numbers of all components, in the order of the blocks."""
        _write_bytes(self.folder / "numbers.npy", _pack(numbers))

    def load_numbers(self, start: int, stop: int) -> Labels:
        """Read the numbers of some components; only these are read."""
        try:
            numbers = np.load(self.folder / "numbers.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StorageError(f"cannot read {self.folder / 'numbers.npy'}: {error}") from error
        return np.array(numbers[start:stop])


def _pack(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    _write_bytes(path, zstd.compress(buffer.getvalue(), 1))


def _write_bytes(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(zstd.decompress(path.read_bytes())), allow_pickle=False) as arrays:
            return dict(arrays)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except (RuntimeError, ValueError) as error:
        path.unlink(missing_ok=True)
        raise StorageError(f"{path} is damaged; run the same command again") from error
