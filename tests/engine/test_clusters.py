"""Clusters: what is asked of a queue, and workers that are processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from distributed import Client, LocalCluster

from toy_cluster import QUIET
from volseg.engine.dask_clusters import queue_cluster, start_cluster
from volseg.engine.options import ClusterOptions, EngineOptions, read_cluster
from volseg.engine.run import run_blocks
from volseg.errors import ParameterError, WorkError
from volseg.stages.predict.network import AUTO_ELSEWHERE, PredictOptions, find_device
from volseg.stages.segment.run import one_worker_per_gpu

TABLE = {
    "workers": 8,
    "cores": 6,
    "memory": "64GB",
    "gpus": 1,
    "walltime": "08:00:00",
    "queue": "gpu",
    "account": "em-lab",
    "directives": ["--gres=gpu:1"],
    "prologue": ["module load cuda"],
    "interface": "lo",
}
LINES = {
    "slurm": "-p gpu|-A em-lab|--cpus-per-task=6|--mem=60G|-t 08:00:00|--gres=gpu:1",
    "lsf": '-q gpu|-P "em-lab"|-n 6|-W 08:00:00',
    "pbs": "-q gpu|-A em-lab|-l select=1:ncpus=6:mem=60GB|-l walltime=08:00:00",
}


@pytest.mark.parametrize("kind", LINES)
def test_a_queue_is_asked_for_what_the_file_says(kind):
    pytest.importorskip("dask_jobqueue")
    options = read_cluster(kind, TABLE, "gpu.toml")
    with queue_cluster(options) as cluster:
        script = cluster.job_script()
    prefix = {"slurm": "#SBATCH", "lsf": "#BSUB", "pbs": "#PBS"}[kind]
    assert not [line for line in LINES[kind].split("|") if f"{prefix} {line}\n" not in script]
    commands = script.splitlines()
    worker = commands[-1] or commands[-2]
    assert "--nthreads 6" in worker
    assert "--resources GPU=1" in worker
    assert "tcp://127.0.0.1" in worker
    before = script[: script.index(worker)]
    assert "module load cuda" in before
    assert "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False" in before


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"worker": 3}, "worker"),
        ({"workers": "3"}, "workers"),
        ({"workers": 0}, "at least one worker"),
        ({"workers": 2, "minimum": 3}, "between 0 and all 2, found 3"),
    ],
)
def test_a_file_that_says_something_else_is_refused(table, message):
    with pytest.raises(ParameterError, match=message):
        read_cluster("slurm", table, "gpu.toml")


def test_what_contradicts_itself_is_refused():
    with pytest.raises(ParameterError, match="one of local, slurm"):
        ClusterOptions("cloud")
    with pytest.raises(ParameterError, match="not both"):
        EngineOptions(scheduler="tcp://127.0.0.1:1", cluster=ClusterOptions())


def test_no_scheduler_is_a_clear_error(monkeypatch):
    monkeypatch.setattr("volseg.engine.remote.CONNECT_SECONDS", 1)
    with pytest.raises(WorkError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_blocks(abs, [1], EngineOptions(scheduler="tcp://127.0.0.1:9"))


@pytest.mark.parametrize(
    "elsewhere", [{"scheduler": "tcp://127.0.0.1:9"}, {"cluster": ClusterOptions()}]
)
def test_what_clusters_need_is_named_where_it_is_missing(monkeypatch, elsewhere):
    for name in [m for m in sys.modules if m.split(".")[0] == "distributed"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "volseg.engine.remote", raising=False)
    monkeypatch.delitem(sys.modules, "volseg.engine.dask_clusters", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(ParameterError, match=r"distributed: pip install 'volseg\[cluster\]'"):
        run_blocks(abs, [1], EngineOptions(**elsewhere))
    results = {}
    run_blocks(abs, [-1], EngineOptions(workers=1), on_result=results.__setitem__)
    assert results == {-1: 1}


class Missing:
    """Finds no distributed, as if it was not installed."""

    def find_spec(self, name, *_):
        if name.split(".")[0] == "distributed":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


WHERE = "(__import__('os').getpid(), __import__('os').environ.get('CUDA_VISIBLE_DEVICES'))"


def test_each_worker_of_this_machine_has_its_own_of_the_visible_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-8c2f,3,7,1")
    found = set()
    options = EngineOptions(cluster=ClusterOptions(workers=2, cores=1, gpus=2))
    run_blocks(eval, [WHERE] * 12, options, on_result=lambda _, w: found.add(w))
    assert os.getpid() not in {process for process, _ in found}
    assert {gpus for _, gpus in found} == {"5,GPU-8c2f", "3,7"}


@pytest.mark.parametrize("listed", ["2,3", "2,3,-1,0", "", None])
def test_more_gpus_than_are_visible_are_refused(monkeypatch, listed):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    message = rf"3 worker.* need 3, found {0 if listed == '' else 2} \(CUDA_VISIBLE_DEVICES is "
    with pytest.raises(ParameterError, match=message):
        start_cluster(ClusterOptions(workers=3, gpus=1))


def test_several_gpus_are_used_unless_something_else_is_wished_for(monkeypatch):
    options = PredictOptions(model="emnet")
    assert one_worker_per_gpu(options) == options.engine
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    cluster = one_worker_per_gpu(options).cluster
    assert (cluster.kind, cluster.workers, cluster.gpus) == ("local", 4, 1)
    assert one_worker_per_gpu(replace(options, device="cpu")) == options.engine
    own = EngineOptions(cluster=ClusterOptions(workers=2))
    assert one_worker_per_gpu(replace(options, engine=own)) == own


@pytest.mark.parametrize(("asked", "workers", "cores"), [(9, 4, 2), (3, 3, 1)])
def test_several_gpus_run_no_more_blocks_at_a_time_than_are_wished_for(
    monkeypatch, asked, workers, cores
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    engine = one_worker_per_gpu(PredictOptions(engine=EngineOptions(workers=asked)))
    assert (engine.cluster.workers, engine.cluster.cores, engine.workers) == (workers, cores, None)
    one = EngineOptions(workers=1)
    assert one_worker_per_gpu(PredictOptions(engine=one)) == one


def test_blocks_at_a_time_are_those_of_the_cluster():
    engine = EngineOptions(cluster=ClusterOptions("slurm", workers=8, cores=6))
    assert (engine.processes, engine.threads) == (8, 6)
    here = EngineOptions(workers=5)
    assert (here.processes, here.threads) == (1, 5)


def test_workers_elsewhere_may_have_what_this_machine_lacks(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ParameterError, match="no CUDA device"):
        find_device("cuda", "auto", EngineOptions())
    queue = EngineOptions(cluster=ClusterOptions("slurm", gpus=1))
    assert find_device("cuda", "auto", queue) == ("cuda", "bfloat16")
    assert find_device("auto", "auto", queue) == ("cuda", "bfloat16")
    assert find_device("cuda", "float32", queue) == ("cuda", "float32")
    assert find_device("cpu", "auto", queue)[0] == "cpu"
    with pytest.raises(
        ParameterError, match="a precision is auto, float32, bfloat16 or tf32, found"
    ):
        find_device("cuda", "float16", queue)


@pytest.mark.parametrize("fast", [True, False])
def test_what_this_machine_multiplies_decides_nothing_for_others(monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: fast)
    here = "bfloat16" if fast else "float32"
    queue = EngineOptions(cluster=ClusterOptions("lsf"))
    for engine in (EngineOptions(), EngineOptions(cluster=ClusterOptions("local"))):
        assert find_device("cpu", "auto", engine) == ("cpu", here)
    for engine in (EngineOptions(scheduler="tcp://a:1"), queue):
        assert find_device("cpu", "auto", engine) == ("cpu", AUTO_ELSEWHERE["cpu"])
        assert find_device("cpu", "bfloat16", engine) == ("cpu", "bfloat16")


def test_a_queue_that_keeps_no_worker_starts_one(monkeypatch):
    def start(*_, **__):
        cluster = LocalCluster(n_workers=0, processes=False, **QUIET)
        cluster.adapt(minimum=0, maximum=1, interval="50ms")
        return cluster

    monkeypatch.setattr("volseg.engine.remote.start_cluster", start)
    # where it waits for a worker, that is for nothing
    monkeypatch.setattr(Client, "wait_for_workers", lambda *_: pytest.fail("waits for a worker"))
    results = {}
    engine = EngineOptions(cluster=ClusterOptions("slurm", minimum=0))
    run_blocks(abs, [-1, -2], engine, on_result=results.__setitem__)
    assert results == {-1: 1, -2: 2}


def test_workers_of_this_machine_do_not_look_at_the_frames_of_their_threads():
    # sys._current_frames can lock up Python 3.11 for good, see `volseg.engine.dask_clusters`
    def frames_looked_at(_):
        """Count how often anybody looks while a task runs that is long enough for a profiler."""
        looked, original = [], sys._current_frames
        sys._current_frames = lambda: looked.append(1) or original()
        try:
            time.sleep(0.1)
        finally:
            sys._current_frames = original
        return len(looked)

    found = set()
    engine = EngineOptions(cluster=ClusterOptions(cores=1))
    run_blocks(frames_looked_at, range(4), engine, on_result=lambda _, n: found.add(n))
    assert found == {0}


def test_a_script_whose_calls_the_workers_would_repeat_is_told_what_to_do(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from volseg.engine.options import ClusterOptions, EngineOptions\n"
        "from volseg.engine.run import run_blocks\n"
        "run_blocks(print, [1], EngineOptions(cluster=ClusterOptions()))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "put its calls into a file, below `if __name__ == '__main__':`" in done.stderr
