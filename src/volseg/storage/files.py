"""Write files completely or not at all, and durably: the only code that puts a file in its place.

A file is written beside the place where it will stand, flushed to the disk, and renamed. Where it
stood before, the old one stays until then.
"""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from volseg.errors import StorageError
from volseg.storage.remote import as_remote

ENDING = ".tmp"


@contextmanager
def replacing(path: Path, *, durable: bool = True, parents: bool = True) -> Iterator[BinaryIO]:
    """Open a file to write; it gets its name when all of it is written.

    What a killed process left half-written beside it is removed. On object storage the content is
    sent in one request.

    Parameters
    ----------
    path : Path
    durable : bool
        Whether it must survive a power cut; else only that it is whole or absent for readers.
    parents : bool
        Whether folders are made as needed, else a missing one is an error.

    Raises
    ------
    StorageError
        If it cannot be written: a full disk, no permission.
    """
    remote = as_remote(path)
    if remote is not None:
        content = io.BytesIO()
        yield content
        remote.write_bytes(content.getvalue())
        return
    with drafting(path, durable=durable, parents=parents) as draft, draft.open("wb") as file:
        yield file


@contextmanager
def drafting(path: Path, *, durable: bool = True, parents: bool = True) -> Iterator[Path]:
    """Lend a place beside a file, for a library that writes to a path; see `replacing`.

    Raises
    ------
    StorageError
        If it cannot be written: a full disk, no permission.
    """
    draft = path.with_name(f".{path.name}.{_writer()}{ENDING}")
    try:
        if parents:
            _make_folder(path.parent, durable=durable)
        _remove_drafts(path)
        yield draft
        put_in_place(draft, path, durable=durable)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink()


def put_in_place(draft: Path, path: Path, *, durable: bool = True) -> None:
    """Give a file that is written its name, durably.

    Raises
    ------
    OSError
        If that cannot be done.
    """
    if durable:
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
    os.replace(draft, path)
    if durable:
        _sync_folder(path.parent)


def write_file(
    path: Path, *parts: bytes | memoryview, durable: bool = True, parents: bool = True
) -> None:
    """Write a file from its parts; see `replacing`.

    Raises
    ------
    StorageError
        If it cannot be written: a full disk, no permission.
    """
    with replacing(path, durable=durable, parents=parents) as file:
        file.writelines(parts)


def remove_file(path: Path) -> None:
    """Remove a file or object, durably; there need not be one.

    Raises
    ------
    StorageError
        If it cannot be removed.
    """
    try:
        path.unlink()
        if as_remote(path) is None:
            _sync_folder(path.parent)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageError(f"cannot remove {path}: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder durable: without it, a power cut may undo the renaming."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # Windows opens no folders
    try:
        os.fsync(opened)
    except OSError:
        pass  # a file system whose folders cannot be synced
    finally:
        os.close(opened)


def _make_folder(folder: Path, *, durable: bool) -> None:
    """Make a folder and those above it, each durably."""
    if folder.is_dir():
        return
    _make_folder(folder.parent, durable=durable)
    folder.mkdir(exist_ok=True)
    if durable:
        _sync_folder(folder.parent)


def _writer() -> str:
    """Name who writes: no two writers share a draft, so that none puts another's in its place."""
    return f"{_host()}-{os.getpid()}-{threading.get_ident()}"


def _host() -> str:
    return socket.gethostname().split(".", 1)[0]


def _remove_drafts(path: Path) -> None:
    """Remove what killed processes of this machine left of a file."""
    begun = f".{path.name}.{_host()}-"
    with os.scandir(path.parent) as entries:
        names = [e.name for e in entries if e.name.startswith(begun) and e.name.endswith(ENDING)]
    for name in names:
        number = name.removeprefix(begun).split("-", 1)[0]
        if not _is_running(number):
            with suppress(OSError):
                (path.parent / name).unlink()


def _is_running(number: str) -> bool:
    """Tell whether a process of this machine runs; what is no number counts as running."""
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError, OverflowError):
        return True
    return True
