"""Compiled functions are loaded at their first call, once, and kept until a source changes."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from volseg.voxels import compilation
from volseg.voxels.compilation import bind, compiled, forget_stale, telling


@compiled
def one_more(number):
    return number + 1


@compiled
def count_up(values, found):
    for k in range(len(values)):
        found[0] += one_more(values[k])


def test_compiled_functions_call_each_other_from_many_threads():
    def call(_):
        found = np.zeros(1, np.int64)
        count_up(np.arange(10), found)
        return int(found[0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(32))) == [55] * 32


def test_first_arguments_can_be_fixed():
    found = np.zeros(1, np.int64)
    bind(count_up, np.arange(3))(found)
    assert found[0] == 6


def test_compiling_is_told_once_and_what_is_on_disk_is_not(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loops.py").write_text(
        "from volseg.voxels.compilation import compiled\n\n\n"
        "@compiled\ndef twice(number):\n    return 2 * number\n\n\n"
        "@compiled\ndef four_times(number):\n    return twice(twice(number))\n"
    )
    told = []
    for _ in range(2):
        loops = runpy.run_path(str(tmp_path / "loops.py"))  # a process of its own would do it again
        with telling(lambda: told.append("compiling")):
            assert [loops["four_times"](n) for n in (3, 4)] == [12, 16]
            assert told == ["compiling"]
    assert loops["twice"](2.0) == 4
    assert told == ["compiling"], "nobody listens any more"


def test_numba_is_loaded_by_the_first_call_not_by_the_import():
    program = (
        "import sys\n"
        "import numpy as np\n"
        "from volseg.voxels.downsample import reduce_labels\n"
        "print('numba' in sys.modules)\n"
        "reduce_labels(np.ones((2, 2, 2), np.uint8), (2, 2, 2))\n"
        "print('numba' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("changed", ["objects/two.py", "constants.py"])
def test_a_change_of_a_source_makes_all_stale_that_may_use_it(tmp_path, changed):
    kept = tmp_path / "voxels" / "__pycache__" / "one.loop-7.nbi"
    kept.parent.mkdir(parents=True)
    for name in ("voxels/one.py", changed, "stages/run.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1")
    kept.touch()
    forget_stale(tmp_path)
    assert not kept.exists()
    kept.touch()
    os.utime(tmp_path / "stages" / "run.py", ns=(1, 1))
    forget_stale(tmp_path)
    assert kept.exists()
    os.utime(tmp_path / changed, ns=(1, 1))
    forget_stale(tmp_path)
    assert not kept.exists()


def test_compiled_functions_stand_in_rooms_that_are_watched():
    package = Path(compilation.__file__).parents[1]
    found = [f for f in package.rglob("*.py") if "@compiled\n" in f.read_text()]
    assert {f.parent.name for f in found} == {"measures", "objects", "voxels"}
    used = {name for f in found for name in re.findall(r"from volseg\.(\w+)", f.read_text())}
    rooms = {name for name in used if (package / name).is_dir()}
    assert rooms <= set(compilation.ROOMS)


def test_where_nothing_can_be_noted_nothing_is_raised(tmp_path):
    (tmp_path / "__pycache__").write_text("no folder")
    forget_stale(tmp_path)
    assert (tmp_path / "__pycache__").read_text() == "no folder"


def test_what_was_compiled_serves_the_next_process():
    program = (
        "import numpy as np\n"
        "from volseg.voxels import compilation, downsample\n"
        "downsample.reduce_labels(np.ones((2, 2, 2), np.uint8), (2, 2, 2))\n"
        "vote = compilation._DISPATCHERS[downsample._vote]\n"
        "print(sum(vote.stats.cache_hits.values()))\n"
    )
    run = [sys.executable, "-B", "-c", program]
    hits = [subprocess.run(run, capture_output=True, text=True, check=True).stdout for _ in "ab"]
    assert int(hits[1]) == 1
