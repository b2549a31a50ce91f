"""Losses against their formulae, written again in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from volseg.training.losses import centerline_loss, emnet_loss, jaccard_loss


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
