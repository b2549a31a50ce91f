"""Options for running blocks: in this process, on a cluster, or at a running scheduler."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from volseg.defaults import BLOCK_TIMEOUT
from volseg.errors import ParameterError, require
from volseg.fields import read_fields

QUEUES = {"slurm": "SLURMCluster", "lsf": "LSFCluster", "pbs": "PBSCluster"}
"""Their classes in dask-jobqueue."""
KINDS = ("local", *QUEUES)


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
    """Read a cluster's options from a table, such as a TOML file."""
    return ClusterOptions(**{**read_fields(ClusterOptions, table, where), "kind": kind})


def check_workers(workers: int | None) -> None:
    """Check a number of workers, where one is given."""
    if workers is not None and workers < 1:
        raise ParameterError(f"workers must be at least 1, found {workers}")


@dataclass(frozen=True)
class EngineOptions:
    """Options for running blocks; see `volseg.api.options.Running`.

    Without a scheduler or a cluster, threads of this process run them. The address of the
    dashboard is told as a `volseg.errors.Notice`.
    """

    workers: int | None = None
    scheduler: str | None = None
    cluster: ClusterOptions | None = None
    block_seconds: float = BLOCK_TIMEOUT
    dashboard: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if not self.block_seconds > 0:
            raise ParameterError(f"a block needs more than 0 seconds, found {self.block_seconds}")
        if self.scheduler is not None and self.cluster is not None:
            raise ParameterError("give a running scheduler or a cluster to start, not both")
        if self.dashboard:
            self._check_dashboard()
        if self.workers is not None and self.cluster is not None:
            raise ParameterError(
                f"--workers {self.workers} is for this process alone; how many blocks a --cluster "
                f"runs at a time is `workers` times `cores` in --cluster-config"
            )
        if self.workers is not None and self.scheduler is not None:
            raise ParameterError(
                f"--workers {self.workers} is for this process alone; leave it out, and start as "
                f"many workers as you like at the scheduler {self.scheduler}"
            )

    def _check_dashboard(self) -> None:
        if self.scheduler is None and self.cluster is None:
            raise ParameterError(
                "--dashboard shows Dask's workers, and threads of this process are none; give a "
                "--cluster or a --scheduler"
            )
        if self.cluster is not None:
            require("bokeh", "cluster", "--dashboard needs bokeh")

    @property
    def elsewhere(self) -> bool:
        """Tell whether workers may run on other machines."""
        queued = self.cluster is not None and self.cluster.kind != "local"
        return self.scheduler is not None or queued

    @property
    def processes(self) -> int:
        """The number of processes that run tasks, at most."""
        return 1 if self.cluster is None else self.cluster.workers

    @property
    def threads(self) -> int:
        """The number of tasks that share the memory of one process."""
        return self.workers or available_cores() if self.cluster is None else self.cluster.cores


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
