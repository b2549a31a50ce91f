"""Start Dask's clusters: workers of this machine, or a queue's jobs."""

from __future__ import annotations

import importlib
import os
import re
from itertools import takewhile
from typing import Any

from distributed import Nanny, Scheduler, SpecCluster, Status

from volseg.engine.options import QUEUES, ClusterOptions
from volseg.errors import ParameterError, WorkError, require

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
    # what to try again, and how often, is decided in `volseg.engine.windows`
    "distributed.scheduler.allowed-failures": 0,
    # a worker that is started again is dropped for good after so long: 15 s are too few where
    # Python starts from a slow disk
    "distributed.deploy.lost-worker-timeout": "300s",
}
"""Dask's, for workers that hold few blocks, and no results."""
_EXPORTS = [f"export DASK_{k.replace('.', '__').upper()}={v}" for k, v in SETTINGS.items()]


def start_cluster(options: ClusterOptions, *, dashboard: bool = False) -> SpecCluster:
    """Start a cluster, with a dashboard for this machine alone on request; the caller closes it."""
    if options.kind == "local":
        try:
            return _processes(options, dashboard)
        except RuntimeError as error:
            raise WorkError(
                "the workers do not start; give the command again, or in Python, if a script has "
                "called this: put its calls into a file, below `if __name__ == '__main__':`"
            ) from error
    cluster = queue_cluster(options, dashboard=dashboard)
    if options.minimum is None:
        cluster.scale(jobs=options.workers)
    else:
        cluster.adapt(minimum_jobs=options.minimum, maximum_jobs=options.workers)
    started: SpecCluster = cluster
    return started


def has_ended(cluster: SpecCluster) -> bool:
    """Tell whether no worker of a cluster is there, or will be again."""
    ended = {Status.closing_gracefully, Status.closed, Status.failed}
    return all(worker.status in ended for worker in cluster.workers.values())


def _served(dashboard: bool) -> dict[str, Any]:
    return {"dashboard": dashboard, "dashboard_address": "127.0.0.1:0"}


def _processes(options: ClusterOptions, dashboard: bool) -> SpecCluster:
    """Start workers of this machine, each with GPUs of its own, if there are any."""
    worker = {"nthreads": options.cores, "host": "127.0.0.1", "silence_logs": 50}
    workers = {
        k: {"cls": Nanny, "options": {**worker, **own}}
        for k, own in enumerate(_share_gpus(options.workers, options.gpus))
    }
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", **_served(dashboard)}}
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


def queue_cluster(options: ClusterOptions, *, dashboard: bool = False) -> Any:
    """Make a cluster of a queue's jobs, without any job yet; one worker each."""
    require("dask_jobqueue", "cluster", f"--cluster {options.kind} needs dask-jobqueue")
    jobqueue = importlib.import_module("dask_jobqueue")
    own = {"account": options.account} if options.kind != "lsf" else {"project": options.account}
    extra = ["--resources", f"{GPU}={options.gpus}"] if options.gpus else []
    return getattr(jobqueue, QUEUES[options.kind])(
        cores=options.cores,
        processes=1,
        memory=options.memory,
        walltime=options.walltime,
        queue=options.queue,
        scheduler_options=_served(dashboard),
        job_extra_directives=list(options.directives),
        job_script_prologue=[*_EXPORTS, *options.prologue],
        worker_extra_args=extra,
        interface=options.interface,
        log_directory=options.log_directory,
        **own,
    )
