"""Every end of a command: its status, its message, and what stands on standard output."""

from __future__ import annotations

import json
import runpy
import shlex
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from volseg.cli.session import COMPILING, with_session
from volseg.errors import BlockError, ConflictError
from volseg.fields import plain
from volseg.storage.volumes import open_image


def run(error, *flags):
    @click.command
    @with_session
    def command(session):
        session.note("a note")
        if error is not None:
            raise error
        session.result({"objects": 3}, "3 objects")

    return CliRunner().invoke(command, flags)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ConflictError("another result"), 2, "error: another result"),
        (BlockError("2 blocks"), 1, "error: 2 blocks"),
        (KeyboardInterrupt(), 130, "error: interrupted; run the same command again to resume"),
        (ZeroDivisionError("oops"), 1, "error: unexpected ZeroDivisionError: oops; run it again"),
        (MemoryError(), 1, "error: the memory is full; give fewer --workers"),
    ],
)
def test_an_error_becomes_a_message_and_a_status(error, status, message):
    result = run(error)
    assert result.exit_code == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_verbose_shows_where_it_happened():
    result = run(ZeroDivisionError("oops"), "-v")
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("error: unexpected ZeroDivisionError: oops\n")


def test_json_is_one_object_also_on_failure():
    assert json.loads(run(None, "--json").stdout) == {"objects": 3}
    failed = run(ConflictError("another result"), "--json")
    assert json.loads(failed.stdout) == {"error": "another result", "kind": "ConflictError"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats"], "Missing argument 'VOLUMES...'"),
        (["stats", "a", "b", "--labels", "c"], "--labels belongs to one volume"),
        (["models", "show", "emnet", "--jsn"], "No such option"),
        (["nothing"], "No such command 'nothing'"),
        (["--bogus"], "No such option"),
        (["segment", "--bogus"], "No such option"),
    ],
)
def test_json_is_one_object_on_wrong_usage(volseg, arguments, message):
    wrong = volseg(*arguments, "--json")
    assert wrong.exit_code == 2
    assert message in json.loads(wrong.stdout)["error"]
    assert message in wrong.stderr
    assert volseg(*arguments).stdout == ""


def test_quiet_leaves_the_result():
    result = run(None, "-q")
    assert (result.stdout, result.stderr) == ("3 objects\n", "")
    assert run(None).stderr == "a note\n"


def test_compiling_is_told_on_standard_error_before_it_begins(tmp_path):
    @click.command
    @with_session
    def command(session):
        """Compile two loops that are not on disk yet."""
        for number in range(2):
            path = tmp_path / f"{session.quiet}{number}.py"
            path.write_text(
                "from volseg.voxels.compilation import compiled\n\n\n"
                "@compiled\ndef more(number):\n    return number + 1\n"
            )
            runpy.run_path(str(path))["more"](2)
        session.result(3, "3")

    assert CliRunner().invoke(command).stderr == f"note: {COMPILING}\n"
    assert CliRunner().invoke(command, ["-q"]).stderr == ""


def test_warnings_of_libraries_are_for_the_curious():
    @click.command
    @with_session
    def command(session):
        warnings.simplefilter("always")
        warnings.warn_explicit("ours", UserWarning, with_session.__code__.co_filename, 1)
        warnings.warn_explicit("theirs", UserWarning, "/elsewhere/library.py", 1)

    assert CliRunner().invoke(command).stderr == "warning: ours\n"
    assert "UserWarning: theirs" in CliRunner().invoke(command, ["-v"]).stderr


@dataclass(frozen=True)
class Report:
    size: tuple[float, ...]
    count: np.int64
    roi: slice


def test_reports_become_json():
    report = Report((1.0, float("inf")), np.int64(7), slice(1, 2))
    expected = {"size": [1.0, None], "count": 7, "roi": [1, 2]}
    assert json.loads(json.dumps(plain(report))) == expected
    assert plain([np.arange(2), None, "a"]) == [[0, 1], None, "a"]


def process(redirected, *arguments):
    """Run a command by the shell; return its status, and what it wrote to standard output."""
    words = shlex.join([sys.executable, "-m", "volseg", *map(str, arguments)])
    done = subprocess.run(["sh", "-c", f"{words} {redirected}"], capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="writes to a disk that is full")
def test_streams_that_are_closed_or_full_end_no_work(tmp_path):
    raw = np.random.default_rng(0).integers(0, 256, (3, 40, 40), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", raw, photometric="minisblack")
    # without standard error, a file that is opened later would take its number
    for number, end in enumerate(("2>&-", "0<&- 1>&- 2>&-", "2>/dev/full")):
        volume = tmp_path / f"{number}.zarr"
        status, told, _ = process(end, "convert", tmp_path / "a.tif", volume)
        assert status == 0
        assert ("3 x 40 x 40 uint8" in told) == (number != 1)
        np.testing.assert_array_equal(open_image(volume).levels[0][:], raw)
    for flags in ((), ("--json",)):
        status, _, words = process(">/dev/full", "info", tmp_path / "0.zarr", *flags)
        assert status == 1
        assert words == "error: cannot write to standard output: No space left on device\n"
    status, _, words = process(">/dev/full", "info", tmp_path / "0.zarr", "--nothing", "--json")
    assert status == 2
    assert "No such option" in words
    assert "Traceback" not in words
