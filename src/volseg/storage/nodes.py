"""What stands at a path: the one answer for volumes, results, sources and targets."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from volseg.errors import VolumeError
from volseg.storage.attributes import read_array_metadata
from volseg.storage.remote import METADATA, as_remote
from volseg.storage.stores import find_zip, read_entry

SMALL = 64 << 20


class Standing(Enum):
    """What stands at a path."""

    ARRAY = "a Zarr array"
    GROUP = "a Zarr group"
    FILE = "a file"
    FOLDER = "a folder"
    NOTHING = "nothing"


def what_stands_at(path: Path) -> Standing:
    """Find out what stands at a path, in a folder, in a zip file or on object storage.

    A group may be an image or not, which `volseg.storage.volumes.open_image` tells; metadata that
    are damaged count as a group, so that whoever opens it says what is wrong.

    Raises
    ------
    VolumeError, StorageError
        If object storage cannot be asked.
    """
    if _has_metadata(path):
        try:
            return Standing.GROUP if read_array_metadata(path) is None else Standing.ARRAY
        except VolumeError:
            return Standing.GROUP
    if path.is_file():
        return Standing.FILE
    return Standing.FOLDER if path.is_dir() else Standing.NOTHING


def is_zarr(path: Path) -> bool:
    """Tell whether a Zarr array or group stands at a path, sound or damaged."""
    return _has_metadata(path)


def _has_metadata(path: Path) -> bool:
    remote = as_remote(path)
    if remote is not None:
        return remote.is_zarr()
    zipped = find_zip(path)
    if zipped is None:
        return any((path / name).is_file() for name in METADATA)
    archive, inner = zipped
    try:
        names = (f"{inner}/{name}".lstrip("/") for name in METADATA)
        return any(read_entry(archive, name, SMALL) is not None for name in names)
    except (OSError, ValueError):
        return False
