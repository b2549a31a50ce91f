"""Threads that do not keep the process from ending, as `concurrent.futures` has none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar

from volseg.errors import WorkError

Result = TypeVar("Result")
Job: TypeAlias = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]

BLOCKS, WINDOWS = "volseg-block", "volseg-window"
"""Names of threads: of those that run blocks, and of those that direct a window of them."""


class Pool(Executor):
    """Run functions in daemon threads, which are started as they are needed.

    Attributes
    ----------
    most : how many threads there may be.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name, self.most = name, most
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._closed, self._lock = False, threading.Lock()

    def submit(  # type: ignore[override]  # nothing is called by keyword here
        self, function: Callable[..., Result], /, *arguments: Any
    ) -> Future[Result]:
        """Call a function in a thread; start one if none is idle and there may be more."""
        future: Future[Result] = Future()
        with self._lock:
            if self._closed:
                raise WorkError("the threads of this run have ended")
            self._jobs.put((future, function, arguments))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self.most:
                self._start()
        return future

    def _start(self) -> None:
        """Start a thread; if there may be no more, those that run do all."""
        thread = threading.Thread(
            target=_work, args=(self._jobs, self._idle), name=self._name, daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            if not self._threads:
                raise WorkError("no thread can be started here: too many run") from error
            self.most = len(self._threads)
        else:
            self._threads.append(thread)

    def close(self) -> None:
        """Begin nothing more; threads end when what they do is done."""
        with self._lock:
            self._closed = True
            while True:
                try:
                    job = self._jobs.get_nowait()
                except Empty:
                    break
                if job is not None:
                    job[0].cancel()
            for _ in self._threads:
                self._jobs.put(None)

    def join(self, seconds: float, but: frozenset[threading.Thread] = frozenset()) -> bool:
        """Wait for the threads of a closed pool to end; tell whether all have, but some."""
        deadline = time.monotonic() + seconds
        awaited = [thread for thread in self._threads if thread not in but]
        for thread in awaited:
            thread.join(max(deadline - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in awaited)


def running() -> list[threading.Thread]:
    """List the threads of this process that run blocks, or wait for some."""
    return [thread for thread in threading.enumerate() if thread.name == BLOCKS]


def _work(jobs: SimpleQueue[Job | None], idle: threading.Semaphore) -> None:
    while True:
        try:
            job = jobs.get_nowait()
        except Empty:
            idle.release()
            job = jobs.get()
        if job is None:
            return
        _fulfil(*job)
        del job  # it is not to be kept until there is another


def _fulfil(
    future: Future[Result], function: Callable[..., Result], arguments: tuple[Any, ...]
) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*arguments)
    except BaseException as error:  # noqa: BLE001 - it goes to who waits for it
        future.set_exception(error)
    else:
        future.set_result(result)
