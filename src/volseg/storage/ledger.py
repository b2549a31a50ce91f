"""The ledger of a run: what is durably done, so that a killed run goes on where it was.

Who works on a run holds a lock beside the ledger: one of the operating system, taken by filelock,
which ends with the process in any case. Who holds it stands in a file beside it.

One JSON object per line: first a header with everything that decides the result, then one record
per finished item. Lines are appended and flushed to the disk; a torn last line, from a kill in the
middle of a write, counts as not written.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from volseg.differences import tell_apart
from volseg.errors import ConflictError, StorageError
from volseg.fields import as_json
from volseg.geometry.grid import Block
from volseg.storage.files import replacing, write_file
from volseg.storage.stores import parse_json
from volseg.types import Zyx

HOLDER = ".holder"
MARK = "mark"
"""The key under which a ledger keeps its mark, and an image's attributes that of its run."""
CREATED = "created"
"""The key under which a ledger keeps that the images of its run are there, still empty."""


def block_key(what: str, index: Zyx) -> str:
    """Say under which key a ledger keeps that something was done for a block.

    Examples
    --------
    >>> block_key("written", (0, 2, 1))
    '["written", 0, 2, 1]'
    """
    return json.dumps([what, *index])


def new_mark() -> str:
    """Choose a mark that no other run has."""
    return secrets.token_hex(8)


@contextmanager
def locked(path: Path, *, patience: float = 0) -> Iterator[None]:
    """Hold a lock, which nobody else can take meanwhile: no process, no other thread of this one.

    Raises
    ------
    ConflictError
        If it is held, and not released within so many seconds.
    StorageError
        If there can be no such file.
    """
    new = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        release = _take(path, patience)
    except OSError as error:
        _remove(new)
        raise StorageError(f"cannot write in {path.parent}: {error.strerror}") from error
    holder, owner = path.with_suffix(HOLDER), os.getpid()
    try:
        told = f"process {owner} on {socket.gethostname()}"
        try:
            write_file(holder, told.encode(), durable=False)
        except StorageError:
            _remove(new)
            raise
        yield
    finally:
        if os.getpid() == owner:  # a forked child holds nothing
            with suppress(OSError):
                holder.unlink()
            release()


def _remove(new: Iterable[Path]) -> None:
    """Remove a lock, and the folders that were made for it, where nothing could be begun.

    Who waits for a lock that is held sees that it is gone, and takes one of its own.
    """
    for path in new:
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


@contextmanager
def idle(scratch: Path) -> Iterator[None]:
    """Keep others from working on the runs whose ledgers lie in a folder."""
    with ExitStack() as held:
        for path in sorted(scratch.glob("*.lock")):
            with suppress(OSError):  # somebody else's, of which nothing can be known
                held.callback(_take(path))
        yield


def _take(path: Path, patience: float = 0) -> Callable[[], None]:
    """Take a lock; return what releases it."""
    # a lock that is a file's existence would outlive a machine that is switched off
    lock = FileLock(path, mode=0o666, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise ConflictError(_refusal(path)) from None
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return lambda: None  # a file system without locks
    return lock.release


def _refusal(path: Path) -> str:
    try:
        holder = path.with_suffix(HOLDER).read_text(encoding="utf-8", errors="replace")[:200]
    except OSError:
        holder = "another process"
    return f"{holder} is working on this run now ({path}); wait until it has ended"


@dataclass
class Ledger:
    """An open ledger; its only writer is who holds its lock."""

    path: Path
    header: dict[str, Any]
    records: dict[str, Any] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def open(cls, path: Path, header: Mapping[str, Any], *, anew: bool = False) -> Iterator[Ledger]:
        """Open a run's ledger, or begin one, and hold its lock.

        Parameters
        ----------
        header : JSON-like mapping
            Everything that decides the result.
        anew : whether to begin one in any case, in place of what is on record

        Raises
        ------
        ConflictError
            If the run at ``path`` was begun with another header; the message shows what differs.
            If somebody works on it now.
        """
        ours = as_json(header)
        with locked(path.with_suffix(".lock")):
            lines = [] if anew else _complete_lines(path)
            if lines and lines[0] != ours:
                raise ConflictError(
                    f"{path} is of an unfinished run that {tell_apart(lines[0], ours, ('', ''))}; "
                    f"repeat that command to finish it, or give --overwrite to discard it"
                )
            ledger = cls(path, ours, {line["key"]: line["value"] for line in lines[1:]})
            new = [] if path.exists() else [path.with_suffix(".lock")]
            try:
                _write_records(path, ours, ledger.records)
            except StorageError:
                _remove(new)
                raise
            yield ledger

    @classmethod
    def replace(cls, path: Path, header: Mapping[str, Any], records: Mapping[str, Any]) -> None:
        """Write what is done anew, for a result of which a part has been lost."""
        with locked(path.with_suffix(".lock")):
            _write_records(path, header, records)

    def record(self, key: str, value: Any = None) -> None:
        """Note durably that an item is done."""
        line = json.dumps({"key": key, "value": value}) + "\n"
        try:
            with self.path.open("a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from error
        self.records[key] = value

    def lacking(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """List the blocks that are not on record as written, as it is by then."""
        return (b for b in blocks if block_key("written", b.index) not in self.records)

    @property
    def mark(self) -> str:
        """Random name that ties unfinished images to this ledger."""
        if MARK not in self.records:
            self.record(MARK, new_mark())
        return str(self.records[MARK])

    def restart(self) -> None:
        """Forget what is done, because it is no more; the mark stays."""
        records = {MARK: self.mark}
        # not by `replace`: a process that closes a locked file gives up its lock
        _write_records(self.path, self.header, records)
        self.records = records


def read_header(path: Path) -> Any:
    """Read with what a run was begun, None if none was."""
    return next(iter(_complete_lines(path)), None)


def read_mark(path: Path) -> Any:
    """Read the mark of a run, None if it has none."""
    marks = (line["value"] for line in _complete_lines(path)[1:] if line["key"] == MARK)
    return next(marks, None)


def _complete_lines(path: Path) -> list[Any]:
    if not path.exists():
        return []
    lines: list[Any] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            found = parse_json(line)
        except ValueError:
            break
        if lines and not _is_record(found):
            break
        lines.append(found)
    return lines


def _is_record(line: Any) -> bool:
    """Tell whether a line is what `Ledger.record` writes."""
    return isinstance(line, dict) and isinstance(line.get("key"), str) and "value" in line


def _write_records(path: Path, header: Mapping[str, Any], records: Mapping[str, Any]) -> None:
    """Replace the ledger by its complete lines, so that a torn one is not appended to."""
    lines = [header, *({"key": k, "value": v} for k, v in records.items())]
    with replacing(path) as file:
        file.writelines(json.dumps(line).encode() + b"\n" for line in lines)
