"""Processes that are killed: workers, the scheduler, the command itself, two commands at once."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PROGRAM = Path(__file__).with_name("faulty.py")
BLOCKS = [[z, y, x] for z in range(3) for y in range(3) for x in range(2)]


def indices(report: dict) -> list[list[int]]:
    return sorted(b["index"] for b in report["missing"])


def test_a_worker_killed_in_the_middle_of_a_block_costs_nothing(faults, check_result):
    volume = faults.volume()
    fault = faults.fault("evaluate", "kill", where=[1, 0, 1], times=1)
    status, _, errors = faults.run(faults.segment(volume, *faults.cluster()), fault)
    assert status == 0, errors
    check_result(volume)


@pytest.mark.slow
def test_workers_killed_again_and_again_at_any_moment(faults, check_result, soak):
    """Kill a worker every few seconds, whatever it does, until so many have been killed."""
    luck, kills, volume = random.Random(11), 0, faults.volume()
    for _ in range(20 * soak):
        slow = faults.fault("evaluate", "slow")
        command = faults.start(faults.segment(volume, *faults.cluster()), slow)
        while not command.ended():
            time.sleep(luck.uniform(0.5, 3))
            workers = [p for p in psutil.Process(command.pid).children() if _is_worker(p)]
            if workers and kills < 2.5 * soak:
                with contextlib.suppress(psutil.NoSuchProcess):  # ended by itself meanwhile
                    luck.choice(workers).kill()
                    kills += 1
        if command.wait() == 0 and kills >= 2.5 * soak:
            break
        assert "Traceback" not in command.errors
        refused = ("what is missing", "the workers do not start")
        assert command.status == 0 or any(r in command.errors for r in refused), command.errors
    assert command.status == 0, command.errors
    assert kills >= 2
    check_result(volume)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_a_block_that_kills_every_worker_stops_no_other(faults, check_result):
    volume = faults.volume()
    fault = faults.fault("assemble", "kill", where=[1, 1, 1])
    status, report, errors = faults.run(faults.segment(volume, *faults.cluster()), fault)
    assert status == 1
    assert "block 1,1,1 (8:16,32:64,32:60): KilledWorker" in errors
    assert "running the same command again does only that" in errors
    assert report["missing"] == [{"index": [1, 1, 1], "roi": [[8, 16], [32, 64], [32, 60]]}]
    status, report, errors = faults.run(faults.segment(volume))
    assert (status, report["predict"]["tiles"]) == (0, 0), errors
    check_result(volume)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_block_that_fails_three_times_stops_no_other(faults, check_result, precision):
    volume = faults.volume()
    command = faults.segment(volume, precision=precision)
    fault = faults.fault("evaluate", "error", where=[1, 0, 0])
    status, report, errors = faults.run(command, fault)
    assert status == 1
    assert "tiles of block 1,0,0 (8:16,0:32,0:32): OSError: the disk is away" in errors
    assert len(list(faults.folder.glob("marks-0/*"))) == 3
    # and those that its tiles reach into
    assert [1, 0, 0] in indices(report)
    assert len(report["missing"]) < len(BLOCKS) / 2
    status, report, errors = faults.run(command)
    assert status == 0, errors
    assert report["predict"]["tiles"] > 0
    check_result(volume, precision)


@pytest.mark.slow
def test_a_block_that_fails_twice_is_tried_again(faults, check_result):
    volume = faults.volume()
    for task in ("label", "write"):
        fault = faults.fault(task, "error", where=[0, 0, 0], times=2)
        status, _, errors = faults.run(faults.segment(volume), fault)
        assert status == 0, errors
        check_result(volume)
        (volume / "labels").rename(faults.folder / f"labels-{task}")


@pytest.mark.parametrize("task", ["label", pytest.param("write", marks=pytest.mark.slow)])
def test_labels_that_are_missing_are_listed(faults, check_result, task):
    volume = faults.volume()
    fault = faults.fault(task, "error", where=[0, 0, 0])
    status, report, errors = faults.run(faults.segment(volume), fault)
    assert status == 1
    assert "the disk is away" in errors
    # without all blocks of the first pass there are no numbers for any
    assert indices(report) == (BLOCKS if task == "label" else [[0, 0, 0]])
    assert faults.run(faults.segment(volume))[0] == 0
    check_result(volume)


@pytest.mark.parametrize("cluster", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_command_killed_at_random_moments(faults, check_result, soak, cluster):
    """Each kill comes after some progress, so that all moments of a run are met."""
    luck, kills, rounds, volume = random.Random(7), 0, itertools.count(), None
    wanted = (5 if not cluster else 1) * soak
    while True:
        if volume is None:
            volume = faults.volume(faults.folder / f"round-{next(rounds)}")
        more = faults.cluster() if cluster else []
        slow = faults.fault("evaluate", "slow")
        command = faults.start(faults.segment(volume, *more), slow if luck.random() < 0.5 else None)
        before, deadline = _records(volume), time.monotonic() + 60
        while not command.ended() and _records(volume) == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(luck.uniform(0, 1))
        if kills < wanted and not command.ended():
            workers = psutil.Process(command.pid).children(recursive=True)
            command.kill()
            kills += 1
            psutil.wait_procs(workers, timeout=30)
            assert not [w for w in workers if w.is_running()], "workers end with the command"
            continue
        assert command.wait() == 0, command.errors
        check_result(volume)
        if kills >= wanted:
            return
        volume = None


def _records(volume: Path) -> int:
    """Count what is on record."""
    return sum(p.read_text().count("\n") for p in (volume / ".volseg").glob("*.jsonl"))


def test_a_scheduler_that_is_killed(faults, check_result):
    volume = faults.volume()
    slow = json.dumps(faults.fault("evaluate", "slow"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "VOLSEG_TEST_FAULT": slow}
    script = "from distributed.cli.{0} import main; main()"
    own = ["--host", "127.0.0.1", "--no-dashboard", "--preload", str(PROGRAM)]
    address = faults.folder / "scheduler.json"
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                script.format(kind),
                *own,
                "--scheduler-file",
                str(address),
                *more,
            ],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for kind, more in (
            ("dask_scheduler", ["--port", "0"]),
            ("dask_worker", ["--nthreads", "1", "--no-nanny", "--death-timeout", "60"]),
        )
    ]
    try:
        command = faults.start(
            faults.segment(volume, "--scheduler", _address(address)),
        )
        while _records(volume) < 4 and not command.ended():
            time.sleep(0.01)
        started[0].kill()
        begun = time.monotonic()
        assert command.wait(60) == 1, command.errors
        assert time.monotonic() - begun < 20
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert "Traceback" not in command.errors
    assert command.report["kind"] == "BlockError"
    assert "the connection to the scheduler" in command.errors
    assert 0 < len(command.report["missing"]) < len(BLOCKS)
    assert faults.run(faults.segment(volume))[0] == 0
    check_result(volume)


def _address(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return str(json.loads(path.read_text())["address"])


def test_two_commands_at_once_the_second_is_refused(faults, check_result):
    volume = faults.volume()
    first = faults.start(faults.segment(volume), faults.fault("evaluate", "slow"))
    while _records(volume) < 2:
        time.sleep(0.01)
    status, report, errors = faults.run(faults.segment(volume, "--overwrite"))
    assert status == 2
    assert f"process {first.pid} on" in errors
    assert "is working on this run now" in errors
    assert report["kind"] == "ConflictError"
    assert first.wait() == 0, first.errors
    check_result(volume)
    assert faults.run(faults.segment(volume))[0] == 0


def test_other_parameters_are_refused_with_what_differs(faults, check_result):
    volume = faults.volume()
    fault = faults.fault("evaluate", "error", where=[1, 0, 0])
    assert faults.run(faults.segment(volume), fault)[0] == 1
    status, _, errors = faults.run(faults.segment(volume, "--roi", "0:8,:,:"))
    assert status == 2
    assert "was made for the region 0:20,0:70,0:60; you ask for the region 0:8,0:70,0:60" in errors
    status, _, errors = faults.run(faults.segment(volume, precision="bfloat16"))
    assert status == 2
    assert "you ask for bfloat16; give --precision float32 to go on with it" in errors
    assert faults.run(faults.segment(volume))[0] == 0
    check_result(volume)
