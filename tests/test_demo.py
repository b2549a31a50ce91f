"""The demo's picture and score, and the crop that it stands on."""

from __future__ import annotations

import ast
import importlib.util
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from volseg.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo():
    path = ROOT / "examples" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_crop_is_what_its_readme_says(crop):
    with tifffile.TiffFile(crop / "raw.tif") as file:
        raw, metadata = file.asarray(), file.imagej_metadata
    truth = tifffile.imread(crop / "labels.tif")
    assert raw.shape == truth.shape == (32, 384, 384)
    assert raw.dtype == truth.dtype == np.uint8
    assert (metadata["spacing"], metadata["unit"]) == (5.0, "nm")
    assert np.unique(truth).tolist() == [0, 255]
    assert ndimage.label(truth, np.ones((3, 3, 3)))[1] == 7
    assert 0.085 < (truth > 0).mean() < 0.095


def test_outlines_are_the_inner_rims_of_objects(demo):
    labels = np.zeros((9, 9), int)
    labels[1:6, 1:6], labels[1:6, 6:8] = 1, 2
    marked = demo.outlines(labels)
    assert not marked[labels == 0].any()
    inner = np.zeros_like(marked)
    inner[2:5, 2:5] = True
    assert (marked[labels == 1] == ~inner[labels == 1]).all()
    assert marked[labels == 2].all()


def test_overlay_shows_three_panels(demo, crop):
    raw = tifffile.imread(crop / "raw.tif", key=16)
    truth = tifffile.imread(crop / "labels.tif", key=16)
    picture = demo.overlay(raw, np.zeros_like(truth), truth)
    n = raw.shape[1]
    assert picture.shape == (raw.shape[0], 3 * n + 2 * demo.GAP, 3)
    first, second, third = (picture[:, k * (n + demo.GAP) :][:, :n] for k in range(3))
    assert (first == raw[..., None]).all()
    assert (second == first).all()
    changed = (third != first).any(axis=2)
    assert changed.any()
    assert (truth[changed] > 0).all()


def test_the_demo_runs_the_commands_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    promised = [shlex.split(line) for line in readme.splitlines() if line.startswith("    volseg ")]
    run = [
        [part.value for part in node.args if isinstance(part, ast.Constant)]
        for node in ast.walk(ast.parse((ROOT / "examples" / "demo.py").read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run"
    ]
    # places differ, and the demo may be run again; the first command does what the others do
    bare = [
        [word for word in words if ".tif" not in word and ".zarr" not in word][1:]
        for words in promised[1:4]
    ]
    assert [
        [word for word in words if word != "--overwrite" and ".tif" not in word] for words in run
    ] == bare
    example = main.get_help(click.Context(main))
    assert all(shlex.join(words) in example for words in promised[:4])
