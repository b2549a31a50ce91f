"""Rank objects for proofreading: those that are least like the others, or least sure. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.measures.rules import PLACES
from volseg.types import Doubles, Mask

UNUSUAL = 3.0
"""Robust z from which a value is unusual."""
FEW = 8
"""Objects from which their spread is known well enough to call one unusual."""
SURE = 0.95
"""Mean probability below which an object is doubtful."""
CAP = 5.0
"""Most that one reason counts, so that a single wild value does not rank above several reasons."""
BORDER, NECK = 0.5, 1.5
"""Scores of objects at the border, and of those with a thin neck."""
AGREED = {"flips": 0.05, "views": 0.15}
"""Standard deviation of an object's probability up to which they agree. Slices along other axes
look less like what the network learned from: three true objects of the crop have 0.05 to 0.15."""
MARKS, STEPS = 10.0, 20
"""Marks that all of a kind weigh as much as; steps of Newton's method, more than enough."""
FORMS = {
    "voxels": ("large", "small"),
    "sphericity": ("round", "far from round"),
    "complexity_index": ("branched", "simple"),
    "elongation": ("long", "short"),
}
"""Columns that are compared on a logarithmic scale, with what is said of high and low values."""


@dataclass(frozen=True)
class Suspect:
    """An object to look at.

    Attributes
    ----------
    row : in the table of objects
    score : the higher, the sooner to look
    reasons : in words, the strongest first
    """

    row: int
    score: float
    reasons: tuple[str, ...]


def robust_z(values: NDArray[Any]) -> Doubles:
    """Compare values with their median, in units of 1.4826 times the median absolute deviation.

    Returns
    -------
    0 for values that are not finite, and all 0 where more than half of the values are equal.

    Notes
    -----
    F. R. Hampel, "The influence curve and its role in robust estimation", JASA 1974.

    Examples
    --------
    >>> robust_z(np.array([1.0, 2.0, 3.0, 4.0, 50.0])).round(2).tolist()
    [-1.35, -0.67, 0.0, 0.67, 31.7]
    """
    known = np.isfinite(values)
    out = np.zeros(len(values))
    if known.any():
        apart = values[known] - np.median(values[known])
        spread = 1.4826 * float(np.median(np.abs(apart)))
        out[known] = apart / spread if spread > 0 else 0.0
    return out


def rank_suspects(
    columns: Mapping[str, NDArray[Any]],
    most: int,
    necks: Collection[int] = (),
    flips: Mapping[int, float] | None = None,
    views: Mapping[int, float] | None = None,
) -> list[Suspect]:
    """Rank the objects of a volume by how much speaks for looking at them.

    Parameters
    ----------
    columns : of `volseg.measures.object_table.object_table`
    necks : rows of objects with a thin neck
    flips, views : by row, standard deviation of the probability over them, of those looked at

    Returns
    -------
    Objects with at least one reason besides the border, then those at the border; of equal ones
    the larger first.
    """
    voxels = columns["voxels"]
    reasons: list[list[tuple[float, str]]] = [[] for _ in voxels]

    def note(scores: NDArray[Any], words: str) -> None:
        for row in np.flatnonzero(scores > 0):
            reasons[row].append((min(float(scores[row]), CAP), words))

    if "probability_mean" in columns:
        note(10 * (SURE - columns["probability_mean"]), "low mean probability")
    for name, (high, low) in FORMS.items() if len(voxels) >= FEW else ():
        if name in columns:
            with np.errstate(divide="ignore"):
                z = robust_z(np.log(columns[name]))
            note(z - UNUSUAL, f"unusually {high}")
            note(-z - UNUSUAL, f"unusually {low}")
    note(BORDER * columns["touches_border"], "touches the border")
    for row in necks:
        reasons[row].append((NECK, "thin neck, maybe several"))
    for words, deviations in (("flips", flips or {}), ("views", views or {})):
        for row, deviation in deviations.items():
            if deviation > AGREED[words]:
                score = min(10 * (deviation - AGREED[words]), CAP)
                reasons[row].append((score, f"{words} disagree by {deviation:.2f}"))
    found = [
        Suspect(row, sum(score for score, _ in why), tuple(w for _, w in sorted(why, reverse=True)))
        for row, why in enumerate(reasons)
        if why
    ]
    found.sort(key=lambda s: (-s.score, -int(voxels[s.row])))
    return found[:most]


def liken(columns: Mapping[str, NDArray[Any]], no: Mask, yes: Mask) -> Doubles:
    """Estimate of each object how like it is to those marked no, by a logistic regression.

    It tells them from those marked yes or, without any, from all others. Columns count by ranks, so
    that neither units nor single wild values matter.

    Parameters
    ----------
    columns : of `volseg.measures.object_table.object_table`
    no, yes : bool, shape (objects,); at least one is marked no.

    Returns
    -------
    float64, shape (objects,); 0 to 1.

    Examples
    --------
    >>> marked = np.eye(4, dtype=bool)
    >>> liken({"voxels": np.array([9, 1, 8, 2])}, marked[0], marked[1]).round(1).tolist()
    [0.9, 0.1, 0.7, 0.3]
    """
    known = [
        c for name, c in columns.items() if c.dtype.kind in "iuf" and not PLACES.fullmatch(name)
    ]
    ranks = [np.searchsorted(np.sort(c), c).astype(np.float64) for c in known]
    seen = np.stack([*((2 * r - r.max()) / max(r.max(), 1.0) for r in ranks), np.ones(len(no))], 1)
    others = yes if yes.any() else ~no
    weights = MARKS * (no / no.sum() + others / others.sum())
    slopes, ridge = np.zeros(seen.shape[1]), np.eye(seen.shape[1])
    ridge[-1, -1] = 1e-6
    for _ in range(STEPS):
        found = 1 / (1 + np.exp(-seen @ slopes))
        gradient = seen.T @ (weights * (found - no)) + ridge @ slopes
        curvature = (seen.T * (weights * found * (1 - found))) @ seen + ridge
        slopes -= np.linalg.solve(curvature, gradient)
    likeness: Doubles = 1 / (1 + np.exp(-seen @ slopes))
    return likeness
