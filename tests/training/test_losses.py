"""Losses against their formulae, written again in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from volseg.errors import ParameterError
from volseg.training.config import TrainConfig
from volseg.training.losses import (
    LOSS_NAMES,
    LOSSES,
    centerline_loss,
    emnet_loss,
    jaccard_loss,
)


@pytest.fixture
def tensors():
    rng = np.random.default_rng(3)
    shape = (2, 1, 4, 5, 6)
    logits, lines = rng.normal(0, 2, shape), rng.normal(0, 2, shape)
    target, proximity = (rng.random(shape) > 0.7).astype(float), rng.random(shape)
    return logits, target, lines, proximity


def _torch(array):
    return torch.from_numpy(array.astype(np.float32))


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _jaccard(logits, target):
    p = _sigmoid(logits)
    overlap = (p * target).sum()
    return 1 - overlap / (p.sum() + target.sum() - overlap + 1e-5)


def _cross_entropy(logits, target):
    p = _sigmoid(logits)
    return -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()


def test_each_term_is_its_formula(tensors):
    logits, target, lines, proximity = tensors
    assert float(jaccard_loss(_torch(logits), _torch(target))) == pytest.approx(
        _jaccard(logits, target), rel=1e-5
    )
    assert float(centerline_loss(_torch(lines), _torch(proximity))) == pytest.approx(
        ((_sigmoid(lines) - proximity) ** 2).mean(), rel=1e-5
    )


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_sum_weighs_its_terms_and_without_cross_entropy_is_the_papers(tensors, weight):
    logits, target, lines, proximity = tensors
    found = emnet_loss(
        _torch(logits),
        _torch(target),
        (_torch(lines), _torch(proximity)),
        centerline_weight=3.0,
        cross_entropy_weight=weight,
    )
    paper = 0.7 * _jaccard(logits, target) + 0.3 * 3 * ((_sigmoid(lines) - proximity) ** 2).mean()
    assert float(found) == pytest.approx(paper + weight * _cross_entropy(logits, target), rel=1e-5)


def test_the_single_task_has_no_balance(tensors):
    logits, target, *_ = tensors
    found = emnet_loss(_torch(logits), _torch(target), None)
    assert float(found) == pytest.approx(_jaccard(logits, target), rel=1e-5)


def test_without_foreground_only_the_cross_entropy_pushes_false_positives_down():
    target = torch.zeros(1, 1, 4, 4, 4)

    def pull(weight):
        logits = torch.full_like(target, 1.0, requires_grad=True)
        emnet_loss(logits, target, None, cross_entropy_weight=weight).backward()
        return float(logits.grad.sum())

    assert abs(pull(0.0)) < 1e-5
    assert pull(0.5) > 0.1


def _dice(logits, target):
    p = _sigmoid(logits)
    return 1 - 2 * (p * target).sum() / (p.sum() + target.sum())


def _square_dice(logits, target):
    p = _sigmoid(logits)
    return 1 - 2 * (p * target).sum() / ((p**2).sum() + (target**2).sum())


FORMULAE = {
    "bce": _cross_entropy,
    "bce-dice": lambda logits, target: _cross_entropy(logits, target) + _dice(logits, target),
    "dice": _dice,
    "jaccard": _jaccard,
    "log-dice": lambda logits, target: -np.log(1 - _dice(logits, target)),
    "square-dice": _square_dice,
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_is_its_formula(tensors, name):
    logits, target, *_ = tensors
    found = LOSSES[name](_torch(logits), _torch(target))
    assert float(found) == pytest.approx(FORMULAE[name](logits, target), rel=1e-4)
    assert found.ndim == 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_perfect_prediction_costs_nothing_and_the_opposite_much(tensors, name):
    target = _torch(tensors[1])
    sure = 200 * target - 100
    assert float(LOSSES[name](sure, target)) == pytest.approx(0, abs=1e-5)
    assert float(LOSSES[name](-sure, target)) > 0.99


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_pull_towards_the_target_and_are_finite_far_off(tensors, name):
    target = _torch(tensors[1])
    for start in (0.0, 30.0, -30.0):
        logits = torch.full_like(target, start, requires_grad=True)
        LOSSES[name](logits, target).backward()
        assert torch.isfinite(logits.grad).all()
        if start == 0:
            assert (logits.grad[target > 0] < 0).all()
            assert (logits.grad[target == 0] > 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_patches_without_foreground_have_a_finite_loss_and_none_where_nothing_is_found(name):
    target = torch.zeros(1, 1, 2, 4, 4)
    # EM-Net's Jaccard loss has its epsilon below the line only: nothing over nothing is 0 there
    expected = 1 if name == "jaccard" else 0
    assert float(LOSSES[name](target - 100, target)) == pytest.approx(expected, abs=1e-5)
    assert np.isfinite(float(LOSSES[name](target, target)))


def test_a_loss_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(ParameterError, match=r"loss is one of bce, .*emnet, found 'focal'"):
        TrainConfig(steps=1, loss="focal")
    assert set(LOSS_NAMES) == {*LOSSES, "emnet"}
