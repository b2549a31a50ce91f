"""Compare a measure of the objects of several volumes. Pure functions over arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEWEST = 3
"""Objects that a volume must have to be compared."""


@dataclass(frozen=True)
class Comparison:
    """Test of one measure.

    Attributes
    ----------
    measure : name of the column
    test : its name
    groups : number of volumes
    statistic, p : of the test, two-sided
    p_holm : p, corrected by Holm's method for all measures that are compared
    effect : name of the effect size
    size : effect size
    """

    measure: str
    test: str
    groups: int
    statistic: float
    p: float
    p_holm: float
    effect: str
    size: float


def compare_volumes(measures: Mapping[str, Sequence[NDArray[Any]]]) -> list[Comparison]:
    """Test whether objects of several volumes are drawn from one distribution, by ranks.

    Two volumes are compared by the Mann-Whitney U test with Cliff's delta, more by the
    Kruskal-Wallis test with epsilon squared. Neither takes values to be normally distributed.

    Parameters
    ----------
    measures : by name, the values in each volume

    Returns
    -------
    One entry per measure of which at least two volumes have `FEWEST` values or more.

    Notes
    -----
    H. B. Mann and D. R. Whitney, Ann. Math. Stat. 1947; W. H. Kruskal and W. A. Wallis, JASA 1952;
    N. Cliff, "Dominance statistics", Psychol. Bull. 1993; S. Holm, Scand. J. Stat. 1979.

    Examples
    --------
    >>> found = compare_volumes({"a": [np.arange(8.0), np.arange(8.0) + 6]})[0]
    >>> found.test, found.effect, found.size
    ('Mann-Whitney U', "Cliff's delta", -0.9375)
    """
    found = []
    for name, groups in measures.items():
        finite = [values[np.isfinite(values)] for values in groups]
        enough = [values for values in finite if len(values) >= FEWEST]
        if len(enough) > 1:
            found.append(_compare(name, enough))
    corrected = correct_by_holm([c.p for c in found])
    return [replace(c, p_holm=p) for c, p in zip(found, corrected, strict=True)]


def _compare(name: str, groups: Sequence[NDArray[Any]]) -> Comparison:
    from scipy import stats

    if len(np.unique(np.concatenate(groups))) == 1:
        return Comparison(name, "none: all values are equal", len(groups), 0, 1, 1, "none", 0)
    if len(groups) == 2:
        u, p = stats.mannwhitneyu(*groups)
        delta = 2 * u / (len(groups[0]) * len(groups[1])) - 1
        return Comparison(
            name, "Mann-Whitney U", 2, float(u), float(p), float(p), "Cliff's delta", float(delta)
        )
    h, p = stats.kruskal(*groups)
    size = h / (sum(map(len, groups)) - 1)
    return Comparison(
        name,
        "Kruskal-Wallis H",
        len(groups),
        float(h),
        float(p),
        float(p),
        "epsilon squared",
        float(size),
    )


def correct_by_holm(values: Sequence[float]) -> list[float]:
    """Correct p values of several tests, so that any false finding stays as unlikely as stated.

    Examples
    --------
    >>> correct_by_holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(values, kind="stable")
    corrected, highest = [0.0] * len(values), 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min((len(values) - rank) * values[k], 1.0))
        corrected[k] = highest
    return corrected
