"""The lock of a run: one process at a time works on it. It ends with the process, in any case.

The lock is one of the operating system, taken by filelock. Who holds it stands in a file beside it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from weakref import finalize

from filelock import FileLock, Timeout

from volseg.errors import ConflictError, StorageError
from volseg.storage.files import write_file

HOLDER = ".holder"


class RunLock:
    """A lock that is held until this is forgotten, or the process ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises
        ------
        ConflictError
            If another process holds it.
        StorageError
            If there can be no such file.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _take(path)
        except OSError as error:
            raise StorageError(f"cannot write in {path.parent}: {error.strerror}") from error
        holder = path.with_suffix(HOLDER)
        finalize(self, _release, lock, holder)
        told = f"process {os.getpid()} on {socket.gethostname()}"
        write_file(holder, told.encode(), durable=False)


def _release(lock: FileLock | None, holder: Path) -> None:
    """Release a lock, and tell no more who held it."""
    with suppress(OSError):
        holder.unlink()
    if lock is not None:
        lock.release()


@contextmanager
def idle(scratch: Path) -> Iterator[None]:
    """Keep other processes from working on the runs whose ledgers lie in a folder.

    Raises
    ------
    ConflictError
        If one does already.
    """
    with ExitStack() as held:
        for path in sorted(scratch.glob("*.lock")):
            try:
                lock = _take(path)
            except OSError:
                continue  # somebody else's, of which nothing can be known
            if lock is not None:
                held.callback(lock.release)
        yield


def _take(path: Path) -> FileLock | None:
    """Take a lock of this process, which may take it again; None on a file system without locks."""
    lock = FileLock(path, mode=0o666, thread_local=False, is_singleton=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ConflictError(_refusal(path)) from None
    except NotImplementedError:
        return None
    return lock


def _refusal(path: Path) -> str:
    try:
        holder = path.with_suffix(HOLDER).read_text(encoding="utf-8", errors="replace")[:200]
    except OSError:
        holder = "another process"
    return f"{holder} is working on this run now ({path}); wait until it has ended"
