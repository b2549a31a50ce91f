"""Killed before each change of the disk in turn: nothing is lost, and nothing half-done looks done.

Run as a program, this does all cases; each kill ends a process that was forked from it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from volseg.errors import ConflictError, StorageError
from volseg.storage.arrays import fit_spec
from volseg.storage.attributes import update_attributes
from volseg.storage.checkpoints import append_row, read_log, trim_log
from volseg.storage.files import discard, write_file
from volseg.storage.ome import Space
from volseg.storage.results import NewImage, create_images
from volseg.storage.targets import check_target, drafting_folder
from volseg.storage.volumes import create_image, open_image

CHANGES = ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync", "open")
SPEC = fit_spec((4, 8, 8), "uint8")
WHOLE = (slice(0, 4), slice(0, 8), slice(0, 8))


def killed_at(number: int, step: Callable[[], None]) -> bool:
    """Run a step in a process that is killed before its change of this number; tell if it was."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), status
        return status != 0
    left = [number]

    def counted(change):
        def call(*arguments, **named):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return change(*arguments, **named)

        return call

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))
    status = 1
    try:
        step()
        status = 0
    finally:
        os._exit(status)
    return False


def fill(path: Path, value: int, **attributes) -> None:
    image = create_image(path, SPEC, None, attributes={"made": str(value), **attributes})
    image.levels[0].write(WHOLE, np.full(SPEC.shape, value, np.uint8))


def value_of(path: Path) -> int:
    """Read the one value of an image that says that it is complete."""
    image = open_image(path)
    assert image.attributes["complete"] is True
    found = np.unique(image.levels[0][:]).tolist()
    assert found == [int(image.attributes["made"])], "voxels are of another run than attributes"
    return found[0]


def visible(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def a_result(folder: Path, number: int) -> bool:
    """A complete result, and its table, are replaced by one that is begun."""
    path, table = folder / "labels" / "m", folder / "tables" / "m.parquet"
    fill(path, 1, complete=True)
    write_file(table, b"rows of the old")

    def step() -> None:
        new = NewImage(path, SPEC, Space(), {"complete": False, "run": {"a": 2}, "made": "2"})
        create_images([new], table)

    killed = killed_at(number, step)
    if not path.exists():
        assert killed
        assert not table.exists()
    elif open_image(path).attributes["complete"]:
        assert value_of(path) == 1
    else:
        assert not open_image(path).levels[0][:].any()
        assert not table.exists(), "a table of labels that are no more"
    step()
    assert open_image(path).attributes["made"] == "2"
    assert visible(path.parent) == {"m", "zarr.json"}
    return killed


@contextmanager
def converting(target: Path):
    check_target(target, overwrite=True)
    with drafting_folder(target, overwrite=True) as partial:
        fill(partial, 2, complete=False)
        yield partial
        update_attributes(partial, {"complete": True})


def a_volume(folder: Path, number: int) -> bool:
    """A volume is replaced by a conversion."""
    target = folder / "v[1].zarr"
    fill(target, 1, complete=True)

    def step() -> None:
        with converting(target):
            pass

    killed = killed_at(number, step)
    with pytest.raises(ConflictError, match="exists already"):
        check_target(target, overwrite=False)
    assert value_of(target) in ((1, 2) if killed else (2,))
    step()
    assert value_of(target) == 2
    assert visible(folder) == {target.name}
    return killed


def a_new_volume(folder: Path, number: int) -> bool:
    """A volume is converted where nothing stood."""
    target = folder / "v.zarr"

    def step() -> None:
        with converting(target):
            pass

    killed = killed_at(number, step)
    assert not killed or not target.exists() or value_of(target) == 2
    step()
    assert value_of(target) == 2
    assert visible(folder) == {target.name}
    return killed


def the_end_of_a_result(folder: Path, number: int) -> bool:
    """An image becomes complete."""
    fill(folder / "m", 1, complete=False, run={}, mark="x")
    killed = killed_at(number, lambda: update_attributes(folder / "m", {"complete": True}, "mark"))
    noted = open_image(folder / "m").attributes
    assert noted["complete"] is not ("mark" in noted)
    return killed


def a_log(folder: Path, number: int) -> bool:
    """A row is appended to a log."""
    path = folder / "log.csv"
    append_row(path, {"step": 1, "loss": 0.5})
    killed = killed_at(number, lambda: append_row(path, {"step": 12, "loss": 0.25}))
    rows = [{"step": 1, "loss": 0.5}, {"step": 12, "loss": 0.25}]
    assert read_log(path) in ([rows[:1], rows] if killed else [rows])
    trim_log(path, 1)
    append_row(path, {"step": 12, "loss": 0.25})
    assert read_log(path) == rows
    return killed


CASES = {c.__name__: c for c in (a_result, a_volume, a_new_volume, the_end_of_a_result, a_log)}


def run(name: str, folder: Path) -> None:
    for number in range(1000):
        place = folder / f"{name}-{number}"
        place.mkdir()
        if not CASES[name](place, number):
            print(name, number, "kills")
            assert number > 3
            return
        discard(place)


def test_a_kill_before_any_change_of_the_disk(tmp_path):
    command = [sys.executable, "-W", "ignore", __file__, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("kills") == len(CASES)


@pytest.mark.parametrize("torn", ["st", "step,loss\n1,0.5\n1", "step,loss\n1,0.5\n12,", "\n"])
def test_a_log_that_a_former_version_left_torn_is_mended(tmp_path, torn):
    path = tmp_path / "log.csv"
    path.write_text(torn)
    trim_log(path, 20)
    append_row(path, {"step": 21, "loss": 1.0})
    assert [row["step"] for row in read_log(path)] == ([1, 21] if "0.5" in torn else [21])


def test_a_result_stays_if_its_successor_cannot_take_its_place(tmp_path, monkeypatch):
    fill(tmp_path / "m", 1, complete=True)
    replace = os.replace

    def failing(source, place):
        if Path(place) == tmp_path / "m" and ".tmp" in str(source):
            raise OSError(28, "No space left on device")
        replace(source, place)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(StorageError, match="No space"), converting(tmp_path / "m"):
        pass
    monkeypatch.undo()
    assert value_of(tmp_path / "m") == 1
    assert visible(tmp_path) == {"m"}


if __name__ == "__main__":
    for case in CASES:
        run(case, Path(sys.argv[1]))
