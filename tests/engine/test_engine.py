"""The engine: everything runs, in its order; failures are counted and named."""

from __future__ import annotations

import importlib
import os
import threading
import time
import traceback
import warnings
from contextlib import nullcontext
from dataclasses import replace
from queue import SimpleQueue
from urllib.request import urlopen
from uuid import uuid4

import psutil
import pytest
from distributed import KilledWorker, LocalCluster, Scheduler, SpecCluster, Worker, get_worker

from toy_cluster import QUIET
from volseg.engine.options import ClusterOptions, EngineOptions
from volseg.engine.progress import Job
from volseg.engine.remote import remote_scheduler
from volseg.engine.run import run_blocks, same_workers
from volseg.engine.steps import Step, Trial, build_graph
from volseg.errors import BlockError, InputError, Notice, ParameterError, WorkError


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
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, **QUIET) as cluster:
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


def work_in_order(steps, options):
    """Run steps of named items; return the names in the order in which they came back."""
    seen = []
    run_blocks(square, steps, options, on_result=lambda item, _: seen.append(item))
    return seen


def hand_overs(count, reach):
    """Let every item hand something over to those up to so far away, as tiles of blocks do."""
    for k in range(count):
        yield Step(-k, name=k)
        if k >= reach:
            yield Step(100 + k, after=tuple(range(k - reach, k + 1)))


@pytest.mark.parametrize("reach", [0, 1, 40])
def test_a_step_comes_after_those_that_it_waits_for(options, reach):
    # one that reaches far waits for others of earlier windows
    seen = work_in_order(hand_overs(80, reach), options)
    assert len(seen) == len(set(seen)) == 160 - reach
    place = {item: number for number, item in enumerate(seen)}
    for k in range(reach, 80):
        assert all(place[100 + k] > place[-source] for source in range(k - reach, k + 1))


def test_what_waits_for_a_failed_block_is_not_tried_and_not_blamed(options):
    steps = [
        Step(13, name="a"),
        Step(1, name="b"),
        Step(2, after=("a", "b")),
        Step(3, after=("b",)),
    ]
    seen = []
    with pytest.raises(BlockError, match=r"1 block.*\n  13: ValueError: unlucky"):
        run_blocks(square, steps, options, on_result=lambda item, _: seen.append(item))
    assert sorted(seen) == [1, 3]


@pytest.mark.parametrize(("deaths", "followed"), [(2, [1, 1]), (3, [])])
def test_what_waits_for_a_block_whose_worker_dies_waits_until_it_is_done(
    tmp_path, deaths, followed
):
    def kill_or_follow(item):  # not in the module: workers could not import that
        folder, deaths = item
        folder.mkdir(exist_ok=True)
        (folder / f"{uuid4()}").touch()
        if len(list(folder.iterdir())) <= deaths:
            os._exit(1)
        return len(list(folder.iterdir()))

    killer, either, both = ((tmp_path / name, 0) for name in ("killer", "either", "both"))
    killer = (killer[0], deaths)
    steps = [
        Step(killer, name="k"),
        Step((tmp_path / "other", 0), name="o"),
        Step(either, after=("k",)),
        Step(both, after=("k", "o")),
    ]
    found = {}
    options = EngineOptions(cluster=ClusterOptions(workers=2, cores=1))
    with nullcontext() if followed else pytest.raises(BlockError, match=r"^1 block.*\n.*killer"):
        run_blocks(kill_or_follow, steps, options, on_result=found.__setitem__)
    assert [found[item] for item in (either, both) if item in found] == followed


class Unreadable:
    """Cannot be unpickled, as where a module is missing."""

    def __call__(self, item):
        return item

    def __reduce__(self):
        return importlib.import_module, ("a_module_of_the_client",)


def test_workers_that_lack_a_module_report_each_block_and_stay(scheduler):
    options, results = EngineOptions(scheduler=scheduler), {}
    steps = [Step(1, name="a"), Step(2), Step(3, after=("a",))]
    with pytest.raises(BlockError, match=r"2 block.*\n.*lacks what.*a_module_of_the_client"):
        run_blocks(Unreadable(), steps, options)
    run_blocks(abs, [-1], options, on_result=results.__setitem__)
    assert results == {-1: 1}


@pytest.mark.usefixtures("looks_often")
def test_a_cluster_whose_workers_have_all_ended_is_not_waited_for():
    def close_the_worker(_):
        worker = get_worker()
        worker.loop.add_callback(worker.close, executor_wait=False)
        time.sleep(5)

    options = EngineOptions(cluster=ClusterOptions(cores=1))
    with pytest.raises(WorkError, match="all workers of the cluster have ended; what is done"):
        run_blocks(close_the_worker, [1], options)


@pytest.mark.usefixtures("looks_often")
def test_a_scheduler_without_workers_is_waited_for_so_long_with_a_word():
    results = {}
    with LocalCluster(n_workers=0, processes=False, **QUIET) as cluster:
        options = EngineOptions(scheduler=cluster.scheduler_address, block_seconds=0.5)
        with (
            pytest.warns(UserWarning, match="no worker left; waiting"),
            pytest.raises(WorkError, match=r"no worker for .*--block-timeout is 0.5"),
        ):
            run_blocks(abs, [-1], options)
        later = threading.Timer(1, cluster.scale, [1])
        later.start()
        with pytest.warns(UserWarning, match="no worker left; waiting"):
            run_blocks(abs, [-1], replace(options, block_seconds=60), on_result=results.__setitem__)
    assert results == {-1: 1}


@pytest.fixture
def looks_often(monkeypatch):
    monkeypatch.setattr("volseg.engine.windows.WATCH_SECONDS", 0.2)
    monkeypatch.setattr("volseg.engine.remote.RESTART_SECONDS", 0.1)


def test_a_worker_that_starts_while_its_cluster_closes_fails_no_work(monkeypatch):
    class Closing(LocalCluster):
        def __exit__(self, *error):
            super().__exit__(*error)
            raise AssertionError("can only join a started process")

    def start(_, **options):
        return Closing(n_workers=1, processes=False, dashboard_address=None)

    monkeypatch.setattr("volseg.engine.remote.start_cluster", start)
    with remote_scheduler(EngineOptions(cluster=ClusterOptions(cores=1))) as scheduler:
        assert scheduler.client.submit(int).result() == 0


@pytest.mark.parametrize("kills", [False, True])
def test_results_that_are_lost_with_their_worker_are_computed_again(tmp_path, kills):
    def count_or_die(folder):
        (folder / f"{uuid4()}").touch()
        times = len(list(folder.iterdir()))
        if kills and times == 2:
            os._exit(1)
        return times

    arrived, trial = SimpleQueue(), Trial("count-1", [Step(tmp_path)])
    with remote_scheduler(EngineOptions(cluster=ClusterOptions(cores=1))) as scheduler:
        scheduler.start(build_graph(count_or_die, [trial]), [trial], arrived)
        assert arrived.get(timeout=60) is trial
        scheduler.client.restart_workers(list(scheduler.client.ncores()))
        while not (found := scheduler.collect([trial], arrived)):
            assert arrived.get(timeout=60) is trial
    assert found == [trial]
    assert type(trial.error) is (KilledWorker if kills else type(None))
    assert trial.outcome == (None if kills else [2])


FAILED = []


def fail_first(item):
    if item == 5 and len(FAILED) < 2:
        FAILED.append(item)
        raise OSError("the disk is away")
    return item


def test_what_waits_for_a_block_that_fails_at_first_comes_in_the_end():
    FAILED.clear()
    seen = []
    steps = [
        *(Step(n, name=n) for n in range(9)),
        Step(20, name=20, after=(5, 6)),
        Step(21, after=(20,)),
    ]
    run_blocks(
        fail_first, steps, EngineOptions(workers=2), on_result=lambda item, _: seen.append(item)
    )
    assert sorted(seen) == [*range(9), 20, 21]
    assert seen[-2:] == [20, 21]
    assert 5 in seen[:-2]


@pytest.mark.parametrize("batch", [3, 1000])
def test_batches_fail_item_by_item(options, batch):
    results = {}
    with pytest.raises(BlockError, match=r"1 block.*\n  13: ValueError: unlucky"):
        run_blocks(square, range(50), options, on_result=results.__setitem__, batch=batch)
    assert results == {n: n * n for n in range(50) if n != 13}


def unsendable(item):
    class OwnError(Exception):
        def __reduce__(self):
            raise TypeError("not to be sent")

    raise OwnError(f"trouble with {item}")


def test_errors_that_cannot_travel_are_told_nevertheless(scheduler):
    with pytest.raises(BlockError, match=r"OwnError: trouble with 7") as raised:
        run_blocks(unsendable, [7], EngineOptions(scheduler=scheduler))
    assert "in unsendable" in "".join(traceback.format_exception(raised.value))


class Shown:
    """Keeps what is shown."""

    def __init__(self):
        self.calls = []

    def start(self, total, unit, title):
        self.calls.append((total, unit, title))

    def advance(self, n):
        self.calls.append(n)

    def finish(self):
        self.calls.append("finish")


def test_progress_is_counted_and_ends_whatever_happens(options):
    shown = Shown()
    job = Job(shown, 20, "numbers", "squaring", done=4, size=lambda item, _: item // 10)
    with pytest.raises(BlockError):
        run_blocks(square, [10, 13, 20, 30, 5], options, progress=job)
    assert shown.calls[:2] == [(20, "numbers", "squaring"), 4]
    assert sorted(shown.calls[2:-1]) == [1, 2, 3]
    assert shown.calls[-1] == "finish"


def test_a_failed_block_stops_no_other_and_is_named(options):
    results = {}
    with pytest.raises(BlockError, match=r"1 block.*\n  13: ValueError: unlucky"):
        run_blocks(square, range(30), options, on_result=results.__setitem__)
    assert sorted(results) == [n for n in range(30) if n != 13]


def test_unusable_input_is_reported_as_such(options):
    with pytest.raises(InputError, match="not usable"):
        run_blocks(unusable, range(30), options)


def test_a_running_scheduler_gives_the_same():
    """Workers that are processes of their own: everything that travels must be picklable."""
    results = {}
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", **QUIET) as cluster:
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
        scheduler = {
            "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "dashboard": False}
        }
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
    items = [Step(n, name=n, on_gpu=True) if n < 8 else str(n) for n in range(40)]
    options = EngineOptions(scheduler=cluster.scheduler_address)
    run_blocks(place, items, options, on_result=lambda n, w: found[type(n)].add(w))
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


def test_a_dashboard_is_refused_where_no_cluster_is():
    with pytest.raises(ParameterError, match=r"--dashboard .* give a --cluster or a --scheduler"):
        EngineOptions(dashboard=True)


@pytest.mark.filterwarnings("always::volseg.errors.Notice")
def test_the_dashboard_of_a_cluster_is_told_and_serves_this_machine_alone(scheduler):
    options = EngineOptions(cluster=ClusterOptions(cores=1), dashboard=True)
    with warnings.catch_warnings(record=True) as told, remote_scheduler(options):
        (notice,) = [str(w.message) for w in told if w.category is Notice]
        address = notice.removeprefix("Dask's dashboard: ")
        assert address.startswith("http://127.0.0.1:")
        with urlopen(address, timeout=60) as page:
            assert b"Bokeh" in page.read()
    with pytest.warns(Notice, match="^Dask's dashboard: "):
        run_blocks(abs, [1], EngineOptions(scheduler=scheduler, dashboard=True))


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
