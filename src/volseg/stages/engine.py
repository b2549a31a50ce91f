"""Run one function over many blocks on dask.distributed: windowed, and honest about failures."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from distributed import Client, Future

from volseg.blocks import Block
from volseg.errors import BlockError, InputError, ParameterError, WorkError
from volseg.stages.clusters import CONNECT_SECONDS, ClusterOptions, connect

Item = TypeVar("Item")
Result = TypeVar("Result")

SHOWN_FAILURES = 5
ATTEMPTS = 3
"""How often an item is tried: a worker may die, a disk be away for a moment."""
PAUSE_SECONDS = 0.2
"""Before an item is tried again, where nothing else is left to do; doubled each time."""
BLOCK_SECONDS = 3600.0
AHEAD_SECONDS, MOST_AHEAD = 1.0, 64
"""How much work, and how many items, a lane has waiting: short blocks come and go in batches."""
WATCH_SECONDS = 5.0
"""How often it is looked whether an item takes too long, or the scheduler has gone."""


@dataclass(frozen=True)
class EngineOptions:
    """Where and how blocks are run.

    Attributes
    ----------
    workers : parallel tasks; by default one per core.
    scheduler : address of a running Dask scheduler to use in place of an own cluster.
    cluster : a cluster to start in place of that; None for threads of this process.
    block_seconds : how long a block may take before its worker is taken to hang.
    """

    workers: int | None = None
    scheduler: str | None = None
    cluster: ClusterOptions | None = None
    block_seconds: float = BLOCK_SECONDS

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ParameterError(f"workers must be at least 1, found {self.workers}")
        if not self.block_seconds > 0:
            raise ParameterError(f"a block needs more than 0 seconds, found {self.block_seconds}")
        if self.scheduler is not None and self.cluster is not None:
            raise ParameterError("give a running scheduler or a cluster to start, not both")

    @property
    def elsewhere(self) -> bool:
        """Whether the workers may be other machines than this one."""
        queued = self.cluster is not None and self.cluster.kind != "local"
        return self.scheduler is not None or queued

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
    kept = _kept.get()
    if kept is not None:
        yield kept
        return
    with connect(options.lanes, options.scheduler, options.cluster) as client:
        yield client


def run_blocks(
    task: Callable[[Item], Result],
    items: Iterable[Item],
    options: EngineOptions,
    *,
    on_result: Callable[[Item, Result], Iterable[Item] | None],
) -> None:
    """Run ``task`` on every item, never holding more of them in the scheduler than it can use.

    What fails is tried again after all others, up to `ATTEMPTS` times.

    Parameters
    ----------
    task : picklable callable
        Reads, computes and writes by itself, the same if it runs twice; returns a few numbers.
    items : iterable of picklable items
        Consumed as the work proceeds; its text names an item in messages.
    options : EngineOptions
    on_result : callable
        Called here, in order of completion. The items that it returns, if any, run next.

    Raises
    ------
    BlockError
        If any item failed, after all others were done; it lists them.
    WorkError
        If the scheduler is lost.
    InputError
        If a task found the input unusable: the same for every block, so the run stops at once.
    """
    with _client(options) as client:
        run = _Run(client, options, task, iter(items))
        while (trial := run.wait()) is not None:
            if trial.error is None:
                run.urgent.extend(on_result(trial.item, trial.result) or ())
            elif isinstance(trial.error, InputError):
                raise trial.error
            else:
                run.fail(trial)
    if run.failures:
        raise BlockError(_describe(run.failures), _blocks_of(run.failures)) from run.failures[0][1]


@dataclass
class _Trial(Generic[Item]):
    """An item on its way through the cluster, and how it came back."""

    item: Item
    attempt: int = 1
    since: float = 0.0
    first_error: BaseException | None = None
    result: Any = None
    error: BaseException | None = None


class _Run(Generic[Item]):
    """The client's side: what is running, what comes next, what has failed."""

    def __init__(
        self,
        client: Client,
        options: EngineOptions,
        task: Callable[[Item], Any],
        source: Iterator[Item],
    ) -> None:
        self.client, self.options, self.task, self.source = client, options, task, source
        self.urgent: deque[Item] = deque()
        self.again: deque[_Trial[Item]] = deque()
        self.failures: list[tuple[Item, BaseException]] = []
        self._running: dict[Any, tuple[Future[Any], _Trial[Item]]] = {}
        self._arrived: SimpleQueue[Future[Any]] = SimpleQueue()
        self._back: deque[_Trial[Item]] = deque()
        self._hung, self._lanes, self._looked = 0, 1, -math.inf
        self._begun, self._done = time.monotonic(), 0

    def wait(self) -> _Trial[Item] | None:
        """Keep the cluster busy until an item is back; None when all is done."""
        while True:
            if time.monotonic() - self._looked > WATCH_SECONDS:
                overdue = self._look()
                if overdue is not None:
                    return overdue
            if self._back:
                return self._back.popleft()
            self._submit(self._window() - len(self._running))
            if not self._running:
                return None
            try:
                futures = [self._arrived.get(timeout=WATCH_SECONDS)]
            except Empty:
                continue
            while not self._arrived.empty():
                futures.append(self._arrived.get())
            self._receive([f for f in futures if f.key in self._running])  # others were given up

    def _window(self) -> int:
        """Say how many items may be submitted: as many more as are done in a moment."""
        seconds = (time.monotonic() - self._begun) * self._lanes / max(self._done, 1)
        ahead = min(max(AHEAD_SECONDS / max(seconds, 1e-9), 1), MOST_AHEAD) if self._done else 1
        return int(self._lanes * (1 + ahead)) + 2

    def _receive(self, futures: list[Future[Any]]) -> None:
        finished = [f for f in futures if f.status == "finished"]
        results = dict(zip(finished, self.client.gather(finished), strict=True))
        for future in futures:
            _, trial = self._running.pop(future.key)
            if future in results:
                trial.result = results[future]
            else:
                error = future.exception() if future.status == "error" else None
                trial.error = error or RuntimeError(f"the task was {future.status}")
            self._back.append(trial)
        self._done += len(futures)

    def fail(self, trial: _Trial[Item]) -> None:
        """Put an item back, or give it up."""
        # the first reason is the reason: what was damaged may be missing the second time
        error = trial.first_error or trial.error or RuntimeError("no reason is known")
        # a block that says itself what is wrong will say so again
        if trial.attempt < ATTEMPTS and not isinstance(error, BlockError):
            self.again.append(_Trial(trial.item, trial.attempt + 1, first_error=error))
        else:
            self.failures.append((trial.item, error))

    def _submit(self, count: int) -> None:
        """Submit what comes next, at most so many items."""
        trials = list(itertools.islice(iter(self._next, None), max(count, 0)))
        for trial in trials:
            trial.since = time.monotonic()
        futures = self.client.map(self.task, [t.item for t in trials], pure=False) if trials else []
        for future, trial in zip(futures, trials, strict=True):
            self._running[future.key] = future, trial
            future.add_done_callback(self._arrived.put)

    def _next(self) -> _Trial[Item] | None:
        if self.urgent:
            return _Trial(self.urgent.popleft())
        if (item := next(self.source, _NOTHING)) is not _NOTHING:
            return _Trial(item)
        if not self.again:
            return None
        trial = self.again.popleft()
        if not self._running:
            time.sleep(PAUSE_SECONDS * 2 ** (trial.attempt - 2))
        return trial

    def _look(self) -> _Trial[Item] | None:
        """Count the workers, which may come and go; return an item that takes too long."""
        self._looked = time.monotonic()
        if self.client.status != "running":
            raise WorkError(
                f"the connection to the scheduler is {self.client.status}; what is done is on "
                f"record, and the same command again does the rest"
            )
        self._lanes = max(sum(self.client.ncores().values()), 1)
        # an item may have waited for others in the window
        limit = self.options.block_seconds * (3 + 2 // self._lanes) + AHEAD_SECONDS
        for key, (future, trial) in self._running.items():
            if self._looked - trial.since > limit:
                self._give_up(key, future)
                trial.error = TimeoutError(
                    f"no answer within {self.options.block_seconds:g} s: its worker hangs, or "
                    f"--block-timeout is too short"
                )
                return trial
        return None

    def _give_up(self, key: Any, future: Future[Any]) -> None:
        """Forget an item that hangs, and its worker if that can be restarted."""
        del self._running[key]
        workers = [w for w, keys in self.client.processing().items() if key in keys]
        future.cancel(force=True)
        try:
            self.client.restart_workers(workers, timeout=CONNECT_SECONDS)
        except (ValueError, TimeoutError):
            # a thread of this process cannot be ended
            self._hung += 1
            if self._hung >= self._lanes:
                raise WorkError(
                    f"all {self._lanes} worker(s) hang; what is done is on record, and the same "
                    f"command again does the rest"
                ) from None


_NOTHING: Any = object()


def _blocks_of(failures: list[tuple[Any, BaseException]]) -> tuple[Block, ...]:
    """List the blocks among what failed."""
    found = (getattr(item, "block", item) for item, _ in failures)
    return tuple(block for block in found if isinstance(block, Block))


def _describe(failures: list[tuple[Any, BaseException]]) -> str:
    lines = [f"{item}: {type(e).__name__}: {e}" for item, e in failures[:SHOWN_FAILURES]]
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"and {len(failures) - SHOWN_FAILURES} more")
    listed = "\n  ".join(lines)
    return (
        f"{len(failures)} block(s) failed; what is missing is not marked as done, and running the "
        f"same command again does only that:\n  {listed}"
    )
