"""The schedule, and recipes that cannot be."""

from __future__ import annotations

import pytest

from volseg.errors import ParameterError
from volseg.training.config import TrainConfig, learning_rate


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
    ],
)
def test_recipes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        TrainConfig(**changes)
