"""Dask's workers run trials: those of this machine, of a queue, or of a scheduler that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from logging import CRITICAL
from queue import SimpleQueue
from typing import Any

import dask
from distributed import Client, KilledWorker
from distributed.utils import silence_logging_cmgr

from volseg.engine.clusters import ClusterOptions
from volseg.engine.dask_clusters import GPU, SETTINGS, start_cluster
from volseg.engine.trials import Trial
from volseg.errors import WorkError

SEND_SECONDS = 1e-3
"""How long a client of an own cluster keeps a message back, to send others with it; else 10 ms."""
CONNECT_SECONDS = 30
GPU_SHARE = 2.0**-10
"""Of a worker's GPU, for an item that needs one: its threads share it, and sums stay exact."""


@contextmanager
def connect(scheduler: str | None, cluster: ClusterOptions | None) -> Iterator[DaskWorkers]:
    """Connect to a scheduler, or start a cluster; its traffic stays on this machine if it can.

    Parameters
    ----------
    scheduler : address of one that is running
    cluster : to start in place of that

    Raises
    ------
    WorkError
        If there is no scheduler at that address.
    ParameterError
        If dask-jobqueue is needed, and not there.
    """
    with dask.config.set(SETTINGS):
        if scheduler is not None:
            try:
                client = Client(scheduler, timeout=CONNECT_SECONDS)
            except (OSError, TimeoutError, ValueError) as error:
                raise WorkError(f"no Dask scheduler answers at {scheduler}: {error}") from error
            # a scheduler that is gone is said once, by whoever works with it
            with silence_logging_cmgr(CRITICAL), client:
                yield DaskWorkers(client)
            return
        with start_cluster(cluster or ClusterOptions()) as started, Client(started) as client:
            # a worker is there once something was done: some start only for that
            try:
                client.submit(int, pure=False).result()
            except KilledWorker as error:
                raise WorkError("no worker of the cluster stays alive") from error
            client.loop.add_callback(_send_soon, client)
            yield DaskWorkers(client)


def _send_soon(client: Client) -> None:
    """Let a client send what it has: it waits for more, as long as a small block takes."""
    sender = client.scheduler_comm
    if sender is not None:  # as it is while a connection is made again
        sender.interval, sender.next_deadline = SEND_SECONDS, None
        sender.waker.set()  # for what may wait already


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of the connection: a task's own comes back with its item
        raise WorkError(
            f"the connection to the scheduler is lost ({error}); what is done is on record, and "
            f"the same command again does the rest"
        ) from error


class DaskWorkers:
    """What `volseg.engine.trials.Run` needs of a cluster; see `Workers` there."""

    died: tuple[type[BaseException], ...] = (KilledWorker,)

    def __init__(self, client: Client) -> None:
        self.client = client
        self._announced = False

    @_connected()
    def send(
        self,
        task: Callable[[Any], Any],
        trials: Sequence[Trial[Any]],
        arrived: SimpleQueue[Trial[Any]],
        *,
        on_gpu: bool,
    ) -> None:
        """Submit trials, all in one message."""
        resources = {GPU: GPU_SHARE} if on_gpu and self._announced else None
        items = [t.item for t in trials]
        futures = self.client.map(task, items, pure=False, resources=resources)
        for future, trial in zip(futures, trials, strict=True):
            trial.handle = future
            future.add_done_callback(lambda _, done=trial: arrived.put(done))

    @_connected()
    def collect(self, trials: Sequence[Trial[Any]]) -> None:
        """Fetch what has come back, all in one message."""
        finished = [t for t in trials if t.handle.status == "finished"]
        results = self.client.gather([t.handle for t in finished])
        for trial, result in zip(finished, results, strict=True):
            trial.result = result
        for trial in set(trials).difference(finished):
            error = trial.handle.exception() if trial.handle.status == "error" else None
            trial.error = error or RuntimeError(f"the task was {trial.handle.status}")

    @_connected()
    def count(self, *, on_gpu: bool) -> int:
        """Count the workers' threads; where some announce a GPU and it is needed, only theirs."""
        if not on_gpu:
            return sum(self.client.ncores().values())
        workers = list(self.client.scheduler_info(n_workers=-1)["workers"].values())
        with_gpu = [w for w in workers if w["resources"].get(GPU, 0) >= GPU_SHARE]
        # once there were some, items wait until there are some again: others lack what it takes
        self._announced = self._announced or bool(with_gpu)
        return sum(w["nthreads"] for w in (with_gpu if self._announced else workers))

    def check(self) -> None:
        """Give up at once: a scheduler that is gone takes what it knew with it."""
        if self.client.status != "running":
            raise WorkError(
                f"the connection to the scheduler is {self.client.status}; what is done is on "
                f"record, and the same command again does the rest"
            )

    @_connected()
    def give_up(self, trial: Trial[Any]) -> bool:
        """Forget a trial that hangs, and restart its worker if that can be done."""
        key = trial.handle.key
        workers = [w for w, keys in self.client.processing().items() if key in keys]
        trial.handle.cancel(force=True)
        known = self.client.scheduler_info(n_workers=-1)["workers"]
        if not all(known.get(w, {}).get("nanny") for w in workers):
            return False
        with suppress(TimeoutError):
            self.client.restart_workers(workers, timeout=CONNECT_SECONDS)
        return True
