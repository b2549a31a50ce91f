"""Dask's distributed scheduler runs windows: workers of this machine, of a queue, of others."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from logging import CRITICAL
from queue import SimpleQueue

import dask
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed import Client, KilledWorker
from distributed.utils import silence_logging_cmgr

from volseg.engine.clusters import ClusterOptions
from volseg.engine.dask_clusters import GPU, SETTINGS, start_cluster
from volseg.engine.steps import Failure, Graph, Outcome, Trial
from volseg.errors import WorkError

CONNECT_SECONDS = 30
GPU_SHARE = 2.0**-10
"""Of a worker's GPU, for an item that needs one: its threads share it, and sums stay exact."""
SLACK_SECONDS = 1.0
"""Time that an item may take beyond its limit: messages take time, too."""


@contextmanager
def remote_scheduler(
    address: str | None, cluster: ClusterOptions | None
) -> Iterator[RemoteScheduler]:
    """Connect to a scheduler, or start a cluster; its traffic stays on this machine if it can.

    Parameters
    ----------
    address : of a scheduler that is running
    cluster : to start in place of that

    Raises
    ------
    WorkError
        If there is no scheduler at that address.
    ParameterError
        If dask-jobqueue is needed, and not there.
    """
    with dask.config.set(SETTINGS):
        if address is not None:
            try:
                client = Client(address, timeout=CONNECT_SECONDS)
            except (OSError, TimeoutError, ValueError) as error:
                raise WorkError(f"no Dask scheduler answers at {address}: {error}") from error
            # a scheduler that is gone is said once, by whoever works with it
            with silence_logging_cmgr(CRITICAL), client:
                yield RemoteScheduler(client)
            return
        with start_cluster(cluster or ClusterOptions()) as started, Client(started) as client:
            # a worker is there once something was done: some start only for that
            try:
                client.submit(int, pure=False).result()
            except KilledWorker as error:
                raise WorkError("no worker of the cluster stays alive") from error
            yield RemoteScheduler(client)


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of the connection: a task's own comes back with its item
        raise WorkError(
            f"the connection to the scheduler is lost ({error}); what is done is on record, and "
            f"the same command again does the rest"
        ) from error


class RemoteScheduler:
    """Runs each window's graph by `distributed.Client.get`; see `volseg.engine.local`."""

    died: tuple[type[BaseException], ...] = (KilledWorker,)

    def __init__(self, client: Client) -> None:
        self.client = client
        self._announced = False

    @_connected()
    def start(self, graph: Graph, window: Sequence[Trial], arrived: SimpleQueue[Trial]) -> None:
        """Send a window in one message; each trial is put into ``arrived`` when it is back."""
        sent = {key: (_SendBack(node[0]), *node[1:]) for key, node in graph.items()}
        on_gpu = {t.key for t in window if self._announced and any(s.on_gpu for s in t.steps)}
        keys = [trial.key for trial in window]
        futures = self.client.get(_in_layers(sent, on_gpu), keys, sync=False)
        for future, trial in zip(futures, window, strict=True):
            trial.handle = future
            future.add_done_callback(lambda _, back=trial: arrived.put(back))

    @_connected()
    def collect(self, trials: Sequence[Trial]) -> None:
        """Fetch what has come back, all in one message."""
        finished = [t for t in trials if t.handle.status == "finished"]
        outcomes = self.client.gather([t.handle for t in finished])
        for trial, outcome in zip(finished, outcomes, strict=True):
            trial.outcome = outcome
        for trial in set(trials).difference(finished):
            error = trial.handle.exception() if trial.handle.status == "error" else None
            trial.error = error or RuntimeError(f"the task was {trial.handle.status}")

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
        """Give up at once: a scheduler that is gone takes what it knew with it.

        Raises
        ------
        WorkError
            If it is gone.
        """
        if self.client.status != "running":
            raise WorkError(
                f"the connection to the scheduler is {self.client.status}; what is done is on "
                f"record, and the same command again does the rest"
            )

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


@dataclass(frozen=True)
class _SendBack:
    """A node whose errors can travel, with the text of their tracebacks as a note."""

    call: Callable[..., Outcome]

    def __call__(self, *sources: Outcome) -> Outcome:
        outcome = self.call(*sources)
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
