"""Threads of this process: what hangs, what is broken off, what is left behind."""

from __future__ import annotations

import sys
import threading
import time
import weakref

import numpy as np
import pytest

from volseg.errors import BlockError, InputError, WorkError
from volseg.stages import engine_run
from volseg.stages.engine import EngineOptions, run_blocks
from volseg.stages.threads import SWITCH_SECONDS

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
    monkeypatch.setattr(engine_run, "AHEAD_SECONDS", 0.05)
    monkeypatch.setattr(engine_run, "WATCH_SECONDS", 0.05)
    return EngineOptions(workers=2, block_seconds=0.05)


def own_threads():
    return [t for t in threading.enumerate() if t.name.startswith("volseg-")]


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
    assert own_threads() == []
    time.sleep(0.1)
    assert len(SEEN) == seen


def fail_with_much(item):
    """Fail with an array at hand; later, tell whether any of those is still there."""
    if item == 0:
        much = np.zeros(1000)
        SEEN.append(weakref.ref(much))
        try:
            raise OSError("the disk is away")
        except OSError as error:
            raise ValueError("unlucky") from error
    return [r() is not None for r in SEEN]


def test_a_failed_block_keeps_no_arrays():
    kept = []
    with pytest.raises(BlockError, match="unlucky"):
        run_blocks(
            fail_with_much,
            range(20),
            EngineOptions(workers=1),
            on_result=lambda _, found: kept.extend(found),
        )
    assert len(SEEN) == 3
    assert kept
    assert not any(kept)


def test_what_is_changed_for_the_threads_is_changed_back():
    before = sys.getswitchinterval()
    found = []
    run_blocks(
        lambda _: sys.getswitchinterval(),
        range(3),
        EngineOptions(workers=1),
        on_result=lambda _, seconds: found.append(seconds),
    )
    assert found == pytest.approx([SWITCH_SECONDS] * 3)
    assert sys.getswitchinterval() == before
    assert own_threads() == []
