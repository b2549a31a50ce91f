"""What the client of a run keeps: which items run, which come next, and which have failed."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from distributed import Client, Future, KilledWorker

from volseg.errors import BlockError, WorkError
from volseg.stages.clusters import CONNECT_SECONDS, GPU

Item = TypeVar("Item")

ATTEMPTS = 3
"""How often an item is tried: a worker may die, a disk be away for a moment."""
PAUSE_SECONDS = 0.2
"""Before an item is tried again, where nothing else is left to do; doubled each time."""
AHEAD_SECONDS, MOST_AHEAD = 1.0, 64
"""How much work, and how many items, a lane has waiting: short blocks come and go in batches."""
WATCH_SECONDS = 5.0
"""How often it is looked whether an item takes too long, or the scheduler has gone."""
GPU_SHARE = 2.0**-10
"""Of a worker's GPU, for an item that needs one: its threads share it, and sums stay exact."""
_NOTHING: Any = object()


@dataclass
class Trial(Generic[Item]):
    """An item on its way through the cluster, and how it came back."""

    item: Item
    attempt: int = 1
    since: float = 0.0
    first_error: BaseException | None = None
    result: Any = None
    error: BaseException | None = None

    @property
    def suspect(self) -> bool:
        """Whether this is the last trial of an item whose worker died each time."""
        return self.attempt == ATTEMPTS and isinstance(self.first_error, KilledWorker)


class Run(Generic[Item]):
    """The client's side: what is running, what comes next, what has failed."""

    def __init__(
        self,
        client: Client,
        block_seconds: float,
        task: Callable[[Item], Any],
        source: Iterator[Item],
        on_gpu: type | None = None,
    ) -> None:
        self.client, self.task, self.source = client, task, source
        self.on_gpu, self._announced = on_gpu, False
        self.block_seconds = block_seconds
        self.urgent: deque[Item] = deque()
        self.again: deque[Trial[Item]] = deque()
        self.failures: list[tuple[Item, BaseException]] = []
        self._running: dict[Any, tuple[Future[Any], Trial[Item]]] = {}
        self._arrived: SimpleQueue[Future[Any]] = SimpleQueue()
        self._back: deque[Trial[Item]] = deque()
        self._alone = False
        self._hung, self._lanes, self._looked = 0, 1, -math.inf
        self._begun, self._done = time.monotonic(), 0

    def wait(self) -> Trial[Item] | None:
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
        self._check_connection()
        finished = [f for f in futures if f.status == "finished"]
        results = dict(zip(finished, self.client.gather(finished), strict=True))
        for future in futures:
            _, trial = self._running.pop(future.key)
            self._alone = False
            if future in results:
                trial.result = results[future]
            else:
                error = future.exception() if future.status == "error" else None
                trial.error = error or RuntimeError(f"the task was {future.status}")
            self._back.append(trial)
        self._done += len(futures)

    def fail(self, trial: Trial[Item]) -> None:
        """Put an item back, or give it up."""
        # the first reason is the reason: what was damaged may be missing the second time
        error = trial.first_error or trial.error or RuntimeError("no reason is known")
        # a block that says itself what is wrong will say so again
        if trial.attempt < ATTEMPTS and not isinstance(error, BlockError):
            self.again.append(Trial(trial.item, trial.attempt + 1, first_error=error))
        else:
            self.failures.append((trial.item, error))

    def _submit(self, count: int) -> None:
        """Submit what comes next, at most so many items."""
        trials: list[Trial[Item]] = []
        while len(trials) < count:
            trial = self._next(idle=not self._running and not trials)
            if trial is None:
                break
            trials.append(trial)
        on_gpu = self.on_gpu if self._announced else None
        anywhere: list[Trial[Item]] = []
        there: list[Trial[Item]] = []
        for trial in trials:
            (there if on_gpu and isinstance(trial.item, on_gpu) else anywhere).append(trial)
        self._send(anywhere, None)
        self._send(there, {GPU: GPU_SHARE})

    def _send(self, trials: list[Trial[Item]], resources: dict[str, float] | None) -> None:
        if not trials:
            return
        for trial in trials:
            trial.since = time.monotonic()
        items = [t.item for t in trials]
        futures = self.client.map(self.task, items, pure=False, resources=resources)
        for future, trial in zip(futures, trials, strict=True):
            self._running[future.key] = future, trial
            future.add_done_callback(self._arrived.put)

    def _next(self, *, idle: bool) -> Trial[Item] | None:
        if self._alone:
            return None
        if self.urgent:
            return Trial(self.urgent.popleft())
        if (item := next(self.source, _NOTHING)) is not _NOTHING:
            return Trial(item)
        # an item is blamed for the death of a worker that also had another one: the last time,
        # it has all workers to itself
        suspect = bool(self.again) and self.again[0].suspect
        if not self.again or (suspect and not idle):
            return None
        self._alone = suspect
        trial = self.again.popleft()
        if idle:
            time.sleep(PAUSE_SECONDS * 2 ** (trial.attempt - 2))
        return trial

    def _look(self) -> Trial[Item] | None:
        """Count the workers, which may come and go; return an item that takes too long."""
        self._looked = time.monotonic()
        self._check_connection()
        self._lanes = max(self._count_threads(), 1)
        # an item may have waited for others in the window
        limit = self.block_seconds * (3 + 2 // self._lanes) + AHEAD_SECONDS
        for key, (future, trial) in self._running.items():
            if self._looked - trial.since > limit:
                self._give_up(key, future)
                trial.error = TimeoutError(
                    f"no answer within {self.block_seconds:g} s: its worker hangs, or "
                    f"--block-timeout is too short"
                )
                return trial
        return None

    def _count_threads(self) -> int:
        """Count the workers' threads; where some announce a GPU and it is needed, only theirs."""
        if self.on_gpu is None:
            return sum(self.client.ncores().values())
        workers = list(self.client.scheduler_info(n_workers=-1)["workers"].values())
        with_gpu = [w for w in workers if w["resources"].get(GPU, 0) >= GPU_SHARE]
        # once there were some, items wait until there are some again: others lack what it takes
        self._announced = self._announced or bool(with_gpu)
        return sum(w["nthreads"] for w in (with_gpu if self._announced else workers))

    def _check_connection(self) -> None:
        """Give up at once: a scheduler that is gone takes what it knew with it."""
        if self.client.status != "running":
            raise WorkError(
                f"the connection to the scheduler is {self.client.status}; what is done is on "
                f"record, and the same command again does the rest"
            )

    def _give_up(self, key: Any, future: Future[Any]) -> None:
        """Forget an item that hangs, and its worker if that can be restarted."""
        del self._running[key]
        self._alone = False
        workers = [w for w, keys in self.client.processing().items() if key in keys]
        future.cancel(force=True)
        known = self.client.scheduler_info(n_workers=-1)["workers"]
        if all(known.get(w, {}).get("nanny") for w in workers):
            with suppress(TimeoutError):
                self.client.restart_workers(workers, timeout=CONNECT_SECONDS)
            return
        # nobody can end a thread of this process
        self._hung += 1
        if self._hung >= self._lanes:
            raise WorkError(
                f"all {self._lanes} worker(s) hang; what is done is on record, and the same "
                f"command again does the rest"
            )
