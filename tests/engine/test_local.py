"""Dask's local scheduler: what hangs, what is broken off, what is left behind."""

from __future__ import annotations

import contextvars
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from volseg.engine import windows
from volseg.engine.options import EngineOptions
from volseg.engine.pool import running
from volseg.engine.run import run_blocks, same_workers
from volseg.engine.steps import Step, build_graph
from volseg.errors import BlockError, InputError, WorkError

STUCK = threading.Event()
SEEN = []


@pytest.fixture(autouse=True)
def _nothing_seen():
    SEEN.clear()
    STUCK.clear()
    yield
    STUCK.set()


@pytest.fixture
def impatient(monkeypatch):
    """Take items to hang that take longer than a moment."""
    monkeypatch.setattr(windows, "WATCH_SECONDS", 0.05)
    return EngineOptions(workers=2, block_seconds=0.05)


def hang_once(item):
    SEEN.append(item)
    if item == 3 and SEEN.count(3) == 1:
        STUCK.wait(60)
    return item


def test_what_hangs_is_tried_again_by_another_thread(impatient):
    results = []
    begun = time.monotonic()
    run_blocks(hang_once, range(9), impatient, on_result=lambda i, _: results.append(i))
    assert sorted(results) == list(range(9))
    assert SEEN.count(3) == 2
    # nor is it waited for at the end
    assert time.monotonic() - begun < 20


def hang(item):
    SEEN.append(item)
    STUCK.wait(60)


def test_nothing_is_waited_for_if_all_threads_hang(impatient):
    begun = time.monotonic()
    with pytest.raises(WorkError, match=r"all 2 worker\(s\) hang"):
        run_blocks(hang, range(30), impatient, on_result=lambda *_: None)
    assert time.monotonic() - begun < 20
    assert len(SEEN) == 2


def see(item):
    SEEN.append(item)


def test_what_is_done_does_not_hang_while_results_are_told(impatient):
    run_blocks(see, range(6), impatient, on_result=lambda *_: time.sleep(0.15))
    assert sorted(SEEN) == list(range(6))


def note(item):
    time.sleep(0.3 if isinstance(item, int) else 0)
    SEEN.append(item)


def test_what_is_handed_over_is_taken_soon_where_blocks_take_long():
    def steps():
        for k in range(20):
            yield Step(k, name=k)
            yield Step(f"after {k}", after=(k,))

    def taken():
        SEEN.clear()
        run_blocks(note, steps(), EngineOptions(workers=2))
        return SEEN.index("after 0")

    assert any(taken() < 15 for _ in range(3))  # a busy machine may hold one run up


def fail(item):
    raise OSError("the disk is away")


def test_what_failed_is_tried_again_in_windows_too(monkeypatch):
    def measured(task, window):
        SEEN.append(len(window))
        return build_graph(task, window)

    monkeypatch.setattr(windows, "build_graph", measured)
    with pytest.raises(BlockError, match=r"200 block\(s\) failed"):
        run_blocks(fail, range(200), EngineOptions(workers=1))
    assert max(SEEN) <= 2 + windows.MOST_AHEAD + 1
    assert sum(SEEN) == 3 * 200


def refuse_later(item):
    time.sleep(0.01)
    SEEN.append(item)
    if item == 2:
        raise InputError("not usable")


def test_what_was_broken_off_is_finished_and_nothing_else_is_begun():
    with pytest.raises(InputError):
        run_blocks(refuse_later, range(1000), EngineOptions(workers=2), on_result=lambda *_: None)
    seen = len(SEEN)
    assert seen < 100
    assert running() == []
    time.sleep(0.1)
    assert len(SEEN) == seen


def lose(array):
    """Raise an error whose frames hold an array."""
    SEEN.append(weakref.ref(array))
    raise OSError("the disk is away")


def fail_with_much(item):
    """Fail with an array at hand; later, tell whether any of those is still there."""
    if item == 0:
        try:
            lose(np.zeros(1000))
        except OSError as error:
            raise ValueError("unlucky") from error
    if item == 1:
        try:
            lose(np.zeros(1000))
        except OSError as error:
            raise ExceptionGroup("unlucky too", [error]) from KeyError()
    return [r() is not None for r in SEEN]


def test_failed_blocks_keep_no_arrays():
    kept = []
    with pytest.raises(BlockError, match="unlucky"):
        run_blocks(
            fail_with_much,
            range(20),
            EngineOptions(workers=1),
            on_result=lambda _, found: kept.extend(found),
        )
    assert len(SEEN) == 6
    assert kept
    assert not any(kept)


def blame_itself(_):
    error = OSError("it is its own reason")
    raise error from error


def test_an_error_may_be_its_own_reason():
    with pytest.raises(BlockError, match="its own reason"):
        run_blocks(blame_itself, [1], EngineOptions(workers=1), on_result=lambda *_: None)


def test_nothing_of_the_process_is_changed():
    before = sys.getswitchinterval()
    run_blocks(abs, range(3), EngineOptions(workers=1))
    assert sys.getswitchinterval() == before


def double(item):
    return 2 * item


def test_threads_are_started_as_they_are_needed(monkeypatch):
    most = []
    run_blocks(
        abs,
        range(-4, 0),
        EngineOptions(workers=10_000),
        on_result=lambda *_: most.append(len(running())),
    )
    assert max(most) <= 4

    def start(thread):
        if len(running()) == 2:
            raise RuntimeError("can't start new thread")
        real(thread)

    real = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    results = []
    options = EngineOptions(workers=8)
    run_blocks(double, range(30), options, on_result=lambda i, _: results.append(i))
    assert sorted(results) == list(range(30))
    monkeypatch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError()))
    with pytest.raises(WorkError, match="no thread can be started"):
        run_blocks(abs, [1], options, on_result=lambda *_: None)


def test_threads_that_have_ended_are_an_error():
    options = EngineOptions(workers=1)
    with same_workers(options):
        context = contextvars.copy_context()
    with pytest.raises(WorkError, match="have ended"):
        context.run(run_blocks, abs, [1], options, on_result=lambda *_: None)


def broken():
    yield 1
    raise PermissionError("no such folder for you")


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_items_is_told_as_it_is(workers):
    options = EngineOptions(workers=workers)
    with pytest.raises(PermissionError, match="for you"):
        run_blocks(abs, broken(), options, on_result=lambda *_: None)
    assert running() == []


INTERRUPTED = """
import os, signal, sys, threading, time
import torch
from volseg import cli
from volseg.cli.session import with_session
from volseg.engine import local
from volseg.engine.options import EngineOptions
from volseg.engine.run import run_blocks, same_workers
from volseg.engine.steps import Step, build_graph

# a shell without job control starts what runs in its background with SIGINT ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
local.SILENT_SECONDS, local.CLOSE_SECONDS = 0.1, float(sys.argv.pop())
begun = threading.Event()

def work(_):
    begun.set()
    image, weights = torch.zeros(1, 16, 400, 400), torch.zeros(16, 16, 3, 3)
    while True:
        torch.nn.functional.conv2d(image, weights)

def interrupt():
    begun.wait()
    for _ in range(int(times)):
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

times = sys.argv.pop()
cli.stats_command.callback = with_session(
    lambda session, **_: run_blocks(work, range(9), EngineOptions(workers=2), on_result=print)
)
threading.Thread(target=interrupt, daemon=True).start()
from volseg.__main__ import run
run()
"""


@pytest.mark.parametrize(("times", "seconds"), [(1, 0.5), (2, 60)])
def test_an_interrupted_command_ends_although_blocks_run(tmp_path, times, seconds):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "stats", str(tmp_path), str(times), str(seconds)],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.endswith("error: interrupted; run the same command again to resume\n")
    assert "warning: waiting for the blocks that run" in done.stderr
