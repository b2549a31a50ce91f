"""Volumes are compared by ranks, as scipy does, with Holm's correction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from volseg.measures.comparison import compare_volumes, correct_by_holm


def test_two_volumes():
    random = np.random.default_rng(1)
    a, b = random.normal(0, 1, 50), random.normal(1, 1, 40)
    b[3] = np.nan
    (found,) = compare_volumes({"size": [a, b]})
    known = b[np.isfinite(b)]
    expected = stats.mannwhitneyu(a, known)
    assert (found.test, found.statistic, found.p) == ("Mann-Whitney U", *expected)
    delta = np.sign(a[:, None] - known[None]).mean()
    assert found.size == pytest.approx(delta)


def test_several_volumes_and_measures():
    random = np.random.default_rng(2)
    groups = [random.normal(k, 1, 30) for k in range(3)]
    same = [random.normal(0, 1, 30) for _ in range(3)]
    found = compare_volumes(
        {"a": groups, "b": same, "one": [same[0]], "few": [same[0], same[1][:2]]}
    )
    assert [c.measure for c in found] == ["a", "b"]
    assert found[0].p == stats.kruskal(*groups).pvalue
    assert found[0].size == pytest.approx(found[0].statistic / 89)
    assert [c.p_holm for c in found] == correct_by_holm([c.p for c in found])


def test_equal_values_are_not_compared():
    (found,) = compare_volumes({"a": [np.ones(5), np.ones(6)]})
    assert (found.p, found.effect) == (1, "none")
