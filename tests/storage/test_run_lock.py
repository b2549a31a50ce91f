"""One at a time works on a run: one process, and one thread of it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import suppress

import pytest

from volseg.errors import ConflictError, StorageError
from volseg.storage import ledger
from volseg.storage.ledger import HOLDER, Ledger, idle, locked

HOLD = """
import sys, time
from pathlib import Path
from volseg.storage.ledger import Ledger
with Ledger.open(Path(sys.argv[1]), {"a": 1}):
    print("held", flush=True)
    time.sleep(60)
"""
TAKE = """
import sys
from pathlib import Path
from volseg.storage.ledger import locked
with locked(Path(sys.argv[1])):
    pass
"""


def take_elsewhere(path):
    """Take a lock in another process, and say why it cannot be taken."""
    command = [sys.executable, "-c", TAKE, path]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_another_process_is_refused_until_the_first_is_killed(tmp_path):
    path = tmp_path / "run.jsonl"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        refused = pytest.raises(ConflictError, match=f"process {holder.pid} on .* is working")
        with refused, Ledger.open(path, {"a": 1}):
            pass
        held = path.read_bytes()
        refused = pytest.raises(ConflictError, match="is working")
        with refused, Ledger.open(path, {"b": 2}, anew=True):
            pass
        assert path.read_bytes() == held
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with Ledger.open(path, {"a": 1}) as run:
        run.record("x")
    with Ledger.open(path, {"a": 1}) as run:
        assert set(run.records) == {"x"}
    with Ledger.open(path, {"b": 2}, anew=True) as run:
        assert not run.records


def refusal(path):
    holder = f"process {os.getpid()} on .* is working"
    with pytest.raises(ConflictError, match=holder) as found, locked(path):
        pass
    return found


def test_the_process_that_holds_a_lock_cannot_take_it_again(tmp_path):
    path, seen = tmp_path / "run.lock", []
    with locked(path):
        refusal(path)
        refusal(tmp_path / "." / "run.lock")
        thread = threading.Thread(target=lambda: seen.append(refusal(path)))
        thread.start()
        thread.join()
        with pytest.raises(ConflictError), idle(tmp_path):
            pass
        assert "is working on this run now" in take_elsewhere(path), "it is still held"
    assert seen
    assert not take_elsewhere(path)


def test_a_lock_is_released_when_a_run_fails_and_its_error_is_kept(tmp_path):
    """As in a notebook, which keeps the last error, with all that its frames hold."""
    path = tmp_path / "run.jsonl"
    with pytest.raises(RuntimeError) as kept, Ledger.open(path, {"a": 1}):
        raise RuntimeError("the run fails")
    refused = pytest.raises(ConflictError, match="of an unfinished run")
    with refused as other, Ledger.open(path, {"b": 1}):
        pass
    with Ledger.open(path, {"a": 1}) as run:
        run.restart()
        assert "is working" in take_elsewhere(path.with_suffix(".lock"))
    assert kept.tb is not None
    assert other.tb is not None
    assert not path.with_suffix(".holder").exists()


@pytest.mark.parametrize("fails", ["write_file", "replacing"])
def test_a_disk_that_is_full_at_once_leaves_nothing_behind(tmp_path, monkeypatch, fails):
    def refuse(path, *_, **__):
        raise StorageError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as full:
        full.setattr(ledger, fails, refuse)
        with pytest.raises(StorageError, match="No space left"), Ledger.open(tmp_path / "a", {}):
            pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "folder" / "run.lock"):
        pass
    monkeypatch.setattr(ledger, "write_file", refuse)
    for where, stays in (("folder", ["folder", "folder/run.lock"]), ("new", ["folder"])):
        if where == "new":
            (tmp_path / "folder" / "run.lock").unlink()
        with pytest.raises(StorageError), locked(tmp_path / where / "run.lock"):
            pass
        assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == stays


def test_a_lock_that_goes_while_it_is_taken_is_taken_anew(tmp_path, monkeypatch):
    """As by who held it, whose disk was full: older releases of filelock then held nothing."""
    path, take, gone = tmp_path / "run.lock", fcntl.flock, []

    def remove_first(file, how):
        if not gone:
            path.unlink()
            gone.append(file)
        return take(file, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with locked(path, patience=5):
        assert path.exists()
        refusal(path)


def test_a_forked_child_neither_takes_nor_releases_what_its_parent_holds(tmp_path):
    path = tmp_path / "run.lock"
    held = locked(path)
    held.__enter__()
    child = os.fork()
    if not child:
        refused = False
        try:
            with suppress(ConflictError):
                refused = locked(path).__enter__()
            held.__exit__(None, None, None)  # as where an error leads out of the child's frames
        finally:
            os._exit(0 if refused is False else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert f"process {os.getpid()} on" in take_elsewhere(path)
    held.__exit__(None, None, None)
    assert not take_elsewhere(path)


def test_a_file_system_without_locks_is_worked_on_without(tmp_path, monkeypatch):
    """A lock that is there while its file is would stay for ever after a kill."""

    def lacking(_file, _how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", lacking)
    done = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with locked(tmp_path / "run.lock"), locked(tmp_path / "run.lock"):
                done.append((tmp_path / "run.lock").with_suffix(HOLDER).exists())
    assert done == [True, True]
