"""Threads of this process run trials, where no cluster is asked for; see `docs/decisions/0047`."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

from volseg.stages.engine_run import Trial

SWITCH_SECONDS = 2e-4
"""After which a thread gives Python's lock to one that waits; 5 ms cost a fifth of labelling."""
CLOSE_SECONDS = 30.0
"""How long blocks that run are waited for when the work was broken off."""

Job: TypeAlias = tuple[Callable[[Any], Any], Trial[Any], SimpleQueue[Trial[Any]]]
"""A task, a trial of it, and where that goes then."""


@contextmanager
def threads(count: int) -> Iterator[Threads]:
    """Start so many threads; end them when what they do is done."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    started = Threads(count)
    try:
        yield started
    finally:
        started.close()
        sys.setswitchinterval(before)


class Threads:
    """What `volseg.stages.engine_run.Run` needs of threads; see `Workers` there."""

    died: tuple[type[BaseException], ...] = ()

    def __init__(self, count: int) -> None:
        self._waiting: SimpleQueue[Job | None] = SimpleQueue()
        self._hangs = False
        # daemons: one that hangs does not keep the process from ending
        self._threads = [
            Thread(target=_work, args=(self._waiting,), name=f"volseg-{k}", daemon=True)
            for k in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def send(
        self,
        task: Callable[[Any], Any],
        trials: Sequence[Trial[Any]],
        arrived: SimpleQueue[Trial[Any]],
        *,
        on_gpu: bool,  # noqa: ARG002 - all have the same
    ) -> None:
        """Queue trials."""
        for trial in trials:
            self._waiting.put((task, trial, arrived))

    def collect(self, trials: Sequence[Trial[Any]]) -> None:
        """Do nothing: the results are here."""

    def count(self, *, on_gpu: bool) -> int:  # noqa: ARG002
        """Count the threads."""
        return len(self._threads)

    def check(self) -> None:
        """Do nothing: this process runs."""

    def give_up(self, trial: Trial[Any]) -> bool:  # noqa: ARG002
        """Tell that nobody can end a thread."""
        self._hangs = True
        return False

    def close(self) -> None:
        """End the threads; wait for what they do, but not for ever, nor for what hangs."""
        with suppress(Empty):
            while True:
                self._waiting.get_nowait()
        for _ in self._threads:
            self._waiting.put(None)
        deadline = time.monotonic() + (0 if self._hangs else CLOSE_SECONDS)
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))


def _work(waiting: SimpleQueue[Job | None]) -> None:
    while (job := waiting.get()) is not None:
        _try(*job)
        del job  # it is not to be kept until there is another


def _try(task: Callable[[Any], Any], trial: Trial[Any], arrived: SimpleQueue[Trial[Any]]) -> None:
    if trial.given_up:
        return
    try:
        trial.result = task(trial.item)
    except BaseException as error:  # noqa: BLE001 - it goes to who waits for it
        _forget_locals(error)
        trial.error = error
    arrived.put(trial)


def _forget_locals(error: BaseException | None) -> None:
    """Free the arrays of a block that failed: its error is kept until all others are done."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
