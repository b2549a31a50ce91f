"""Run one function over many blocks on dask.distributed: windowed, and honest about failures."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import dask
from distributed import Client, LocalCluster, as_completed

from volseg.errors import BlockError, InputError, ParameterError
from volseg.stages.memory import keep_freed_memory

Item = TypeVar("Item")
Result = TypeVar("Result")

SHOWN_FAILURES = 5
SWITCH_SECONDS = 2e-4
"""After which a thread gives Python's lock to one that waits; 5 ms cost a fifth of labelling."""


@dataclass(frozen=True)
class EngineOptions:
    """Where and how blocks are run.

    Attributes
    ----------
    workers : parallel tasks; by default one per core.
    scheduler : address of a running Dask scheduler to use in place of an own cluster.
    """

    workers: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ParameterError(f"workers must be at least 1, found {self.workers}")

    @property
    def lanes(self) -> int:
        """The number of tasks that run side by side."""
        return self.workers or available_cores()


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_kept: ContextVar[Client | None] = ContextVar("kept", default=None)


@contextmanager
def one_cluster(options: EngineOptions) -> Iterator[None]:
    """Run all blocks within on one cluster, in place of one cluster for each stage."""
    if _kept.get() is not None:
        yield
        return
    with _client(options) as client:
        token = _kept.set(client)
        try:
            yield
        finally:
            _kept.reset(token)


@contextmanager
def _client(options: EngineOptions) -> Iterator[Client]:
    """Connect to a scheduler, or start an in-process cluster that listens to this machine only."""
    kept = _kept.get()
    if kept is not None:
        yield kept
        return
    quiet = {
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        # it calls sys._current_frames, in which Python 3.11 can lock up for good: there a garbage
        # collection may let other threads run while the list of all threads is locked
        "distributed.worker.profile.enabled": False,
    }
    keep_freed_memory()
    with dask.config.set(quiet):
        if options.scheduler is not None:
            with Client(options.scheduler, timeout="30s") as client:
                yield client
            return
        sys.setswitchinterval(SWITCH_SECONDS)
        with (
            LocalCluster(
                n_workers=1,
                threads_per_worker=options.lanes,
                processes=False,
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
                silence_logs=50,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client


def run_blocks(
    task: Callable[[Item], Result],
    items: Iterable[Item],
    options: EngineOptions,
    *,
    on_result: Callable[[Item, Result], Iterable[Item] | None],
) -> None:
    """Run ``task`` on every item, never holding more of them in the scheduler than it can use.

    Parameters
    ----------
    task : picklable callable
        Reads, computes and writes by itself; returns a few numbers.
    items : iterable of picklable items
        Consumed as the work proceeds; its repr names an item in messages.
    options : EngineOptions
    on_result : callable
        Called here, in order of completion. The items that it returns, if any, run next.

    Raises
    ------
    BlockError
        If any item failed, after all others were done; the message names them.
    InputError
        If a task found the input unusable: the same for every block, so the run stops at once.
    """
    source, urgent = iter(items), deque[Item]()
    failures: list[tuple[Item, BaseException]] = []
    with _client(options) as client:
        lanes = max(sum(client.ncores().values()), 1)
        window, pending = 2 * lanes + 2, as_completed(raise_errors=False)
        running: dict[object, Item] = {}
        while True:
            while len(running) < window and (item := _next(urgent, source)) is not None:
                future = client.submit(task, item, pure=False)
                running[future.key] = item
                pending.add(future)
            if not running:
                break
            future = next(pending)
            item = running.pop(future.key)
            if future.status == "finished":
                urgent.extend(on_result(item, future.result()) or ())
            else:
                error = future.exception() or RuntimeError(f"the task was {future.status}")
                if isinstance(error, InputError):
                    raise error
                failures.append((item, error))
            del future
    if failures:
        raise BlockError(_describe(failures)) from failures[0][1]


def _next(urgent: deque[Item], source: Iterator[Item]) -> Item | None:
    return urgent.popleft() if urgent else next(source, None)


def _describe(failures: list[tuple[Item, BaseException]]) -> str:
    lines = [f"{item}: {type(e).__name__}: {e}" for item, e in failures[:SHOWN_FAILURES]]
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"and {len(failures) - SHOWN_FAILURES} more")
    listed = "\n  ".join(lines)
    return (
        f"{len(failures)} block(s) failed; what is missing is not marked as done, and running the "
        f"same command again does only that:\n  {listed}"
    )
