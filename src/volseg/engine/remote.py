"""Dask's distributed scheduler runs windows: workers of this machine, of a queue, of others."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from logging import CRITICAL
from queue import SimpleQueue

import dask
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed import Client, KilledWorker, SpecCluster
from distributed.protocol.pickle import dumps, loads
from distributed.utils import silence_logging_cmgr

from volseg.engine.dask_clusters import GPU, SETTINGS, has_ended, start_cluster
from volseg.engine.options import ClusterOptions, EngineOptions
from volseg.engine.steps import SAME_AGAIN, Failure, Graph, Outcome, Trial, has_failed
from volseg.errors import Notice, WorkError

CONNECT_SECONDS, RESTART_SECONDS = 30, 30
FETCH_SECONDS = 60
"""For results, which are a few numbers; longer only if one was lost and is computed again."""
GPU_SHARE = 2.0**-10
"""Of a worker's GPU, for an item that needs one: its threads share it, and sums stay exact."""
SLACK_SECONDS = 1.0
"""Time that an item may take beyond its limit: messages take time, too."""


@contextmanager
def remote_scheduler(options: EngineOptions) -> Iterator[RemoteScheduler]:
    """Connect to a scheduler, or start a cluster; its traffic stays on this machine if it can."""
    with dask.config.set(SETTINGS):
        if options.scheduler is not None:
            try:
                client = Client(options.scheduler, timeout=CONNECT_SECONDS)
            except (OSError, TimeoutError, ValueError) as error:
                place = options.scheduler
                raise WorkError(f"no Dask scheduler answers at {place}") from error
            # a scheduler that is gone is said once, by whoever works with it
            with silence_logging_cmgr(CRITICAL), client:
                if options.dashboard:
                    _tell_dashboard(client)
                yield RemoteScheduler(client)
            return
        cluster = options.cluster or ClusterOptions()
        start = start_cluster(cluster, dashboard=options.dashboard)
        with _closed_at_the_end(start) as started, Client(started) as client:
            if options.dashboard:
                _tell_dashboard(client)
            # a worker is there once something was done: some start only for that
            try:
                client.submit(int, pure=False).result()
            except KilledWorker as error:
                raise WorkError("no worker of the cluster stays alive") from error
            yield RemoteScheduler(client, started, grows=cluster.minimum is not None)


@contextmanager
def _closed_at_the_end(cluster: SpecCluster) -> Iterator[SpecCluster]:
    """Close a cluster; a worker that only just starts then fails no work that is done."""
    started = cluster.__enter__()
    try:
        yield started
    finally:
        with suppress(AssertionError):  # distributed joins a process that it has not started yet
            cluster.__exit__(None, None, None)


def _tell_dashboard(client: Client) -> None:
    where = client.dashboard_link or "the scheduler serves none"
    warnings.warn(f"Dask's dashboard: {where}", Notice, stacklevel=2)


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of the connection: a task's own comes back with its item
        raise WorkError(f"the connection to the scheduler is lost; {SAME_AGAIN}") from error


class RemoteScheduler:
    """Runs each window's graph by `distributed.Client.get`; see `volseg.engine.local`."""

    died: tuple[type[BaseException], ...] = (KilledWorker,)

    def __init__(
        self, client: Client, started: SpecCluster | None = None, *, grows: bool = False
    ) -> None:
        self.client, self._started, self._grows = client, started, grows
        self._announced = self._warned = False

    @_connected()
    def start(self, graph: Graph, window: Sequence[Trial], arrived: SimpleQueue[Trial]) -> None:
        """Send a window in one message; each trial is put into ``arrived`` when it is back."""
        items = {trial.key: len(trial.steps) for trial in window}
        sent = {
            key: (_SendBack(dumps(node[0]), items[key]), *node[1:]) for key, node in graph.items()
        }
        on_gpu = {t.key for t in window if self._announced and any(s.on_gpu for s in t.steps)}
        keys = [trial.key for trial in window]
        futures = self.client.get(_in_layers(sent, on_gpu), keys, sync=False)
        for future, trial in zip(futures, window, strict=True):
            trial.handle = future
            _announce(trial, arrived)

    @_connected()
    def collect(self, trials: Sequence[Trial], arrived: SimpleQueue[Trial]) -> Sequence[Trial]:
        """Fetch what has come back, all in one message; the others come into ``arrived`` again."""
        status = {trial: trial.handle.status for trial in trials}
        failed = [t for t in trials if status[t] in {"error", "cancelled"}]
        for trial in failed:
            error = trial.handle.exception() if status[trial] == "error" else None
            trial.error = error or RuntimeError("the task was cancelled")
        finished = [t for t in trials if status[t] == "finished"]
        fetch = partial(self.client.gather, [t.handle for t in finished], asynchronous=True)
        try:
            outcomes = self.client.sync(fetch, callback_timeout=FETCH_SECONDS)
        except (TimeoutError, KilledWorker):
            finished = outcomes = []
        for trial, outcome in zip(finished, outcomes, strict=True):
            trial.outcome = outcome
        # what a worker has died with is computed again by Dask, which may take long, or fail
        for trial in set(trials).difference(finished, failed):
            _announce(trial, arrived)
        return [*finished, *failed]

    @_connected()
    def lanes(self, *, on_gpu: bool) -> int:
        """Count the workers' threads; where some announce a GPU and it is needed, only theirs."""
        if not on_gpu:
            return sum(self.client.ncores().values())
        workers = list(self.client.scheduler_info(n_workers=-1)["workers"].values())
        with_gpu = [w for w in workers if w["resources"].get(GPU, 0) >= GPU_SHARE]
        # once there were some, items wait until there are some again: others lack what it takes
        self._announced = self._announced or bool(with_gpu)
        return sum(w["nthreads"] for w in (with_gpu if self._announced else workers))

    def is_overdue(self, trial: Trial, seconds: float, lanes: int) -> bool:
        """Tell whether a trial takes too long; it may have waited for others of its worker's."""
        limit = seconds * (3 + 2 // lanes) * len(trial.steps) + SLACK_SECONDS
        under_way = not trial.waits_for and not trial.handle.done()
        return under_way and time.monotonic() - trial.due > limit

    def check(self) -> None:
        """Give up at once: a scheduler that is gone takes what it knew with it."""
        if self.client.status != "running":
            raise WorkError(
                f"the connection to the scheduler is {self.client.status}; {SAME_AGAIN}"
            )
        if self._started is not None and not self._grows and has_ended(self._started):
            raise WorkError(f"all workers of the cluster have ended; {SAME_AGAIN}")

    def wait_for_workers(self, since: float, most: float) -> None:
        """Say once that no worker comes; a queue may take its time, others so many seconds."""
        kind = "worker with a GPU" if self._announced else "worker"
        if self._started is None and since > most:
            raise WorkError(
                f"the scheduler has had no {kind} for {since:.0f} s (--block-timeout is "
                f"{most:g}); {SAME_AGAIN}"
            )
        if since > RESTART_SECONDS and not self._warned:
            self._warned = True
            warnings.warn(f"there is no {kind} left; waiting for one to come", stacklevel=2)

    @_connected()
    def give_up(self, trial: Trial) -> bool:
        """Forget a trial that hangs; tell whether its worker could be restarted."""
        key = trial.handle.key
        workers = [w for w, keys in self.client.processing().items() if key in keys]
        trial.handle.cancel(force=True)
        known = self.client.scheduler_info(n_workers=-1)["workers"]
        if not all(known.get(w, {}).get("nanny") for w in workers):
            return False
        with suppress(TimeoutError):
            self.client.restart_workers(workers, timeout=CONNECT_SECONDS)
        return True


def _in_layers(graph: Graph, on_gpu: set[str]) -> Graph | HighLevelGraph:
    """Cut a graph into what needs a GPU and what does not: Dask annotates layers."""
    if not on_gpu:
        return graph
    parts = {"gpu": on_gpu, "any": graph.keys() - on_gpu}
    layers = {
        name: MaterializedLayer(
            {key: graph[key] for key in keys},
            annotations={"resources": {GPU: GPU_SHARE}} if name == "gpu" else None,
        )
        for name, keys in parts.items()
    }
    sources = {name: {s for key in keys for s in graph[key][1:]} for name, keys in parts.items()}
    needed = {
        name: {other for other in parts if other != name and parts[other] & sources[name]}
        for name in parts
    }
    return HighLevelGraph(layers, needed)


def _announce(trial: Trial, arrived: SimpleQueue[Trial]) -> None:
    trial.handle.add_done_callback(lambda _: arrived.put(trial))


@dataclass(frozen=True)
class _SendBack:
    """A node whose errors can travel, with the text of their tracebacks as a note.

    It is unpickled here: Dask's workers close, one after the other, where they cannot read a task.
    """

    pickled: bytes
    items: int

    def __call__(self, *sources: Outcome) -> Outcome:
        if has_failed(sources):
            return None
        try:
            call = loads(self.pickled)
        except Exception as error:  # noqa: BLE001 - whatever an import may raise
            lacking = getattr(error, "name", None) or "a package, or the same version of volseg"
            unread = WorkError(f"a worker lacks what the work needs: {lacking}; install it there")
            return [_packed(Failure(unread))] * self.items
        outcome: Outcome = call(*sources)
        if outcome is None:
            return None
        return [_packed(one) if isinstance(one, Failure) else one for one in outcome]


def _packed(failure: Failure) -> Failure:
    error = failure.error
    told = "".join(traceback.format_exception(error))
    # errors of other libraries may not survive the way; a copy leaves frames behind
    known = type(error).__module__.partition(".")[0] in {"builtins", "volseg"}
    sent = copy(error) if known else RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note(f"on a worker:\n{told}")
    return Failure(sent)
