"""Clusters that may be asked for in place of this process's threads: workers here, or a queue's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from volseg.errors import ParameterError
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
    """Read a cluster's options from a table, such as a TOML file.

    Raises
    ------
    ParameterError
        If it holds something unknown, or out of range.
    """
    return ClusterOptions(**{**read_fields(ClusterOptions, table, where), "kind": kind})
