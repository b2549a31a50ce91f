"""The engine: everything runs, failures are counted and named, follow-ups come next."""

from __future__ import annotations

import os
import threading
import time
from uuid import uuid4

import psutil
import pytest
from distributed import LocalCluster, Scheduler, SpecCluster, Worker, get_worker

from volseg.engine.clusters import ClusterOptions
from volseg.engine.options import EngineOptions
from volseg.engine.run import run_blocks, same_workers
from volseg.errors import BlockError, InputError, ParameterError


def square(n: int) -> int:
    """Square a number; 13 brings bad luck."""
    if n == 13:
        raise ValueError("unlucky")
    return n * n


def unusable(_: int) -> int:
    """Find the input unusable."""
    raise InputError("not usable")


@pytest.fixture(scope="module")
def scheduler():
    """The address of a scheduler with one worker."""
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(params=["one thread", "three threads", "Dask"])
def options(request):
    """Whoever runs the blocks."""
    if request.param == "Dask":
        return EngineOptions(scheduler=request.getfixturevalue("scheduler"))
    return EngineOptions(workers={"one thread": 1, "three threads": 3}[request.param])


def test_every_item_runs_once(options):
    results = {}
    items = (n for n in range(50) if n != 13)
    run_blocks(square, items, options, on_result=results.__setitem__)
    assert results == {n: n * n for n in range(50) if n != 13}


def test_follow_ups_run_too(options):
    seen = []

    def on_result(item, result):
        seen.append(item)
        return [item + 100] if item < 100 else None

    run_blocks(square, range(5), options, on_result=on_result)
    assert sorted(seen) == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]


def test_a_failed_block_stops_no_other_and_is_named(options):
    results = {}
    with pytest.raises(BlockError, match=r"1 block.*\n  13: ValueError: unlucky"):
        run_blocks(square, range(30), options, on_result=results.__setitem__)
    assert sorted(results) == [n for n in range(30) if n != 13]


def test_unusable_input_is_reported_as_such(options):
    with pytest.raises(InputError, match="not usable"):
        run_blocks(unusable, range(30), options, on_result=lambda *_: None)


def test_a_running_scheduler_gives_the_same():
    """Workers that are processes of their own: everything that travels must be picklable."""
    results = {}
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        options = EngineOptions(scheduler=cluster.scheduler_address)
        run_blocks(abs, range(-5, 0), options, on_result=results.__setitem__)
    assert results == {n: -n for n in range(-5, 0)}


@pytest.fixture
def two_workers():
    """Start a cluster of two workers of two threads each, the first with what is asked for."""

    def start(**first):
        workers = {
            name: {"cls": Worker, "options": {"nthreads": 2, **options}}
            for name, options in {"first": first, "second": {}}.items()
        }
        scheduler = {"options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
        return SpecCluster(workers=workers, scheduler={"cls": Scheduler, **scheduler})

    return start


BOTH = threading.Barrier(2, timeout=20)


def place(item):
    """Name the worker; what needs a GPU waits until another such item runs beside it."""
    if isinstance(item, int):
        BOTH.wait()
    time.sleep(0.02)
    return get_worker().name


def places(cluster):
    found = {int: set(), str: set()}
    items = [n if n < 8 else str(n) for n in range(40)]
    options = EngineOptions(scheduler=cluster.scheduler_address)
    run_blocks(place, items, options, on_result=lambda n, w: found[type(n)].add(w), on_gpu=int)
    return found


def test_what_needs_a_gpu_goes_to_workers_that_announce_one_and_share_it(two_workers):
    with two_workers(resources={"GPU": 1}) as cluster:
        assert places(cluster) == {int: {"first"}, str: {"first", "second"}}


def test_what_needs_a_gpu_goes_anywhere_if_no_worker_announces_one(two_workers):
    with two_workers(resources={"LICENCE": 1}) as cluster:
        assert places(cluster) == {int: {"first", "second"}, str: {"first", "second"}}


@pytest.mark.parametrize("cluster", [None, ClusterOptions(cores=1)])
def test_stages_within_share_workers(cluster):
    name = name_of_the_thread if cluster is None else lambda _: os.getpid()

    def workers():
        found = set()
        run_blocks(name, range(3), options, on_result=lambda _, name: found.add(name))
        return found

    options = EngineOptions(workers=1 if cluster is None else None, cluster=cluster)
    with same_workers(options), same_workers(options):
        assert len(workers() | workers()) == 1
    assert len(workers() | workers()) == 2


HERE = threading.local()


def name_of_the_thread(_):
    """Give the thread a name of its own: the system's numbers are given twice."""
    HERE.name = getattr(HERE, "name", None) or uuid4()
    return HERE.name


def test_no_workers_is_an_error():
    with pytest.raises(ParameterError, match="at least 1, found 0"):
        EngineOptions(workers=0)


def test_threads_listen_to_nobody_and_a_cluster_to_this_machine_alone():
    def listening(_):
        own = psutil.Process().net_connections(kind="inet")
        return {c.laddr.ip for c in own if c.status == psutil.CONN_LISTEN}

    before = listening(0)
    for options, added in (
        (EngineOptions(workers=2), set()),
        (EngineOptions(cluster=ClusterOptions(cores=1)), {"127.0.0.1"}),
    ):
        found = set()
        run_blocks(listening, range(4), options, on_result=lambda _, ips, f=found: f.update(ips))
        assert found - before == added - before
