"""Missed objects are marked where they are, also those of a mask."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from volseg.scores.mistakes import WrongObject
from volseg.stages.report.methods import _Citations, _describe_network
from volseg.stages.report.planes import Frame, cut_out, find_missed


class Missed:
    """An evaluation, of which only this is asked."""

    def __init__(self, *wrong):
        self.errors = self
        self.missed = self
        self.tolist = lambda: list(wrong)


@pytest.fixture
def truth():
    labels = np.zeros((8, 12, 14), np.uint8)
    labels[2:6, 3:7, 4:9] = 5
    labels[2:4, 8:10, 2:6] = 6
    return labels


@pytest.mark.parametrize("mask", [False, True])
def test_missed_objects_are_marked(truth, mask):
    region = slice(0, 8), slice(0, 12), slice(0, 14)
    picks = np.array([1, 3, 5]), np.array([4, 9]), np.array([5])
    frame = Frame(region, tuple(np.arange(n) for n in truth.shape), picks, 64)
    wrong = WrongObject(2 if mask else 6, 16, (2.5, 8.5, 3.5), ((2, 4), (8, 10), (2, 6)), 0.1)
    source = np.where(truth > 0, 255, 0).astype(np.uint8) if mask else truth
    planes = [np.moveaxis(source, a, 0)[picks[a]] for a in range(3)]
    found = find_missed(Missed(wrong), source, planes, frame)
    for axis in range(3):
        assert (found[axis] == (np.moveaxis(truth, axis, 0)[picks[axis]] == 6)).all()


def test_of_the_components_in_a_box_the_one_of_its_size_is_taken():
    values = np.zeros((1, 4, 6), np.uint8)
    values[0, 0] = 1
    values[0, 3, 5] = 1
    found = cut_out(values, WrongObject(9, 6, (0, 0, 2.5), ((0, 1), (0, 4), (0, 6)), 0))
    assert found.sum() == 6
    assert found[0, 0].all()


@pytest.mark.parametrize(
    ("architecture", "name", "along"),
    [
        ("unet2d", "A 2D U-Net [1] with", True),
        ("unet2d-depth5-filter5", "A 2D U-Net [1] (5 halvings, filters of 5 × 5) with", True),
        ("attention-unet-grid", "An Attention U-Net [1] with", True),
        ("attention-unet3d", "An Attention U-Net [1] with", False),
        ("unet2d-neighbours", "A 2D U-Net [1] (a slice and its neighbours as channels)", False),
        ("of-tomorrow", "A of-tomorrow with", False),
    ],
)
def test_methods_name_the_network_and_its_slices(architecture, name, along):
    labels = SimpleNamespace(attributes={"model": {"architecture": architecture, "name": "mine"}})
    run = {"averaged": [True, False, "ortho"]}
    probabilities = SimpleNamespace(attributes={"run": run})
    text = _describe_network(labels, probabilities, _Citations())
    assert text.startswith(name)
    assert ("on slices along z, y and x, averaged" in text) is along
