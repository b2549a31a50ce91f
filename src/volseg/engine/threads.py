"""Threads of this process run trials, where no cluster is asked for; see `docs/decisions/0047`."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from volseg.engine.trials import Trial
from volseg.errors import WorkError

SWITCH_SECONDS = 2e-4
"""After which a thread gives Python's lock to one that waits; 5 ms cost a fifth of labelling."""
CLOSE_SECONDS, SILENT_SECONDS = 30.0, 1.0
"""How long blocks are waited for when the work was broken off, and how long without a word."""
_NAME = "volseg-block"

Job: TypeAlias = tuple[Callable[[Any], Any], Trial[Any], SimpleQueue[Trial[Any]]]
"""A task, a trial of it, and where that goes then."""


@contextmanager
def threads(count: int) -> Iterator[Threads]:
    """Run trials in so many threads; end them when what they do is done.

    Python's switch interval is changed, for the whole process and for good.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    started = Threads(count)
    try:
        yield started
    finally:
        started.close()


def running() -> list[threading.Thread]:
    """List the threads of this process that run blocks, or wait for some."""
    return [thread for thread in threading.enumerate() if thread.name == _NAME]


class Threads:
    """What `volseg.engine.trials.Run` needs of threads; see `Workers` there."""

    died: tuple[type[BaseException], ...] = ()

    def __init__(self, count: int) -> None:
        self._count, self._process = count, os.getpid()
        self._waiting: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._hanging: list[threading.Thread] = []
        self._closed = False

    def send(
        self,
        task: Callable[[Any], Any],
        trials: Sequence[Trial[Any]],
        arrived: SimpleQueue[Trial[Any]],
        *,
        on_gpu: bool,  # noqa: ARG002 - all have the same
    ) -> None:
        """Queue trials, and start threads for them."""
        for trial in trials:
            self._waiting.put((task, trial, arrived))
            if len(self._threads) < self._count:
                self._start()

    def _start(self) -> None:
        """Start a thread; if there may be no more, those that run do all."""
        # daemons: one that hangs does not keep the process from ending
        thread = threading.Thread(target=_work, args=(self._waiting,), name=_NAME, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                raise WorkError(f"no thread can be started here: {error}") from error
            self._count = len(self._threads)
        else:
            self._threads.append(thread)

    def collect(self, trials: Sequence[Trial[Any]]) -> None:
        """Do nothing: the results are here."""

    def count(self, *, on_gpu: bool) -> int:  # noqa: ARG002
        """Count the threads that there may be."""
        return self._count

    def check(self) -> None:
        """Check that the threads are those of this process, and there."""
        if self._closed or self._process != os.getpid():
            raise WorkError("the threads of these workers have ended, or are another process's")

    def give_up(self, trial: Trial[Any]) -> bool:
        """Note a thread that hangs: nobody can end it."""
        if isinstance(trial.handle, threading.Thread):
            self._hanging.append(trial.handle)
        return False

    def close(self) -> None:
        """End the threads; wait for what they do, but not for ever, nor for what hangs."""
        self._closed = True
        with suppress(Empty):
            while True:
                self._waiting.get_nowait()
        for _ in self._threads:
            self._waiting.put(None)
        busy = [t for t in self._threads if t not in self._hanging]
        if not _join(busy, SILENT_SECONDS):
            warnings.warn(
                f"waiting for the blocks that run, for {CLOSE_SECONDS:g} s at most; interrupt it "
                f"again to leave them",
                stacklevel=2,
            )
            _join(busy, CLOSE_SECONDS)


def _join(started: Sequence[threading.Thread], seconds: float) -> bool:
    """Wait for threads; tell whether all have ended."""
    deadline = time.monotonic() + seconds
    for thread in started:
        thread.join(max(deadline - time.monotonic(), 0))
    return not any(thread.is_alive() for thread in started)


def _work(waiting: SimpleQueue[Job | None]) -> None:
    while (job := waiting.get()) is not None:
        _try(*job)
        del job  # it is not to be kept until there is another


def _try(task: Callable[[Any], Any], trial: Trial[Any], arrived: SimpleQueue[Trial[Any]]) -> None:
    if trial.given_up:
        return
    trial.handle = threading.current_thread()
    try:
        trial.result = task(trial.item)
    except BaseException as error:  # noqa: BLE001 - it goes to who waits for it
        _forget_locals(error)
        trial.error = error
    arrived.put(trial)


def _forget_locals(error: BaseException) -> None:
    """Free the arrays of a block that failed: its error is kept until all others are done."""
    found: list[BaseException | None] = [error]
    seen: set[int] = set()
    while found:
        if (this := found.pop()) is None or id(this) in seen:
            continue
        seen.add(id(this))
        traceback.clear_frames(this.__traceback__)
        found += [this.__cause__, this.__context__, *getattr(this, "exceptions", ())]
