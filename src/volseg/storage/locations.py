"""Read the location of a volume: a folder, or a URL of object storage.

A URL becomes a `RemotePath`, anything else is a `pathlib.Path`. `volseg.storage.stores`
opens both for zarr-python.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from pathlib import Path
from typing import cast

from volseg.errors import ConflictError, ParameterError, StorageError, VolsegError, own_words
from volseg.storage.connections import SCHEMES, explain_failure
from volseg.storage.remote import RemotePath, as_remote

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/?#]*)(?:/([^?#]*))?")


def parse_location(place: str | Path) -> Path:
    """Read a path or a URL, and normalise it.

    Every path that a user gives passes through here, or through `parse_path`, before it is used.

    Returns
    -------
    for a URL a `RemotePath` in its place, which `volseg.storage.remote.as_remote` tells.

    Examples
    --------
    >>> print(parse_location("s3://bucket/brain.zarr/") / "labels")
    s3://bucket/brain.zarr/labels
    """
    if not isinstance(place, str):
        return place if as_remote(place) is not None else parse_path(place)
    text = place
    if "://" not in text:
        return parse_path(text)
    found = URL.fullmatch(text)
    scheme = text.split("://", 1)[0].lower()
    if scheme not in SCHEMES:
        raise ParameterError(
            f"{text} begins with {scheme}://; volumes lie in folders, or at s3://, gs://, http:// "
            f"or https:// (read only)"
        )
    if found is None or not found[2]:
        raise ParameterError(f"{text} is no place; expected {scheme}://NAME/path, without ? or #")
    key = posixpath.normpath(f"/{found[3] or ''}").strip("/")
    # what reads and writes volumes is written for Path, of which this answers the part it uses
    return cast("Path", RemotePath.at(scheme, found[2], key))


def check_text(path: Path) -> Path:
    """Refuse a path that is no text: no metadata, table or page could name it."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise ParameterError(f"{shown} is not UTF-8; rename the file or folder") from error
    return path


def parse_path(text: str | Path) -> Path:
    """Normalise the path of a local file or folder.

    ``~`` becomes the home folder. A path with ``..``, and ``.`` alone, become absolute: a name is
    taken from a path's last part, and not every library follows ``..``. Links stay links, other
    relative paths stay relative.

    Examples
    --------
    >>> print(parse_path("./data//brain.zarr/"))
    data/brain.zarr
    >>> parse_path("data/../brain.zarr") == Path.cwd() / "brain.zarr"
    True
    """
    if not str(text):
        raise ParameterError("a path is empty; give the name of a file or folder")
    path = check_text(Path(os.path.expanduser(text)))
    parts = path.parts
    if ".." not in parts:
        return path if parts else Path.cwd()
    # what follows the last "..", maybe a link, is kept; what comes before is followed through links
    last = len(parts) - parts[::-1].index("..")
    return Path(os.path.realpath(Path(*parts[:last])), *parts[last:])


def place_beside(volume: Path, ending: str) -> Path:
    """Name a file beside a volume; in the current folder for one on object storage."""
    place = volume.resolve() if as_remote(volume) is None else Path(volume.name)
    return place.with_name(f"{place.stem}{ending}")


def folder_of(path: Path) -> Path:
    """Find the folder in which something is to be written, and refuse one that is not there."""
    folder = path.resolve().parent
    if not folder.is_dir():
        raise ParameterError(f"there is no folder {folder} to write {path.name} in")
    return folder


def refuse_folder(path: Path) -> None:
    """Refuse a folder where a file is to be written, before any work is done."""
    if path.is_dir():
        raise ConflictError(f"{path} is a folder; give the name of a file")


def refuse_file(folder: Path) -> None:
    """Refuse a folder to write in, which is made if need be, if a file is there, or above it."""
    standing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not standing.is_dir():
        raise ConflictError(f"{standing} is a file; give a folder to write in")


def check_writable(path: Path) -> None:
    """Refuse a place that can only be read, before any work is done.

    Raises
    ------
    VolumeError
        If it lies behind http.
    StorageError
        If it is a folder without permission to write in it.
    """
    remote = as_remote(path)
    if remote is not None:
        remote.mkdir()
    elif path.is_dir() and not os.access(path, os.W_OK):
        raise StorageError(f"cannot write in {path}: there is no permission")


def reason(path: Path, error: BaseException, otherwise: str = "a chunk is damaged") -> str:
    """Say why a request failed, in no library's words, and for remote places what to do."""
    remote = as_remote(path)
    if remote is not None and not isinstance(error, VolsegError):
        return explain_failure(remote.bucket, error)
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return own_words(error, otherwise)


def remote_scratch(volume: RemotePath) -> Path:
    """Say where ledgers and scratch of a remote volume lie: a folder that all workers must reach.

    VOLSEG_SCRATCH names the folder that it is made in; else it is the user's cache folder.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "volseg"
    chosen = os.environ.get("VOLSEG_SCRATCH")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    told = f"{endpoint if volume.scheme == 's3' else ''} {volume}"
    mark = hashlib.sha256(told.encode()).hexdigest()[:16]
    return (Path(chosen).resolve() if chosen else cache) / f"{volume.name}-{mark}"
