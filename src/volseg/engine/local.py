"""Dask's local scheduler runs windows in threads of this process; see `docs/decisions/0050`."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

from volseg.engine.pool import BLOCKS, WINDOWS, Pool
from volseg.engine.steps import Failure, Graph, Outcome, Trial
from volseg.errors import WorkError

CLOSE_SECONDS, SILENT_SECONDS = 30.0, 1.0
"""Longest wait for blocks after an interrupt, and the part of it without a message."""
MOST_WINDOWS = 1000
"""More than are ever under way: each ends with its last block, but for those that hang."""


class LocalScheduler:
    """Runs each window's graph by `dask.local.get_async`, all on the same threads; close it."""

    died: tuple[type[BaseException], ...] = ()
    """Errors that say that a worker died: here the process would."""

    def __init__(self, threads: int) -> None:
        self._process = os.getpid()
        self._blocks, self._windows = Pool(BLOCKS, threads), Pool(WINDOWS, MOST_WINDOWS)
        self._hanging: set[threading.Thread] = set()
        self._closed = False

    def start(self, graph: Graph, window: Sequence[Trial], arrived: SimpleQueue[Trial]) -> None:
        """Begin with a window; each trial is put into ``arrived`` when it is back."""
        watched = {
            trial.key: (_Watched(trial, graph[trial.key][0], arrived), *graph[trial.key][1:])
            for trial in window
        }
        self._windows.submit(_run_window, self._blocks, watched, window, arrived)

    def collect(
        self,
        trials: Sequence[Trial],
        arrived: SimpleQueue[Trial],  # noqa: ARG002 - nothing is lost here
    ) -> Sequence[Trial]:
        """Raise what kept a window from running; the outcomes are here."""
        for trial in trials:
            if trial.error is not None:
                raise trial.error
        return trials

    def lanes(self, *, on_gpu: bool) -> int:  # noqa: ARG002 - all have the same
        """Count how many items run side by side."""
        return self._blocks.most

    def wait_for_workers(self, since: float, most: float) -> None:
        """Do nothing: threads are there, or `check` says that they are not."""

    def is_overdue(self, trial: Trial, seconds: float, lanes: int) -> bool:  # noqa: ARG002
        """Tell whether a trial has taken longer than so many seconds for each of its items."""
        under_way = trial.began > 0 and trial.outcome is None
        return under_way and time.monotonic() - trial.began > seconds * len(trial.steps)

    def check(self) -> None:
        """Check that the threads are those of this process, and there."""
        if self._closed or self._process != os.getpid():
            raise WorkError("the threads of this run have ended, or are another process's")

    def give_up(self, trial: Trial) -> bool:
        """Note the thread of a trial that hangs; tell that it is lost: nobody can end it."""
        if isinstance(trial.handle, threading.Thread):
            self._hanging.add(trial.handle)
        return False

    def close(self) -> None:
        """End the threads; wait for what they do, but not for ever, nor for what hangs."""
        self._closed = True
        self._windows.close()
        self._blocks.close()
        hanging = frozenset(self._hanging)
        if not self._blocks.join(SILENT_SECONDS, hanging):
            warnings.warn(
                f"waiting for the blocks that run, for {CLOSE_SECONDS:g} s at most; interrupt it "
                f"again to leave them",
                stacklevel=1,
            )
            self._blocks.join(CLOSE_SECONDS, hanging)


def _run_window(
    blocks: Pool, graph: Graph, window: Sequence[Trial], arrived: SimpleQueue[Trial]
) -> None:
    from dask.local import get_async

    try:
        # all that is ready waits at the threads, not here: none of them waits for this one
        get_async(blocks.submit, len(graph), graph, list(graph))
    except BaseException as error:  # noqa: BLE001 - it is raised where the run is directed
        for trial in window:
            trial.error = error
            arrived.put(trial)


@dataclass(frozen=True)
class _Watched:
    """A node that notes when and where it begins, and reports by itself.

    Dask keeps what a node returns until its window is done, so that is no result.
    """

    trial: Trial
    call: Callable[..., Outcome]
    arrived: SimpleQueue[Trial]

    def __call__(self, *sources: Outcome) -> Outcome:
        trial = self.trial
        if trial.given_up:
            return None
        trial.handle, trial.began = threading.current_thread(), time.monotonic()
        outcome = self.call(*sources)
        light = _without_results(outcome)
        trial.outcome = outcome
        self.arrived.put(trial)
        return light


def _without_results(outcome: Outcome) -> Outcome:
    if outcome is None:
        return None
    return [one if isinstance(one, Failure) else None for one in outcome]
