"""Find what is at a path in a folder, a zip file or on object storage, and read its metadata.

What zarr-python would write is metadata: it describes a new array or group in memory, and
`volseg.storage.files` puts that on the disk, completely or not at all.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore, MemoryStore, StorePath, ZipStore

from volseg.errors import VolumeError, own_words
from volseg.storage.connections import connect
from volseg.storage.remote import METADATA, as_remote

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype

ZIPPED = (".zip", ".ozx")
"""Suffixes of zip files that hold Zarr; the second is OME-Zarr's own."""
METADATA_BYTES = 64 << 20
"""Metadata is read into memory whole, so a larger file is refused."""


class HeldZipStore(ZipStore):
    """A zip file to read; entries that claim to unpack to more than `most` bytes are refused."""

    most = 1 << 20

    def _get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        try:
            entry = self._zf.getinfo(key)
        except KeyError:
            return None
        if entry.file_size > self.most:
            raise VolumeError(f"its entry {key} has more than {self.most} bytes")
        return super()._get(key, prototype, byte_range)


def find_zip(path: Path) -> tuple[Path, str] | None:
    """Find the zip file in which a path lies, and its name there; None if it lies in none."""
    if not any(suffix in str(path) for suffix in ZIPPED) or as_remote(path) is not None:
        return None
    for whole in (path, *path.parents):
        if whole.suffix in ZIPPED and whole.is_file():
            return whole, "/".join(path.parts[len(whole.parts) :])
    return None


def file_of(path: Path) -> Path:
    """Find the zip file in which a path lies, or the path itself if it lies in none."""
    zipped = find_zip(path)
    return path if zipped is None else zipped[0]


def open_store(path: Path, *, read_only: bool = True) -> StorePath:
    """Open the place of an array for zarr-python; in a zip file, to read alone.

    Raises
    ------
    OSError, ValueError, zipfile.BadZipFile
        If it is a zip file that cannot be read.
    """
    remote, zipped = as_remote(path), find_zip(path)
    if remote is not None:
        from zarr.storage import ObjectStore

        store = ObjectStore(connect(remote.scheme, remote.bucket), read_only=read_only)
        return StorePath(store, remote.key)
    if zipped is not None:
        archive = HeldZipStore(zipped[0], mode="r")
        archive._sync_open()
        return StorePath(archive, zipped[1])
    return StorePath(LocalStore(path, read_only=read_only))


def find_stamp(path: Path) -> tuple[int, ...] | None:
    """Find what changes when another array takes the place of one; None on object storage."""
    zipped = find_zip(path)
    files = [path / "zarr.json", path / ".zarray"] if zipped is None else [zipped[0]]
    for file in () if as_remote(path) is not None else files:
        with suppress(OSError):
            found = file.stat()
            return found.st_ino, found.st_size, found.st_mtime_ns
    return None


def describe_array(**form: Any) -> bytes:
    """Describe an array that is to be created, as `zarr.create_array` does: what is in its file."""
    return _description(zarr.create_array(MemoryStore(), **form))


def describe_group(attributes: Mapping[str, Any]) -> bytes:
    """Describe a group that is to be created, Zarr v3."""
    return _description(zarr.create_group(MemoryStore(), attributes=dict(attributes)))


def _description(node: zarr.Array[Any] | zarr.Group) -> bytes:
    described = node.metadata.to_buffer_dict(default_buffer_prototype())
    return next(
        described[name] for name in ("zarr.json", ".zarray") if name in described
    ).to_bytes()


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
        raise ValueError(f"{archive} is no zip file that can be read") from error


def parse_json(text: str) -> Any:
    """Read JSON.

    Raises
    ------
    ValueError
        If it is none, nested more deeply than Python follows, or holds half a character.

    Examples
    --------
    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
        ...
    ValueError: it is nested too deeply
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno} is not understood") from error
    if "\\ud" in text.lower():
        # one half of a surrogate pair is text that can be neither printed nor written
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a character") from None
    return found


def read_array_metadata(path: Path) -> dict[str, Any] | None:
    """Read what describes an array, Zarr v3 or v2; None where there is none."""
    found = read_json(path / "zarr.json")
    if found is not None:
        content = found[0]
        array = isinstance(content, dict) and content.get("node_type") == "array"
        return content if array else None
    found = read_json(path / ".zarray")
    if found is not None and not isinstance(found[0], dict):
        raise VolumeError(f"{path / '.zarray'} does not describe an array")
    return found[0] if found is not None else None


def read_json(file: Path) -> tuple[Any] | None:
    """Read a file of JSON; None if there is none."""
    try:
        content = _read_small(file)
        return None if content is None else (parse_json(content.decode()),)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise VolumeError(f"{file} is not valid JSON: {error}") from error
    except OSError as error:
        raise VolumeError(f"cannot read {file}: {own_words(error)}") from error


def _read_small(file: Path) -> bytes | None:
    if as_remote(file) is not None:
        return file.read_bytes()
    zipped = find_zip(file)
    if zipped is not None:
        return read_entry(*zipped, METADATA_BYTES)
    found = file.stat()
    if not S_ISREG(found.st_mode):
        return None
    if found.st_size > METADATA_BYTES:
        raise VolumeError(f"{file} has more than {METADATA_BYTES} bytes: this is no metadata")
    return file.read_bytes()


class Standing(Enum):
    """Kinds of things at a path."""

    ARRAY = "a Zarr array"
    GROUP = "a Zarr group"
    FILE = "a file"
    FOLDER = "a folder"
    NOTHING = "nothing"


def what_stands_at(path: Path) -> Standing:
    """Find out what stands at a path, in a folder, in a zip file or on object storage.

    A group may be an image or not, which `volseg.storage.volumes.open_image` tells; metadata that
    are damaged count as a group, so that whoever opens it says what is wrong.
    """
    if is_zarr(path):
        try:
            return Standing.GROUP if read_array_metadata(path) is None else Standing.ARRAY
        except VolumeError:
            return Standing.GROUP
    if path.is_file():
        return Standing.FILE
    return Standing.FOLDER if path.is_dir() else Standing.NOTHING


def is_zarr(path: Path) -> bool:
    """Tell whether a Zarr array or group stands at a path, sound or damaged."""
    remote = as_remote(path)
    if remote is not None:
        return remote.is_zarr()
    zipped = find_zip(path)
    if zipped is None:
        return any((path / name).is_file() for name in METADATA)
    archive, inner = zipped
    try:
        names = (f"{inner}/{name}".lstrip("/") for name in METADATA)
        return any(read_entry(archive, name, METADATA_BYTES) is not None for name in names)
    except (OSError, ValueError):
        return False
