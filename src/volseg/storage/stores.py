"""Stores from which zarr-python reads: a folder, a zip file, a place on object storage.

What zarr-python would write is metadata: it describes a new array or group in memory, and
`volseg.storage.files` puts that on the disk, completely or not at all.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore, StorePath, ZipStore

from volseg.storage.connections import connect
from volseg.storage.remote import as_remote

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype


class HeldZipStore(ZipStore):
    """A zip file to read; entries that claim to unpack to more than `most` bytes are refused."""

    most = 1 << 20

    def _get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        try:
            entry = self._zf.getinfo(key)
        except KeyError:
            return None
        if entry.file_size > self.most:
            raise ValueError(f"its entry {key} has more than {self.most} bytes")
        return super()._get(key, prototype, byte_range)


def find_zip(path: Path) -> tuple[Path, str] | None:
    """Find the zip file in which a path lies, and its name there; None if it lies in none."""
    if ".zip" not in str(path) or as_remote(path) is not None:
        return None
    for whole in (path, *path.parents):
        if whole.suffix == ".zip" and whole.is_file():
            return whole, "/".join(path.parts[len(whole.parts) :])
    return None


def open_store(path: Path) -> StorePath:
    """Open the place of an array for zarr-python, to read.

    Raises
    ------
    OSError, ValueError, zipfile.BadZipFile
        If it is a zip file that cannot be read.
    """
    remote, zipped = as_remote(path), find_zip(path)
    if remote is not None:
        from zarr.storage import ObjectStore

        store = ObjectStore(connect(remote.scheme, remote.root), read_only=True)
        return StorePath(store, remote.key)
    if zipped is not None:
        archive = HeldZipStore(zipped[0], mode="r")
        archive._sync_open()
        return StorePath(archive, zipped[1])
    return StorePath(LocalStore(path, read_only=True))


def describe_array(**form: Any) -> bytes:
    """Describe an array that is to be created, as `zarr.create_array` does."""
    return _description(zarr.create_array(MemoryStore(), **form))


def describe_group(attributes: Mapping[str, Any]) -> bytes:
    """Describe a group that is to be created, Zarr v3."""
    return _description(zarr.create_group(MemoryStore(), attributes=dict(attributes)))


def _description(node: zarr.Array[Any] | zarr.Group) -> bytes:
    described = node.metadata.to_buffer_dict(default_buffer_prototype())
    return described["zarr.json"].to_bytes()


def read_entry(archive: Path, name: str, most: int) -> bytes | None:
    """Read an entry of a zip file; None if there is none.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, or is larger than so many bytes.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entry = opened.getinfo(name)
            if entry.file_size > most:
                raise ValueError(f"its entry {name} has more than {most} bytes")
            return opened.read(entry)
    except KeyError:
        return None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{archive} is no zip file that can be read: {error}") from error
