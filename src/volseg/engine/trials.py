"""A run over many items, whoever does them: what is under way, what is next, what has failed."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from volseg.errors import BlockError, WorkError

Item = TypeVar("Item")

ATTEMPTS = 3
"""How often an item is tried: a worker may die, a disk be away for a moment."""
PAUSE_SECONDS = 0.2
"""Before an item is tried again, where nothing else is left to do; doubled each time."""
AHEAD_SECONDS, MOST_AHEAD = 1.0, 64
"""How much work, and how many items, a lane has waiting: short blocks come and go in batches."""
WATCH_SECONDS = 5.0
"""How often it is looked whether an item takes too long, or the scheduler has gone."""
_NOTHING: Any = object()


@dataclass(eq=False)
class Trial(Generic[Item]):
    """An item on its way through the workers, and how it came back.

    Attributes
    ----------
    attempt : counted from 1
    first_error : of the attempt before
    since : when it was sent
    given_up : nobody waits for it any more
    handle : the workers' own
    result, error : how it came back
    """

    item: Item
    attempt: int = 1
    first_error: BaseException | None = None
    since: float = 0.0
    given_up: bool = False
    handle: Any = None
    result: Any = None
    error: BaseException | None = None


class Workers(Protocol):
    """What runs trials.

    Attributes
    ----------
    died : the errors that say that a worker died, and maybe not of the item.
    """

    died: tuple[type[BaseException], ...]

    def send(
        self,
        task: Callable[[Any], Any],
        trials: Sequence[Trial[Any]],
        arrived: SimpleQueue[Trial[Any]],
        *,
        on_gpu: bool,
    ) -> None:
        """Begin with trials; each is put into ``arrived`` when it is back."""

    def collect(self, trials: Sequence[Trial[Any]]) -> None:
        """Set the results or errors of what has arrived."""

    def count(self, *, on_gpu: bool) -> int:
        """Count how many trials run side by side now."""

    def check(self) -> None:
        """Raise `WorkError` if nothing will come back any more."""

    def give_up(self, trial: Trial[Any]) -> bool:
        """Forget a trial that hangs; tell whether what ran it is free again."""


class Run(Generic[Item]):
    """The client's side: what is running, what comes next, what has failed."""

    def __init__(
        self,
        workers: Workers,
        block_seconds: float,
        task: Callable[[Item], Any],
        source: Iterator[Item],
        on_gpu: type | None = None,
    ) -> None:
        self.workers, self.task, self.source = workers, task, source
        self.on_gpu = on_gpu
        self.block_seconds = block_seconds
        self.urgent: deque[Item] = deque()
        self.again: deque[Trial[Item]] = deque()
        self.failures: list[tuple[Item, BaseException]] = []
        self._running: dict[Trial[Item], None] = {}  # in the order in which they were sent
        self._arrived: SimpleQueue[Trial[Item]] = SimpleQueue()
        self._back: deque[Trial[Item]] = deque()
        self._alone = False
        self._hung, self._lanes, self._looked = 0, 1, -math.inf
        self._begun, self._done = time.monotonic(), 0

    def wait(self) -> Trial[Item] | None:
        """Keep the workers busy until an item is back; None when all is done."""
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
                trials = [self._arrived.get(timeout=WATCH_SECONDS)]
            except Empty:
                continue
            while not self._arrived.empty():
                trials.append(self._arrived.get())
            self._receive([t for t in trials if t in self._running])  # others were given up

    def leave(self) -> None:
        """Let go of what is under way, if the work was broken off."""
        for trial in self._running:
            trial.given_up = True

    def _window(self) -> int:
        """Say how many items may be submitted: as many more as are done in a moment."""
        seconds = (time.monotonic() - self._begun) * self._lanes / max(self._done, 1)
        ahead = min(max(AHEAD_SECONDS / max(seconds, 1e-9), 1), MOST_AHEAD) if self._done else 1
        return int(self._lanes * (1 + ahead)) + 2

    def _receive(self, trials: list[Trial[Item]]) -> None:
        self.workers.check()
        self.workers.collect(trials)
        for trial in trials:
            del self._running[trial]
            self._alone = False
            self._back.append(trial)
        self._done += len(trials)

    def fail(self, trial: Trial[Item]) -> None:
        """Put an item back, or give it up."""
        # the first reason is the reason: what was damaged may be missing the second time
        error = trial.first_error or trial.error or RuntimeError("no reason is known")
        # a block that says itself what is wrong will say so again
        if trial.attempt < ATTEMPTS and not isinstance(error, BlockError):
            self.again.append(Trial(trial.item, trial.attempt + 1, error))
        else:
            self.failures.append((trial.item, error))

    def _submit(self, count: int) -> None:
        """Submit what comes next, at most so many items."""
        anywhere: list[Trial[Item]] = []
        on_gpu: list[Trial[Item]] = []
        while len(anywhere) + len(on_gpu) < count:
            trial = self._next(idle=not (self._running or anywhere or on_gpu))
            if trial is None:
                break
            needs = self.on_gpu is not None and isinstance(trial.item, self.on_gpu)
            (on_gpu if needs else anywhere).append(trial)
        self._send(anywhere, on_gpu=False)
        self._send(on_gpu, on_gpu=True)

    def _send(self, trials: list[Trial[Item]], *, on_gpu: bool) -> None:
        if not trials:
            return
        for trial in trials:
            trial.since = time.monotonic()
            self._running[trial] = None
        self.workers.send(self.task, trials, self._arrived, on_gpu=on_gpu)

    def _next(self, *, idle: bool) -> Trial[Item] | None:
        if self._alone:
            return None
        if self.urgent:
            return Trial(self.urgent.popleft())
        if (item := next(self.source, _NOTHING)) is not _NOTHING:
            return Trial(item)
        # an item is blamed for the death of a worker that also had another one: the last time,
        # it has all workers to itself
        suspect = bool(self.again) and self._is_suspect(self.again[0])
        if not self.again or (suspect and not idle):
            return None
        self._alone = suspect
        trial = self.again.popleft()
        if idle:
            time.sleep(PAUSE_SECONDS * 2 ** (trial.attempt - 2))
        return trial

    def _is_suspect(self, trial: Trial[Item]) -> bool:
        """Tell whether this is the last trial of an item whose worker died each time."""
        return trial.attempt == ATTEMPTS and isinstance(trial.first_error, self.workers.died)

    def _look(self) -> Trial[Item] | None:
        """Count the workers, which may come and go; return an item that takes too long."""
        self._looked = time.monotonic()
        self.workers.check()
        self._lanes = max(self.workers.count(on_gpu=self.on_gpu is not None), 1)
        # an item may have waited for others in the window
        limit = self.block_seconds * (3 + 2 // self._lanes) + AHEAD_SECONDS
        for trial in self._running:
            if self._looked - trial.since > limit:
                self._give_up(trial)
                trial.error = TimeoutError(
                    f"no answer within {self.block_seconds:g} s: its worker hangs, or "
                    f"--block-timeout is too short"
                )
                return trial
        return None

    def _give_up(self, trial: Trial[Item]) -> None:
        """Forget an item that hangs, and its worker if that can be restarted."""
        del self._running[trial]
        trial.given_up, self._alone = True, False
        if self.workers.give_up(trial):
            return
        self._hung += 1
        if self._hung >= self._lanes:
            raise WorkError(
                f"all {self._lanes} worker(s) hang; what is done is on record, and the same "
                f"command again does the rest"
            )
