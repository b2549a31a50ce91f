"""The demo's picture and score, and the crop that it stands on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage


@pytest.fixture(scope="module")
def demo():
    path = Path(__file__).parents[1] / "examples" / "demo.py"
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


def test_jaccard_of_masks(demo):
    a, b = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert demo.jaccard(a, b) == pytest.approx(1 / 3)
    assert demo.jaccard(a, a) == demo.jaccard(~a & a, ~a & a) == 1
