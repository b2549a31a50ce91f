"""A run over many steps: what is under way, what comes next, what has failed."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from volseg.engine.steps import SAME_AGAIN, Failure, Step, Trial, build_graph, name_of
from volseg.errors import BlockError, InputError, WorkError

if TYPE_CHECKING:
    from volseg.engine.local import LocalScheduler
    from volseg.engine.remote import RemoteScheduler

    Scheduler: TypeAlias = LocalScheduler | RemoteScheduler

ATTEMPTS = 3
"""Tries of an item: a worker may die, a disk may be away for a moment."""
PAUSE_SECONDS = 0.2
"""Before an item is tried again, where nothing else is left to do; doubled each time."""
AHEAD_SECONDS, MOST_AHEAD = 1.0, 64
"""Work, and most items, that wait in a lane: short blocks come and go in batches."""
WATCH_SECONDS = 5.0
"""Interval of the checks for items that take too long and for a lost scheduler."""


@dataclass(eq=False)
class _Held:
    """A step that waits for others outside of its window."""

    step: Step[Any]
    outstanding: set[Hashable]


@dataclass(frozen=True)
class _Again:
    """A step that failed and is tried again."""

    step: Step[Any]
    attempt: int
    first_error: BaseException


class Windows:
    """The client's side: which steps go into the next window, and what is learnt of each.

    A window is sent when half of the one before is back, so no worker ever waits for its end. A
    step goes into the window in which the last of those that it waits for is, or in a later one if
    others are still under way in an earlier one.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        task: Callable[[Any], Any],
        steps: Iterator[Step[Any]],
        *,
        batch: int,
        block_seconds: float,
    ) -> None:
        self.scheduler, self.task, self.source = scheduler, task, steps
        self.batch, self.block_seconds = batch, block_seconds
        self.failures: list[tuple[Any, BaseException]] = []
        self._running: dict[Trial, None] = {}  # in the order in which they were sent
        self._arrived: SimpleQueue[Trial] = SimpleQueue()
        self._ready: deque[Step[Any]] = deque()
        self._again: deque[_Again] = deque()
        self._undone: set[Hashable] = set()
        self._held: dict[Hashable, list[_Held]] = {}
        self._alone, self._on_gpu = False, False
        self._active, self._hung, self._done, self._lanes = 0, 0, 0, 1
        self._begun = self._manned = time.monotonic()
        self._looked = -math.inf
        self._name, self._number = f"{name_of(task)}-{uuid4().hex}", 0

    def results(self) -> Iterator[tuple[Any, Any]]:
        """Yield items with their results as they come in, until nothing is left that can be done.

        Raises
        ------
        InputError
            If an item found the input unusable.
        WorkError
            If nothing will come back any more.
        """
        while True:
            self._watch()
            self._fill()
            if not self._running:
                return
            for trial in self._arrivals():
                if trial in self._running:  # others were taken back with what they wait for
                    yield from self._receive(trial)

    def leave(self) -> None:
        """Let go of what is under way, if the work was broken off."""
        for trial in self._running:
            trial.given_up = True

    def _arrivals(self) -> Sequence[Trial]:
        try:
            trials = [self._arrived.get(timeout=WATCH_SECONDS)]
        except Empty:
            return []
        while not self._arrived.empty():
            trials.append(self._arrived.get())
        trials = [t for t in trials if t in self._running]  # others were given up
        self.scheduler.check()
        return self.scheduler.collect(trials, self._arrived)

    def _receive(self, trial: Trial) -> Iterator[tuple[Any, Any]]:
        """Learn what became of a trial; yield what was done."""
        if trial.error is not None:
            self._take_back(trial)  # Dask blames them for what they wait for
            # what waits for others was not tried itself: they were lost with a worker
            trial.outcome = None if trial.waits_for else [Failure(trial.error)] * len(trial.steps)
        self._remove(trial)
        outcome, trial.outcome = trial.outcome, None
        if outcome is None:
            for step in trial.steps:
                self._hold_or_ready(step)
            return
        for step, one in zip(trial.steps, outcome, strict=True):
            if isinstance(one, Failure):
                self._fail(trial, step, one.error)
            else:
                self._finish(step)
                yield step.item, one

    def _remove(self, trial: Trial) -> None:
        """Take a trial from what is under way; what waits for it alone may begin."""
        del self._running[trial]
        self._alone = False
        self._active -= not trial.waits_for
        self._done += len(trial.steps)
        for other in trial.dependents:
            other.waits_for.discard(trial)
            if other in self._running and not other.waits_for:
                other.due = time.monotonic()
                self._active += 1

    def _finish(self, step: Step[Any]) -> None:
        """Let those go on that have waited for a step."""
        if step.name is None:
            return
        self._undone.discard(step.name)
        for held in self._held.pop(step.name, ()):
            held.outstanding.discard(step.name)
            if not held.outstanding:
                self._ready.append(held.step)

    def _fail(self, trial: Trial, step: Step[Any], error: BaseException) -> None:
        """Try a step again later, or give it up."""
        if isinstance(error, InputError):
            raise error
        # the first reason is the reason: what was damaged may be missing the second time
        error = trial.first_error or error
        # a block that says itself what is wrong will say so again
        if trial.attempt < ATTEMPTS and not isinstance(error, BlockError):
            self._again.append(_Again(step, trial.attempt + 1, error))
        else:
            self.failures.append((step.item, error))

    def _hold_or_ready(self, step: Step[Any]) -> None:
        """Keep a step until all that it waits for is done."""
        held = _Held(step, {name for name in step.after if name in self._undone})
        for name in held.outstanding:
            self._held.setdefault(name, []).append(held)
        if not held.outstanding:
            self._ready.append(step)

    def _fill(self) -> None:
        """Send a window, if half of what the scheduler should have is back."""
        seconds = (time.monotonic() - self._begun) * self._lanes / max(self._done, 1)
        ahead = min(max(AHEAD_SECONDS / max(seconds, 1e-9), 1), MOST_AHEAD) if self._done else 1
        wanted = int(self._lanes * (1 + ahead)) + 2
        if self._alone or self._active > wanted // 2:
            return
        count = wanted - self._active
        window = self._next_window(count) or self._next_again(count)
        if not window:
            return
        if not self._on_gpu and any(step.on_gpu for trial in window for step in trial.steps):
            self._on_gpu = True
            self._count_lanes()
        for trial in window:
            trial.due = time.monotonic()
            self._running[trial] = None
            self._active += not trial.waits_for
        self.scheduler.start(build_graph(self.task, window), window, self._arrived)

    def _next_window(self, count: int) -> list[Trial]:
        """Choose steps: so many trials that wait for nothing, and what waits for these alone."""
        window: list[Trial] = []
        here: dict[Hashable, Trial] = {}
        while count > 0:
            steps = [s for _ in range(self.batch) if (s := self._next_step(here)) is not None]
            if not steps:
                break
            trial = self._new_trial(steps)
            trial.waits_for.update(here[n] for step in steps for n in step.after if n in here)
            for source in trial.waits_for:
                source.dependents.append(trial)
            here.update((step.name, trial) for step in steps if step.name is not None)
            window.append(trial)
            count -= not trial.waits_for
        return window

    def _next_step(self, here: Mapping[Hashable, Trial]) -> Step[Any] | None:
        """Choose a step that waits for nothing outside of its window."""
        if self._ready:
            return self._ready.popleft()
        for step in self.source:
            if step.name is not None:
                self._undone.add(step.name)
            if all(name in here or name not in self._undone for name in step.after):
                return step
            self._hold_or_ready(step)
        return None

    def _next_again(self, count: int) -> list[Trial]:
        """Choose what has failed and is tried again, once nothing else is left to be sent."""
        window: list[Trial] = []
        idle = not self._running
        while self._again and not self._alone and len(window) < count:
            # a step is blamed for the death of a worker that also had others: the last time, it
            # has all workers to itself
            again = self._again[0]
            suspect = again.attempt == ATTEMPTS and isinstance(
                again.first_error, self.scheduler.died
            )
            if suspect and (window or not idle):
                break
            self._again.popleft()
            window.append(self._new_trial([again.step], again.attempt, again.first_error))
            self._alone = suspect
        if window and idle:
            time.sleep(PAUSE_SECONDS * 2 ** (window[0].attempt - 2))
        return window

    def _new_trial(self, steps: Sequence[Step[Any]], *earlier: Any) -> Trial:
        self._number += 1
        return Trial(f"{self._name}-{self._number}", steps, *earlier)

    def _watch(self) -> None:
        """Count the workers, which may come and go; give up what takes too long."""
        if time.monotonic() - self._looked < WATCH_SECONDS:
            return
        self.scheduler.check()
        self._count_lanes()
        for trial in list(self._running):
            if trial in self._running and self.scheduler.is_overdue(
                trial, self.block_seconds, self._lanes
            ):
                self._give_up(trial)

    def _count_lanes(self) -> None:
        """Count the workers; while there are none nothing is late, and they are waited for."""
        self._looked = now = time.monotonic()
        lanes = self.scheduler.lanes(on_gpu=self._on_gpu)
        self._lanes = max(lanes, 1)
        if lanes:
            self._manned = now
            return
        for trial in self._running:
            trial.due = now
        self.scheduler.wait_for_workers(now - self._manned, self.block_seconds)

    def _give_up(self, trial: Trial) -> None:
        """Forget a trial that hangs, and its worker if that can be restarted."""
        self._take_back(trial)
        self._remove(trial)
        trial.given_up = True
        if not self.scheduler.give_up(trial):
            self._hung += 1
            if self._hung >= self._lanes:
                raise WorkError(f"all {self._lanes} worker(s) hang; {SAME_AGAIN}")
        error = TimeoutError(
            f"no answer within {self.block_seconds:g} s: its worker hangs, or --block-timeout is "
            f"too short"
        )
        for step in trial.steps:
            self._fail(trial, step, error)

    def _take_back(self, trial: Trial) -> None:
        """Hold what waits for a trial that did not come back."""
        for other in trial.dependents:
            if other in self._running:
                self._take_back(other)
                other.given_up = True
                del self._running[other]
                for step in other.steps:
                    self._hold_or_ready(step)
        trial.dependents.clear()
