"""What is missed, false, merged or split is marked where it is, also of a mask."""

from __future__ import annotations

import base64
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest

from volseg.geometry.grid import full_roi
from volseg.scores.contingency import count_pairs
from volseg.scores.matching import find_matches, find_overlaps
from volseg.scores.mistakes import WrongObject, find_errors
from volseg.stages.report.drawing import (
    ALONE,
    MERGED,
    ORANGE,
    PURPLE,
    SKY,
    SPLIT,
    VERMILLION,
    YELLOW,
    draw_objects,
    draw_truth,
)
from volseg.stages.report.methods import _Citations, _describe_network
from volseg.stages.report.planes import Frame, cut_out, find_lost, find_wrong


@pytest.fixture
def truth():
    labels = np.zeros((8, 12, 14), np.uint8)
    labels[2:6, 3:7, 4:9] = 5
    labels[2:4, 8:10, 2:6] = 6
    return labels


def errors_of(truth, predicted):
    overlaps = find_overlaps(count_pairs(truth, predicted, full_roi(truth.shape)))
    return find_errors(overlaps, find_matches(overlaps, 0.5))


@pytest.mark.parametrize("mask", [False, True])
def test_missed_objects_are_marked(truth, mask):
    region = slice(0, 8), slice(0, 12), slice(0, 14)
    picks = np.array([1, 3, 5]), np.array([4, 9]), np.array([5])
    frame = Frame(region, tuple(np.arange(n) for n in truth.shape), picks, 64)
    numbers = np.where(truth == 6, 2, truth) if mask else truth  # as evaluation numbers components
    errors = errors_of(numbers, np.where(truth == 5, truth, 0))
    source = np.where(truth > 0, 255, 0).astype(np.uint8) if mask else truth
    planes = [np.moveaxis(source, a, 0)[picks[a]] for a in range(3)]
    found = find_lost(errors, source, planes, frame)
    for axis in range(3):
        missed = np.moveaxis(truth, axis, 0)[picks[axis]] == 6
        np.testing.assert_array_equal(found[axis], np.where(missed, ALONE, 0))


@pytest.mark.parametrize("mask", [False, True])
def test_what_is_joined_or_divided_is_drawn_so_and_not_as_missed_or_false(mask):
    """Rows of one plane: right, missed and false, merged, split, and a large one with a speck."""
    truth, predicted = np.zeros((2, 1, 20, 24), np.uint8)
    lost, wrong = np.zeros((2, 1, 20, 24), np.uint8)
    truth[0, 0, :9] = predicted[0, 0, :9] = 1
    truth[0, 3, :7], predicted[0, 4, 11:] = 2, 2
    lost[0, 3, :7], wrong[0, 4, 11:] = ALONE, ALONE
    truth[0, 7, :4], truth[0, 7, 5:10], predicted[0, 7, :11] = 3, 4, 3
    lost[0, 7, :4] = lost[0, 7, 5:10] = wrong[0, 7, :11] = MERGED
    truth[0, 11, :12], predicted[0, 11, :5], predicted[0, 11, 6:11] = 5, 4, 5
    lost[0, 11, :12] = wrong[0, 11, :5] = wrong[0, 11, 6:11] = SPLIT
    truth[0, 15, :18], truth[0, 15, 19:21], predicted[0, 15, :22] = 6, 7, 6  # 6 has a partner
    lost[0, 15, :18] = lost[0, 15, 19:21] = wrong[0, 15, :22] = MERGED
    frame = Frame(
        full_roi(truth.shape), tuple(map(np.arange, truth.shape)), (np.arange(1),) * 3, 64
    )
    errors = errors_of(truth, predicted)
    source = np.where(truth > 0, 255, 0).astype(np.uint8) if mask else truth
    np.testing.assert_array_equal(find_lost(errors, source, [source] * 3, frame)[0], lost)
    np.testing.assert_array_equal(find_wrong(errors, [predicted])[0], wrong)
    colours = {0: SKY, ALONE: VERMILLION, MERGED: PURPLE, SPLIT: ORANGE}
    drawn = unpack(draw_objects(predicted[0], wrong[0]))
    for kind, colour in colours.items():
        seen = drawn[(predicted[0] > 0) & (wrong[0] == kind)]
        assert set(map(tuple, seen[:, :3])) == {colour}
    drawn = unpack(draw_truth(truth[0], lost[0]))
    for kind, colour in (colours | {0: YELLOW, ALONE: YELLOW}).items():
        seen = drawn[(truth[0] > 0) & (lost[0] == kind)]
        assert set(map(tuple, seen[:, :3])) == {colour}


def unpack(picture):
    return imagecodecs.webp_decode(base64.b64decode(picture.partition(",")[2]))


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
