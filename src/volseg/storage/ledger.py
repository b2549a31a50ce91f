"""The ledger of a run: what is durably done, so that a killed run goes on where it was.

While a process works on a run it holds a lock beside the ledger, which ends with the process.

One JSON object per line: first a header with everything that decides the result, then one record
per finished item. Lines are appended and flushed to the disk; a torn last line, from a kill in the
middle of a write, counts as not written.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volseg.errors import ConflictError, StorageError
from volseg.storage.attributes import parse_json
from volseg.storage.files import replacing
from volseg.storage.lock import RunLock

MARK = "mark"
"""The key under which a ledger keeps its mark, and an image's attributes that of its run."""


def new_mark() -> str:
    """Choose a mark that no other run has."""
    return secrets.token_hex(8)


@dataclass
class Ledger:
    """An open ledger; its only writer is the process that runs the command."""

    path: Path
    header: dict[str, Any]
    records: dict[str, Any] = field(default_factory=dict)
    lock: RunLock | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: Path, header: Mapping[str, Any], *, anew: bool = False) -> Ledger:
        """Open a run's ledger, or begin one.

        Parameters
        ----------
        path : Path
        header : JSON-like mapping
            Everything that decides the result.
        anew : bool
            Whether to begin one in any case, in place of what is on record.

        Raises
        ------
        ConflictError
            If the run at ``path`` was begun with another header; the message shows what differs.
            If another process works on it now.
        StorageError
            If the ledger cannot be written.
        """
        ours = json.loads(json.dumps(header))
        lock = RunLock(path.with_suffix(".lock"))
        lines = [] if anew else _complete_lines(path)
        if lines and lines[0] != ours:
            difference = describe_difference(lines[0], ours)
            raise ConflictError(
                f"{path} belongs to a run with other parameters ({difference}); repeat that "
                f"command to finish it, or give --overwrite to discard it"
            )
        records = {line["key"]: line["value"] for line in lines[1:]}
        _write_records(path, ours, records)
        return cls(path, ours, records, lock)

    @classmethod
    def replace(cls, path: Path, header: Mapping[str, Any], records: Mapping[str, Any]) -> None:
        """Write what is done anew, for a result of which a part has been lost.

        Raises
        ------
        ConflictError
            If another process works on the run.
        StorageError
            If the ledger cannot be written.
        """
        lock = RunLock(path.with_suffix(".lock"))
        try:
            _write_records(path, header, records)
        finally:
            del lock

    def record(self, key: str, value: Any = None) -> None:
        """Note durably that an item is done.

        Raises
        ------
        StorageError
            If the ledger cannot be written.
        """
        line = json.dumps({"key": key, "value": value}) + "\n"
        try:
            with self.path.open("a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from error
        self.records[key] = value

    @property
    def mark(self) -> str:
        """What the images bear that this ledger tells of, until they are complete.

        Raises
        ------
        StorageError
            If the ledger cannot be written.
        """
        if MARK not in self.records:
            self.record(MARK, new_mark())
        return str(self.records[MARK])

    def restart(self) -> None:
        """Forget what is done, because it is no more; the mark stays.

        Raises
        ------
        StorageError
            If the ledger cannot be written.
        """
        records = {MARK: self.mark}
        # not by `replace`: a process that closes a locked file gives up its lock
        _write_records(self.path, self.header, records)
        self.records = records

    def done(self) -> set[str]:
        """Return the keys of the finished items."""
        return set(self.records)


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


def describe_difference(theirs: Any, ours: Mapping[str, Any]) -> str:
    """Name the parameters in which two runs differ.

    Examples
    --------
    >>> describe_difference({"level": 0}, {"level": 1})
    'level was 0, now 1'
    """
    if not isinstance(theirs, dict):
        return "no record says how it was made"
    keys = sorted({k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k)})
    return ", ".join(f"{k} was {theirs.get(k)!r}, now {ours.get(k)!r}" for k in keys)
