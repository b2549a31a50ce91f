"""Compiled functions load without numba, and are compiled again when anything they use changes."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest

from volseg.voxels import compilation

SOURCE = """
from volseg.voxels.compilation import compiled

STEP = 1

@compiled
def one_more(number):
    return number + STEP

@compiled
def fill(pair, values) -> int:
    values[:] = one_more(pair.first) * pair.second
    return len(values)
"""
PROGRAM = """
import sys
import numpy as np
from collections import namedtuple
import toy_loops
Pair = namedtuple("Pair", "first second")
values = np.zeros(3, np.int32)
count = toy_loops.fill(Pair(4, 2), values)
print(count, values.tolist(), "numba" in sys.modules)
"""


class Pair(NamedTuple):
    """Two arrays."""

    first: Any
    second: Any


@pytest.fixture
def loops(tmp_path, monkeypatch):
    """Write a module of compiled functions; give a way to use it in a new process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = tmp_path / "toy_loops.py"
    module.write_text(SOURCE)

    def run(change=("", "")):
        module.write_text(SOURCE.replace(*change))
        done = subprocess.run(
            [sys.executable, "-B", "-c", PROGRAM],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_numba_is_loaded_to_compile_alone_and_any_change_is_seen(loops, tmp_path):
    assert loops() == "3 [10, 10, 10] True"
    assert loops() == "3 [10, 10, 10] False"
    (kept,) = (tmp_path / "__pycache__").glob("fill-*.o")
    # a constant of a function that it calls
    assert loops(("STEP = 1", "STEP = 2")) == "3 [12, 12, 12] True"
    (other,) = (tmp_path / "__pycache__").glob("fill-*.o")
    assert other != kept
    # a damaged file is not used
    other.write_bytes(other.read_bytes()[:-1])
    assert loops(("STEP = 1", "STEP = 2")) == "3 [12, 12, 12] True"


def test_where_modules_cannot_be_written_a_cache_of_the_user_serves(loops, tmp_path):
    (tmp_path / "__pycache__").write_text("no folder")
    assert loops() == "3 [10, 10, 10] True"
    assert loops() == "3 [10, 10, 10] False"
    assert list((tmp_path / "cache" / "volseg").glob("fill-*.o"))


def test_many_threads_compile_once(monkeypatch):
    made = []
    compile_function = compilation._compile

    def slowly(*args):
        made.append(args[0].__name__)
        return compile_function(*args)

    monkeypatch.setattr(compilation, "_compile", slowly)
    monkeypatch.setattr(compilation, "_read", lambda path: None)
    monkeypatch.setattr(compilation, "_keep", lambda *args: None)

    @compilation.compiled
    def total(values, found) -> None:
        for k in range(len(values)):
            found[0] += values[k]

    def call(_):
        found = np.zeros(1, np.int64)
        total(np.arange(10), found)
        return int(found[0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(32))) == [45] * 32
    assert made == ["total"]


def test_arguments_may_be_arrays_of_any_type_numbers_and_tuples_of_them(monkeypatch):
    monkeypatch.setattr(compilation, "_keep", lambda *args: None)

    @compilation.compiled
    def dot(pair, weights, shift) -> int:
        total = shift
        for k in range(len(pair.first)):
            total += int(pair.first[k]) * weights[0][k] + int(pair.second[0, k]) * weights[1]
        return total

    for dtype in ("uint8", "int16", "uint32", "bool"):
        first = np.array([1, 0, 1], dtype)
        found = dot(Pair(first, first[None]), (np.array([3, 4, 5]), 2), 10)
        assert found == 10 + 3 + 5 + 4


def test_arrays_with_gaps_are_refused():
    @compilation.compiled
    def nothing(values) -> None:
        values[0] = 0

    with pytest.raises(ValueError, match="contiguous"):
        nothing(np.zeros(4)[::2])
