"""A new folder: it gets its name when it is complete, or leaves nothing behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from volseg.errors import ConflictError, InputError, StorageError, VolsegError, own_words
from volseg.fields import as_json
from volseg.storage.attributes import read_attributes, read_notes
from volseg.storage.files import (
    AWAY,
    beside,
    discard,
    left_behind,
    make_folder,
    move,
    replace_folder,
)
from volseg.storage.ledger import Ledger, idle, read_header, read_mark
from volseg.storage.locations import folder_of, parse_location, refuse_folder, remote_scratch
from volseg.storage.remote import RemotePath, as_remote
from volseg.storage.volumes import scratch_path

BEGUN = "begun"
"""Key under which a ledger keeps that its folder is its own."""
MARK_OBJECT = ".unfinished"
"""Object that holds the mark of the run that writes what is not complete."""

MADE = ("probabilities", "labels", "tables", "marks")
"""Folders of a volume that hold what was made of it, or by hand."""


def check_target(
    target: Path, *, overwrite: bool, known: Callable[[Path], object] = read_attributes
) -> None:
    """Refuse a target before any work is done; what is not ``known`` is never replaced.

    Raises
    ------
    ConflictError
        If it exists and may not, or must not, be replaced; if another process segments it.
    InputError
        If its folder does not exist or cannot be written to.
    """
    remote = as_remote(target)
    if remote is not None:
        _check_remote(remote, target, known, overwrite=overwrite)
        return
    parent = folder_of(target)
    if not os.access(parent, os.W_OK):
        raise InputError(f"no permission to write in {parent}")
    _clear(target.resolve())
    if target.exists():
        _check_known(target, known, overwrite=overwrite)


def _check_known(target: Path, known: Callable[[Path], object], *, overwrite: bool) -> None:
    if not target.is_dir() or not known(target):  # --overwrite would not replace it either
        raise ConflictError(f"{target} is no volume, so it is not replaced; choose another name")
    if not overwrite:
        made = [name for name in MADE if (target / name).exists()]
        lost = f" together with its {' and '.join(made)}, which are lost" if made else ""
        raise ConflictError(f"{target} exists already; give --overwrite to replace it{lost}")
    with idle(scratch_path(target)):
        pass


def _check_remote(
    remote: RemotePath, target: Path, known: Callable[[Path], object], *, overwrite: bool
) -> None:
    remote.mkdir()
    if not remote.key:
        raise InputError(f"{target} is a whole bucket; name a volume in it: {target}/NAME.zarr")
    # a killed conversion leaves what it wrote at the target itself
    if not remote.exists() or read_notes(target).get("complete") is False:
        return
    if (mark := remote / MARK_OBJECT).exists():
        if overwrite or mark.read_text() == read_mark(unfinished(target)):
            return
        why = "is an export that has not ended, begun elsewhere; give --overwrite to begin anew"
        raise ConflictError(f"{target} {why}")
    _check_known(target, known, overwrite=overwrite)


def check_file(output: Path, *, overwrite: bool) -> None:
    """Refuse the place of a file."""
    if (remote := as_remote(output)) is not None:
        remote.mkdir()
    else:
        folder_of(output)
    refuse_folder(output)
    if output.exists() and not overwrite:
        raise ConflictError(f"{output} exists already; give --overwrite to replace it")


def check_apart(source: str | Path, target: Path) -> None:
    """Refuse to replace what is to be read, or a part of it."""
    place = parse_location(str(source))
    both = (as_remote(place) is None) == (as_remote(target) is None)
    if both and place.resolve().is_relative_to(target.resolve()):
        raise ConflictError(f"{source} lies in {target}; a volume is written elsewhere")


@contextmanager
def drafting_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Lend a folder to write in, and give it the target's name only after success.

    What a killed process of this machine left of the same target is removed. On object storage,
    which cannot rename, the target itself is lent.

    Raises
    ------
    ConflictError
        If somebody has made the target in the meantime, and it may not be replaced, or segments it.
    """
    remote = as_remote(target)
    if remote is not None:
        with _replacing_remote(remote):
            yield target
        return
    target = target.resolve()  # a link stays, and what it points to is replaced
    _clear(target)
    partial = beside(target)
    try:
        yield partial
        _put_in_place(partial, target, overwrite=overwrite)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {own_words(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, target: Path, *, overwrite: bool) -> None:
    if not target.exists():
        move(partial, target)
    elif overwrite:
        with idle(scratch_path(target)):
            replace_folder(target, partial)
    else:
        raise ConflictError(
            f"{target} was made by another process in the meantime, and stays; give the "
            f"command again with --overwrite to replace it"
        )


def unfinished(target: Path) -> Path:
    """Say where the ledger of an unfinished folder stands: beside it, or in remote scratch."""
    remote = as_remote(target)
    if remote is not None:
        return remote_scratch(remote) / "export.jsonl"
    return target.resolve().with_name(f".{target.resolve().name}.part.jsonl")


@contextmanager
def going_on(path: Path, header: Mapping[str, Any], *, overwrite: bool) -> Iterator[Ledger]:
    """Lend the ledger of what was begun, or a new one; it is removed after success.

    Parameters
    ----------
    header : all that decides what is written
    overwrite : whether another that was begun may be discarded
    """
    ours = as_json(header)
    with Ledger.open(path, header, anew=overwrite and read_header(path) != ours) as ledger:
        yield ledger
        path.unlink()
        # while it is held: who waits for it sees that it is gone, and begins with one of its own
        with suppress(OSError):
            path.with_suffix(".lock").unlink()


@contextmanager
def resuming(
    target: Path, header: Mapping[str, Any], *, overwrite: bool
) -> Iterator[tuple[Path, Ledger]]:
    """Lend a folder to write in, and a ledger; what failed or was killed goes on with both.

    The folder gets the target's name after success. On object storage the target itself is lent,
    emptied first, and what makes it readable must be written last; a mark in it names its run.

    Parameters
    ----------
    header, overwrite : see `going_on`; what stands there may be replaced, too

    Raises
    ------
    ConflictError
        If another was begun, somebody works on it, or has made the target in the meantime.
    """
    remote, path = as_remote(target), unfinished(target)
    place = target if remote is not None else path.with_suffix("")
    try:
        with going_on(path, header, overwrite=overwrite) as ledger:
            if BEGUN not in ledger.records or not _is_of(place, ledger):
                ledger.restart()
                _empty(place, path, ledger)
                ledger.record(BEGUN)
            yield place, ledger
            if remote is None:
                _put_in_place(place, target.resolve(), overwrite=overwrite)
            else:
                (remote / MARK_OBJECT).unlink()
    except OSError as error:
        raise StorageError(f"cannot write {target}: {own_words(error)}") from error


def _is_of(place: Path, ledger: Ledger) -> bool:
    """Tell whether a place is what a run has begun."""
    remote = as_remote(place)
    if remote is None:
        return place.is_dir()
    mark = remote / MARK_OBJECT
    return mark.exists() and mark.read_bytes() == ledger.mark.encode()


def _empty(place: Path, path: Path, ledger: Ledger) -> None:
    """Make a place that a run begins in."""
    remote = as_remote(place)
    if remote is None:
        discard(place)
        make_folder(place)
        return
    mark = remote / MARK_OBJECT
    mark.write_bytes(ledger.mark.encode())  # before, for a kill while the old one is removed
    remote.remove_tree()
    mark.write_bytes(ledger.mark.encode())
    # ledgers of what stood here before must not call its blocks done
    discard(*(p for p in path.parent.iterdir() if not p.name.startswith(path.stem)))


def _clear(target: Path) -> None:
    """Remove what killed processes left beside a target, and put back what one had moved away."""
    for old in left_behind(target, AWAY):
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            move(old, target)
    for partial in left_behind(target):
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _replacing_remote(target: RemotePath) -> Iterator[None]:
    """Empty a place before it is written to, and again if that fails.

    Object storage cannot rename, so a volume is written where it will stand. Until it is complete
    its attributes say so, and it is not opened.
    """
    target.remove_tree()
    # ledgers of what stood here before must not call its blocks done
    shutil.rmtree(remote_scratch(target), ignore_errors=True)
    try:
        yield
    except BaseException:
        with suppress(VolsegError):  # the reason why writing failed says more
            target.remove_tree()
        raise
