"""The schedule, and recipes that cannot be."""

from __future__ import annotations

import sys

import pytest
import torch

from volseg.errors import ParameterError
from volseg.training.augmentation import Augmentation
from volseg.training.config import TrainConfig, learning_rate, steps_per_epoch
from volseg.training.network import RARE, build_network, check_network


def test_the_rate_warms_up_and_falls_as_a_cosine_to_a_hundredth():
    config = TrainConfig(steps=100, learning_rate=2e-3, warmup=0.1)
    assert learning_rate(config, 0) == 0
    assert learning_rate(config, 0.05) == pytest.approx(1e-3)
    assert learning_rate(config, 0.1) == pytest.approx(2e-3)
    assert learning_rate(config, 0.55) == pytest.approx(2e-3 * (0.01 + 0.99 / 2))
    assert learning_rate(config, 1) == learning_rate(config, 1.3) == pytest.approx(2e-5)
    rates = [learning_rate(config, k / 100) for k in range(10, 101)]
    assert rates == sorted(rates, reverse=True)


def test_without_warm_up_it_begins_at_its_highest():
    assert learning_rate(TrainConfig(steps=9, warmup=0), 0) == pytest.approx(2e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "exactly one"),
        ({"steps": 5, "minutes": 1.0}, "exactly one"),
        ({"steps": 0}, "steps must be above 0, found 0"),
        ({"minutes": float("inf")}, "minutes must be above 0"),
        ({"steps": 5, "batch": 0}, "batch must be positive, found 0"),
        ({"steps": 5, "learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"steps": 5, "foreground_share": 1.5}, "part of 1, found 1.5"),
        ({"epochs": 5, "minutes": 1.0}, "found minutes and epochs"),
        ({"epochs": 0}, "epochs must be above 0, found 0"),
        ({"steps": 5, "fraction": 0.0}, "fraction is a part of 1, above 0"),
        ({"steps": 5, "patience": -1}, "patience must be at least 0, found -1"),
        ({"steps": 5, "loss": "focal"}, r"loss is one of bce, .*, found 'focal'"),
        ({"steps": 5, "optimizer": "lion"}, "optimizer is one of adam, adamw, sgd"),
        ({"steps": 5, "betas": (0.9, 1.0)}, "betas and momentum are at least 0 and below 1"),
        ({"steps": 5, "epsilon": 0}, "epsilon must be positive"),
        ({"steps": 5, "ignore": 2}, "heeded with classes or auxiliary maps alone"),
        ({"steps": 5, "architecture": "unet2d", "ignore": 2, "classes": ("a=2",)}, "is ignored"),
        ({"steps": 5, "schedule": "none"}, "schedule is one of constant, cosine, step"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        TrainConfig(**changes)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("zoom", (0.0, 1.0), "two numbers above 0 that rise"),
        ("zoom", (2.0, 1.0), "two numbers above 0 that rise"),
        ("rotate", (180.0, 0.0), "two numbers that rise"),
        ("section_thickness", (-1.0, 2.0), "two numbers above 0 that rise"),
        ("elastic_sigma", 0.0, "a number above 0"),
        ("contrast", float("nan"), "a number of at least 0"),
        ("gamma", float("inf"), "a number of at least 0"),
        ("shift", -0.2, "a number of at least 0"),
        ("curve", 2.0, "a part of 1"),
        ("centre_crop", 2.0, "a part of 1"),
    ],
)
def test_changes_to_patches_that_cannot_be_drawn_are_refused(name, value, rule):
    TrainConfig(steps=1, augmentation=Augmentation(rotate=(-30.0, 30.0), elastic_alpha=0.0))
    with pytest.raises(ParameterError, match=f"{name} is {rule}, found"):
        TrainConfig(steps=1, augmentation=Augmentation(**{name: value}))


def test_the_published_schedule_falls_by_a_tenth_every_fifteen_epochs():
    config = TrainConfig(epochs=60, schedule="step", learning_rate=1e-4, warmup=0.0)
    rates = [learning_rate(config, epoch / 60, epoch) for epoch in (0, 14.99, 15, 59)]
    assert rates == pytest.approx([1e-4, 1e-4, 0.9e-4, 0.729e-4])


def test_a_constant_rate_still_warms_up():
    config = TrainConfig(steps=10, schedule="constant", learning_rate=1e-3, warmup=0.5)
    assert [learning_rate(config, p) for p in (0.25, 0.5, 1.0)] == pytest.approx([5e-4, 1e-3, 1e-3])


def test_an_epoch_draws_at_least_as_many_voxels_as_there_are():
    config = TrainConfig(steps=1, patch=(2, 10, 10), batch=3)
    assert [steps_per_epoch(config, n) for n in (1, 600, 601, 6000)] == [1, 1, 2, 10]


def test_contours_are_not_learned_without_what_splits_objects(monkeypatch):
    config = TrainConfig(
        steps=1, architecture="unet2d", patch=(1, 32, 32), loss="bce-dice", auxiliary=("contour",)
    )
    check_network(config)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ParameterError, match="needs scikit-image"):
        check_network(config)


def test_a_new_map_is_found_nowhere_and_leaves_the_others_as_they_were():
    recipe = {"architecture": "unet2d", "width": 2, "patch": (1, 32, 32), "steps": 1}
    one = build_network(TrainConfig(**recipe)).eval()
    two = build_network(
        TrainConfig(**recipe, classes=("cells",), auxiliary=("contour",)), one.state_dict()
    ).eval()
    raw = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        before, (cells, contour) = one(raw)[0, 0], two(raw)[0]
    torch.testing.assert_close(cells, before)
    assert contour.unique().tolist() == [RARE]


def test_maps_of_the_same_name_keep_their_filters_wherever_they_stand():
    recipe = {"architecture": "unet2d", "width": 2, "patch": (1, 32, 32), "steps": 1}
    first = TrainConfig(**recipe, classes=("cells", "gaps"), auxiliary=("contour",))
    second = TrainConfig(**recipe, classes=("gaps", "dots", "cells"), auxiliary=("distance",))
    one = build_network(first).eval()
    two = build_network(second, one.state_dict(), first.maps).eval()
    raw = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        (cells, gaps, _), found = one(raw)[0], two(raw)[0]
    torch.testing.assert_close(found[0], gaps)
    torch.testing.assert_close(found[2], cells)
    assert found[[1, 3]].unique().tolist() == [RARE]


def test_new_offsets_point_nowhere():
    recipe = {"architecture": "unet2d", "width": 2, "patch": (1, 32, 32), "steps": 1}
    one = build_network(TrainConfig(**recipe)).eval()
    two = TrainConfig(**recipe, auxiliary=("contour", "offset"))
    with torch.no_grad():
        found = build_network(two, one.state_dict()).eval()(torch.rand(1, 1, 32, 32))[0]
    assert found[1].unique().tolist() == [RARE]
    assert found[2:].unique().tolist() == [0]


@pytest.mark.parametrize(
    "others", [{"classes": ("a=1", "b=2")}, {"auxiliary": ("contour",)}, {"architecture": "emnet"}]
)
def test_mitochondria_are_painted_where_nothing_else_is_to_be_known_of_them(others):
    loss = "emnet" if others.get("architecture") else "bce-dice"
    painted = Augmentation(crowd_probability=0.1)
    with pytest.raises(ParameterError, match="crowd_probability"):
        TrainConfig(
            **{"architecture": "unet2d", **others}, loss=loss, steps=1, augmentation=painted
        )
    TrainConfig(architecture="emnet", loss="bce", steps=1, augmentation=painted)


@pytest.mark.parametrize("name", ["crowd_probability", "flip_probability"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_probability_is_a_part_of_one(name, value):
    with pytest.raises(ParameterError, match=f"{name} is a part of 1, found"):
        TrainConfig(steps=1, augmentation=Augmentation(**{name: value}))
