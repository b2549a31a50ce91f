"""Write files completely or not at all, and durably: the only code that puts one in its place.

A file is written beside the place where it will stand, flushed to the disk, and renamed. Where it
stood before, the old one stays until then.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from volseg.errors import ConflictError, StorageError, own_words
from volseg.storage.remote import as_remote

ENDING, AWAY = ".tmp", ".old"
"""Of the names of drafts, and of what stands aside while its successor takes its place."""


@contextmanager
def replacing(path: Path, *, durable: bool = True, parents: bool = True) -> Iterator[BinaryIO]:
    """Open a file to write; it gets its name when all of it is written.

    What a killed process left half-written beside it is removed. On object storage the content is
    sent in one request.

    Parameters
    ----------
    durable : whether it must survive a power cut; else only that it is whole or absent for readers
    parents : whether folders are made as needed, else a missing one is an error
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

    A file for object storage is written to a temporary folder, and sent when it is complete.
    """
    remote = as_remote(path)
    if remote is not None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
            remote.upload(Path(folder) / path.name)
        return
    if path.is_symlink():  # it stays, and what it points to is replaced
        path = path.resolve()
    draft = beside(path)
    try:
        if parents:
            make_folder(path.parent, durable=durable)
        for left in left_behind(path):
            with suppress(OSError):
                left.unlink()
        yield draft
        put_in_place(draft, path, durable=durable)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {own_words(error)}") from error
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
            make_durable(file)
    move(draft, path, durable=durable)


def make_durable(file: BinaryIO) -> None:
    """Have the disk keep what was written to a file so far."""
    file.flush()
    os.fsync(file.fileno())


def move(source: Path, place: Path, *, durable: bool = True) -> None:
    """Rename a file or folder within its folder, durably.

    Raises
    ------
    OSError
        If that cannot be done.
    """
    os.replace(source, place)
    if durable:
        _sync_folder(place.parent)


def replace_folder(path: Path, successor: Path) -> None:
    """Put a folder in the place of what stands there, which goes last: if it fails, that stays."""
    old, stood = beside(path, AWAY), os.path.lexists(path)
    try:
        if stood:
            move(path, old)
        try:
            move(successor, path)
        except OSError:
            if stood:
                move(old, path)
            raise
        discard(old)
    except OSError as error:
        raise StorageError(f"cannot replace {path}: {own_words(error)}") from error


def discard(*paths: Path) -> None:
    """Remove files and folders, as far as they exist; of links the links alone."""
    for path in paths:
        remote = as_remote(path)
        # only if it is there: a read-only disk refuses even to remove what is not
        if path.is_file() or (remote is None and path.is_symlink()):
            path.unlink(missing_ok=True)
        if path.is_dir():  # at a place on object storage there may be both
            shutil.rmtree(path) if remote is None else remote.remove_tree()


def write_file(
    path: Path, *parts: bytes | memoryview, durable: bool = True, parents: bool = True
) -> None:
    """Write a file from its parts; see `replacing`."""
    with replacing(path, durable=durable, parents=parents) as file:
        file.writelines(parts)


def take_over(source: Path, folder: Path, names: Iterable[str]) -> None:
    """Give files of one folder a name in another too, durably, or copy them where that fails.

    Only for files that are replaced, and never changed in place.
    """
    remote = as_remote(source) is not None or as_remote(folder) is not None
    make_folder(folder)
    for name in names:
        try:
            if not remote:
                os.link(source / name, folder / name)
        except FileExistsError:
            continue  # by the same command, that was killed
        except OSError:  # a file system without links, or another one
            write_file(folder / name, (source / name).read_bytes())
        if remote:
            write_file(folder / name, (source / name).read_bytes())
    if not remote:
        _sync_folder(folder)


def remove_file(path: Path) -> None:
    """Remove a file or object, durably; there need not be one."""
    try:
        path.unlink()
        if as_remote(path) is None:
            _sync_folder(path.parent)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageError(f"cannot remove {path}: {own_words(error)}") from error


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


def make_folder(folder: Path, *, durable: bool = True, new: bool = False) -> None:
    """Make a folder and those above it, each durably; with ``new``, it must not be there.

    Raises
    ------
    ConflictError
        If it is there, and must not: of two who make it at once, one gets this.
    """
    if as_remote(folder) is not None or (not new and folder.is_dir()):
        return
    make_folder(folder.parent, durable=durable)
    try:
        folder.mkdir(exist_ok=not new)
        if durable:
            _sync_folder(folder.parent)
    except OSError as error:
        if new and os.path.lexists(folder):
            raise ConflictError(f"{folder} exists already") from error
        raise StorageError(f"cannot write {folder}: {own_words(error)}") from error


def beside(path: Path, ending: str = ENDING) -> Path:
    """Name a place beside another, which no other writer names: none puts another's in its place.

    Drafts lie there, and what has to make room.
    """
    return path.with_name(f"{_begun(path)}{os.getpid()}-{threading.get_ident()}{ending}")


def left_behind(path: Path, ending: str = ENDING) -> list[Path]:
    """List what processes of this machine that run no more have left beside a file or folder."""
    begun = _begun(path)
    with os.scandir(path.parent) as entries:
        names = [e.name for e in entries if e.name.startswith(begun) and e.name.endswith(ending)]
    ended = (n for n in names if not _is_running(n.removeprefix(begun).split("-", 1)[0]))
    return [path.with_name(name) for name in ended]


def _begun(path: Path) -> str:
    return f".{path.name}.{socket.gethostname().split('.', 1)[0]}-"


def _is_running(number: str) -> bool:
    """Tell whether a process of this machine runs; what is no number counts as running."""
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError, OverflowError):
        return True
    return True


def hash_file(path: Path) -> str:
    """Compute the SHA-256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
