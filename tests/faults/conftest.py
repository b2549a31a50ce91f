"""What the tests of faults share: a small volume, its true results, and a command that can fail."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toy_volumes import write_raw

SHAPE = (20, 70, 60)
PROGRAM = Path(__file__).with_name("faulty.py")


class Running:
    """A command that runs: a process of its own, forked off one that has imported everything.

    Attributes
    ----------
    pid : of the process.
    """

    def __init__(self, forks: subprocess.Popen[str], asked: dict[str, Any]) -> None:
        self.pid, self.forks, self.asked = int(_ask(forks, asked)), forks, asked
        self.status: int | None = None

    def ended(self) -> bool:
        """Tell whether the process has ended."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "Z"

    def kill(self) -> None:
        """End the process at once, if it has not ended yet."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self, seconds: float = 200) -> int:
        """Return the exit status, negative for a signal; fail if it takes too long."""
        deadline = time.monotonic() + seconds
        while self.status is None and not self.ended():
            assert time.monotonic() < deadline, f"still running: {self.errors}"
            time.sleep(0.01)
        if self.status is None:
            self.status = int(_ask(self.forks, {"wait": self.pid}))
        return self.status

    @property
    def errors(self) -> str:
        """What was printed on standard error."""
        return Path(self.asked["errors"]).read_text()

    @property
    def report(self) -> Any:
        """What was printed on standard output, JSON."""
        text = Path(self.asked["output"]).read_text()
        return json.loads(text) if text else {}


def _ask(forks: subprocess.Popen[str], asked: dict[str, Any]) -> str:
    assert forks.stdin is not None
    assert forks.stdout is not None
    forks.stdin.write(json.dumps(asked) + "\n")
    forks.stdin.flush()
    return forks.stdout.readline()


@dataclass(frozen=True)
class Faults:
    """Runs commands on copies of one volume, with faults or without.

    Attributes
    ----------
    folder : the test's own.
    source : a volume that nothing has been done with.
    model : a toy's weights.
    """

    folder: Path
    source: Path
    model: Path
    forks: subprocess.Popen[str]
    running: list[Running] = field(default_factory=list)

    def volume(self, folder: Path | None = None) -> Path:
        """Copy the volume."""
        return shutil.copytree(self.source, (folder or self.folder) / "vol.zarr")

    def cluster(self, workers: int = 2) -> list[str]:
        """Ask for workers that are processes."""
        path = self.folder / "cluster.toml"
        path.write_text(f"workers = {workers}\ncores = 1\n")
        return ["--cluster", "local", "--cluster-config", str(path)]

    def segment(self, volume: Path, *more: str, precision: str = "float32") -> list[str]:
        """Say how the volume is segmented, in blocks of one shard."""
        sizes = ["--block", "8,32,32", "--min-size", "4", "--threshold", "0.75"]
        network = ["--model", str(self.model), "--device", "cpu", "--precision", precision]
        return ["segment", str(volume), *network, *sizes, "--json", *more]

    def fault(self, task: str, kind: str, **more: Any) -> dict[str, Any]:
        """Describe a fault, see `faulty`."""
        marks = self.folder / f"marks-{len(list(self.folder.glob('marks-*')))}"
        marks.mkdir()
        return {"task": task, "kind": kind, "marks": str(marks), **more}

    def start(self, arguments: list[str], fault: dict[str, Any] | None = None) -> Running:
        """Start a command."""
        number = len(self.running)
        asked = {
            "run": arguments,
            "fault": json.dumps(fault) if fault else "",
            "output": str(self.folder / f"output-{number}"),
            "errors": str(self.folder / f"errors-{number}"),
        }
        self.running.append(Running(self.forks, asked))
        return self.running[-1]

    def run(
        self, arguments: list[str], fault: dict[str, Any] | None = None
    ) -> tuple[int, Any, str]:
        """Run a command; return its exit status, its JSON and its standard error."""
        process = self.start(arguments, fault)
        status = process.wait()
        assert "Traceback" not in process.errors
        return status, process.report, process.errors


def digest(volume: Path) -> dict[str, str]:
    """Hash every file of the results, metadata included; name what is only scratch."""
    found = {}
    for path in sorted(volume.rglob("*")):
        name = path.relative_to(volume)
        if path.is_file() and name.parts[0] != ".volseg" and "tables" not in name.parts:
            found[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def leftovers(volume: Path) -> list[str]:
    """List what a complete run must not leave: all scratch but ledgers and locks."""
    allowed = {".jsonl", ".lock"}
    scratch = (p for p in (volume / ".volseg").rglob("*") if p.suffix not in allowed)
    partial = (p for p in volume.rglob("*") if ".tmp" in p.name or "__lock" in p.name)
    beside = volume.parent.glob(f".{volume.name}.*")
    return sorted({str(p) for p in (*scratch, *partial, *beside)})


@pytest.fixture(scope="session")
def soak() -> int:
    """How long the tests take; 1 is a sample of what they can do."""
    return int(os.environ.get("VOLSEG_SOAK", "1"))


@pytest.fixture(scope="session")
def faulted_source(tmp_path_factory) -> Path:
    """A volume of noise, in small shards."""
    raw = np.random.default_rng(3).integers(0, 256, SHAPE, dtype=np.uint8)
    return write_raw(tmp_path_factory.mktemp("source") / "vol.zarr", raw, complete=True)


@pytest.fixture(scope="session")
def forks(tmp_path_factory, faulted_source, toy_model):
    """A process that has done everything once, of which each command is a fork."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        made = Faults(tmp_path_factory.mktemp("warm"), faulted_source, toy_model, process)
        volume = made.volume()
        for command in (
            made.segment(volume),
            ["stats", str(volume)],
            ["verify", str(volume), "--quick"],
        ):
            assert _ask(process, {"warm": command}) == "0\n", command
        yield process


@pytest.fixture
def faults(tmp_path, faulted_source, toy_model, forks):
    """What a test needs to let things go wrong; ends what it left running."""
    made = Faults(tmp_path, faulted_source, toy_model, forks)
    yield made
    for process in made.running:
        process.kill()


@pytest.fixture(scope="session")
def truth(tmp_path_factory, faulted_source, toy_model, forks) -> Callable[[str], dict[str, str]]:
    """What an undisturbed run in a precision writes: a hash for each file."""

    @cache
    def undisturbed(precision: str) -> dict[str, str]:
        made = Faults(tmp_path_factory.mktemp("truth"), faulted_source, toy_model, forks)
        volume = made.volume()
        status, report, errors = made.run(made.segment(volume, precision=precision))
        assert status == 0, errors
        assert report["label"]["objects"] > 10
        return digest(volume)

    return undisturbed


@pytest.fixture(scope="session")
def check_result(truth) -> Callable[..., None]:
    """Check that a volume holds the true results, and nothing else."""

    def check(volume: Path, precision: str = "float32") -> None:
        assert digest(volume) == truth(precision)
        assert leftovers(volume) == []

    return check
