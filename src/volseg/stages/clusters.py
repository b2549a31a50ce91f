"""Where blocks are run: threads of this process, workers of this machine, or a queue's jobs."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from logging import CRITICAL
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster, Nanny, Scheduler, SpecCluster
from distributed.deploy.cluster import Cluster
from distributed.utils import silence_logging_cmgr

from volseg.errors import ParameterError, WorkError
from volseg.stages.memory import keep_freed_memory
from volseg.training.fields import read_fields

SWITCH_SECONDS = 2e-4
"""After which a thread gives Python's lock to one that waits; 5 ms cost a fifth of labelling."""
SEND_SECONDS = 1e-3
"""How long a client of an own cluster keeps a message back, to send others with it; else 10 ms."""
CONNECT_SECONDS = 30
QUEUES = {"slurm": "SLURMCluster", "lsf": "LSFCluster", "pbs": "PBSCluster"}
KINDS = ("local", *QUEUES)
GPU = "GPU"
"""The resource that workers with a GPU announce to Dask."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
_NAMES_GPU = re.compile(r"\d+|(GPU|MIG)-.+").fullmatch

SETTINGS: dict[str, Any] = {
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # it calls sys._current_frames, in which Python 3.11 can lock up for good: there a garbage
    # collection may let other threads run while the list of all threads is locked
    "distributed.worker.profile.enabled": False,
    # what to try again, and how often, is decided in `volseg.stages.engine_run`
    "distributed.scheduler.allowed-failures": 0,
}
"""Dask's, for workers that hold few blocks, and no results."""
_EXPORTS = [f"export DASK_{k.replace('.', '__').upper()}={v}" for k, v in SETTINGS.items()]


@dataclass(frozen=True)
class ClusterOptions:
    """A cluster to start, and what its workers are.

    Attributes
    ----------
    kind : ``local``, or the queue that jobs are sent to.
    workers : how many, or the most of them where ``minimum`` is given.
    minimum : as few as this while there is less to do; None keeps all of them.
    cores, memory : of one worker; memory as the queue takes it, such as ``64GB``.
    gpus : of one worker, announced to Dask as the resource GPU.
    walltime, queue, account : of a job, as the queue takes them.
    directives : further lines of the job's header, without the queue's own prefix.
    prologue : lines that a job runs before its worker, such as ``module load cuda``.
    interface : network interface of the workers, such as ``ib0``.
    log_directory : where the jobs' output goes.
    """

    kind: str = "local"
    workers: int = 1
    minimum: int | None = None
    cores: int = 4
    memory: str = "32GB"
    gpus: int = 0
    walltime: str = "24:00:00"
    queue: str | None = None
    account: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    interface: str | None = None
    log_directory: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ParameterError(f"a cluster is one of {', '.join(KINDS)}, found {self.kind!r}")
        if self.workers < 1 or self.cores < 1 or self.gpus < 0:
            raise ParameterError(
                f"a cluster needs at least one worker with one core, found {self.workers} with "
                f"{self.cores} cores and {self.gpus} GPUs"
            )
        if self.minimum is not None and not 0 <= self.minimum <= self.workers:
            raise ParameterError(
                f"the fewest workers are between 0 and all {self.workers}, found {self.minimum}"
            )


def read_cluster(kind: str, table: Mapping[str, Any], where: str) -> ClusterOptions:
    """Read a cluster's options from a table, such as a TOML file.

    Raises
    ------
    ParameterError
        If it holds something unknown, or out of range.
    """
    return ClusterOptions(**{**read_fields(ClusterOptions, table, where), "kind": kind})


@contextmanager
def connect(lanes: int, scheduler: str | None, cluster: ClusterOptions | None) -> Iterator[Client]:
    """Connect to a scheduler, or start a cluster; its traffic stays on this machine if it can.

    Parameters
    ----------
    lanes : threads of this process, where nothing else is asked for
    scheduler : address of one that is running
    cluster : to start

    Raises
    ------
    WorkError
        If there is no scheduler at that address.
    ParameterError
        If dask-jobqueue is needed, and not there.
    """
    keep_freed_memory()
    with dask.config.set(SETTINGS):
        if scheduler is not None:
            try:
                client = Client(scheduler, timeout=CONNECT_SECONDS)
            except (OSError, TimeoutError, ValueError) as error:
                raise WorkError(f"no Dask scheduler answers at {scheduler}: {error}") from error
            # a scheduler that is gone is said once, by whoever works with it
            with silence_logging_cmgr(CRITICAL), client:
                yield client
            return
        with start_cluster(lanes, cluster) as started, Client(started) as client:
            if cluster is not None:
                # a worker is there once something was done: some start only for that
                try:
                    client.submit(int, pure=False).result()
                except KilledWorker as error:
                    raise WorkError("no worker of the cluster stays alive") from error
            client.loop.add_callback(_send_soon, client)
            yield client


def _send_soon(client: Client) -> None:
    """Let a client send what it has: it waits for more, as long as a small block takes."""
    sender = client.scheduler_comm
    if sender is not None:  # as it is while a connection is made again
        sender.interval, sender.next_deadline = SEND_SECONDS, None
        sender.waker.set()  # for what may wait already


def start_cluster(lanes: int, options: ClusterOptions | None) -> Cluster:
    """Start a cluster; the caller closes it.

    Raises
    ------
    WorkError
        If its workers do not start.
    ParameterError
        If dask-jobqueue is needed, and not there, or more GPUs than there are.
    """
    if options is None:
        return _threads(lanes)
    if options.kind == "local":
        try:
            return _processes(options)
        except RuntimeError as error:
            raise WorkError(f"the workers do not start: {error}; give the command again") from error
    cluster = queue_cluster(options)
    if options.minimum is None:
        cluster.scale(jobs=options.workers)
    else:
        cluster.adapt(minimum_jobs=options.minimum, maximum_jobs=options.workers)
    started: Cluster = cluster
    return started


def _threads(lanes: int) -> Cluster:
    sys.setswitchinterval(SWITCH_SECONDS)
    return LocalCluster(
        n_workers=1,
        threads_per_worker=lanes,
        processes=False,
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        silence_logs=50,
    )


def _processes(options: ClusterOptions) -> Cluster:
    """Start workers of this machine, each with GPUs of its own, if there are any."""
    worker = {"nthreads": options.cores, "host": "127.0.0.1", "silence_logs": 50}
    workers = {
        k: {"cls": Nanny, "options": {**worker, **own}}
        for k, own in enumerate(_share_gpus(options.workers, options.gpus))
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
    }
    return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=50)


def _share_gpus(workers: int, gpus: int) -> list[dict[str, Any]]:
    """Set up each worker with GPUs of its own, among those that this process may use."""
    if not gpus:
        return [{}] * workers
    visible = visible_gpus()
    if workers * gpus > len(visible):
        raise ParameterError(
            f"{workers} worker(s) with {gpus} GPU(s) each need {workers * gpus}, found "
            f"{len(visible)} ({VISIBLE} is {os.environ.get(VISIBLE, 'not set')}); give fewer "
            f"`workers` or `gpus` in --cluster-config"
        )
    shares = (visible[k * gpus : (k + 1) * gpus] for k in range(workers))
    return [{"env": {VISIBLE: ",".join(own)}, "resources": {GPU: gpus}} for own in shares]


def visible_gpus() -> list[str]:
    """Name the GPUs that this process may use: others may have been given to somebody else."""
    listed = os.environ.get(VISIBLE)
    if listed is not None:
        # CUDA itself stops reading at the first name that is none, such as -1
        return list(takewhile(_NAMES_GPU, (name.strip() for name in listed.split(","))))
    import torch

    return [str(k) for k in range(torch.cuda.device_count())]


def queue_cluster(options: ClusterOptions) -> Any:
    """Make a cluster of a queue's jobs, without any job yet; one worker each."""
    try:
        jobqueue = importlib.import_module("dask_jobqueue")
    except ImportError as error:
        raise ParameterError(
            f"--cluster {options.kind} needs dask-jobqueue: pip install 'volseg[cluster]'"
        ) from error
    own = {"account": options.account} if options.kind != "lsf" else {"project": options.account}
    extra = ["--resources", f"{GPU}={options.gpus}"] if options.gpus else []
    return getattr(jobqueue, QUEUES[options.kind])(
        cores=options.cores,
        processes=1,
        memory=options.memory,
        walltime=options.walltime,
        queue=options.queue,
        job_extra_directives=list(options.directives),
        job_script_prologue=[*_EXPORTS, *options.prologue],
        worker_extra_args=extra,
        interface=options.interface,
        log_directory=options.log_directory,
        **own,
    )
