"""Scripts of benchmarks and studies find what they import; the one for a GPU is rehearsed."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from toy_weights import write_weights

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted([*BENCHMARKS.glob("*.py"), *(BENCHMARKS.parent / "studies").glob("*.py")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_script_finds_what_it_imports(script, monkeypatch):
    """Programs to compare with are imported where they run, and need not be installed."""
    monkeypatch.syspath_prepend(script.parent)
    assert runpy.run_path(str(script), run_name="imported")["__doc__"], "it says what it measures"


def test_the_measurement_of_a_gpu_is_rehearsed(tmp_path, monkeypatch, capsys):
    model = write_weights(tmp_path, "unet2d", (8, 48, 48), (0, 16, 16), 4)
    told = tmp_path / "told.jsonl"
    given = ["gpu.py", "--toy", "--models", str(model), "--output", str(told)]
    monkeypatch.setattr(sys, "argv", given)
    runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")
    (line,) = map(json.loads, told.read_text().splitlines())
    assert line["floor_of_arithmetic_s"] > 0 < line["floor_of_memory_s"]
    assert line["of_bare"] > 0
    assert line["mvoxel_per_s"] > 0
    assert len(line["stages"]) == 9, "each stage was seen"
    assert "end to end" in capsys.readouterr().out


def test_the_bare_network_is_timed_on_a_tile_of_each_lattice(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    gpu = importlib.import_module("gpu")
    monkeypatch.setattr(gpu, "seconds_of", lambda function, _: function())
    lattices = [
        SimpleNamespace(tile=tile, margin=(1, 0, 2), normal=axis)
        for axis, tile in enumerate([(2, 3, 4), (3, 2, 4), (4, 3, 2)])
    ]
    handover = SimpleNamespace(lattices=lattices, count_tiles=lambda: [1, 0, 3])
    predictor = SimpleNamespace(device="cpu", evaluate=lambda tile, axis: tile.numel() + axis)
    assert gpu.time_tiles(predictor, SimpleNamespace(handover=handover)) == (96 + 3 * (108 + 2)) / 4
