"""Rules about a column of the table of objects, such as ``darkness>0.4``. Pure functions."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError
from volseg.types import Mask

SIGNS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
FORM = re.compile(r"\s*([a-z]\w*)\s*(>=|<=|>|<)\s*(\S+)\s*")
FEW = 5
"""Objects of each kind from which a number may tell them apart."""
PLACES = re.compile(
    r"label|centroid_.*|bbox_.*|touches_.*|orientation_.*|nearest_neighbour.*|brightness"
)
"""Columns that say where an object is, not what it is like, and the one that repeats another."""


@dataclass(frozen=True)
class Rule:
    """A statement about a column that holds for the objects that are kept."""

    column: str
    sign: str
    bound: float

    def __str__(self) -> str:
        short = f"{self.bound:g}"
        exact = short if float(short) == self.bound else repr(self.bound)
        return f"{self.column}{self.sign}{exact}"

    def broken_by(self, columns: Mapping[str, NDArray[Any]]) -> Mask:
        """Tell of each object whether it breaks the rule; what could not be measured does not.

        Examples
        --------
        >>> Rule("darkness", ">", 0.4).broken_by({"darkness": np.array([0.3, 0.5, np.nan])})
        array([ True, False, False])
        """
        values = columns.get(self.column)
        if values is None or values.dtype.kind not in "iuf":
            known = ", ".join(
                name for name, column in columns.items() if column.dtype.kind in "iuf"
            )
            raise ParameterError(f"there is no column {self.column!r}; the table has {known}")
        broken: Mask = ~SIGNS[self.sign](values, self.bound) & np.isfinite(values)
        return broken


def parse_rule(text: str) -> Rule:
    """Read a rule.

    Examples
    --------
    >>> parse_rule("largest_section_nm2 <= 1.5e6")
    Rule(column='largest_section_nm2', sign='<=', bound=1500000.0)
    >>> str(parse_rule("voxels>35.0000001")), str(parse_rule("voxels<=1e9"))
    ('voxels>35.0000001', 'voxels<=1e+09')
    """
    match = FORM.fullmatch(text)
    column, sign, number = match.groups() if match else ("", "", "")
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise ParameterError(
            f"a rule is a column of the table, one of {', '.join(SIGNS)}, and a number, such as "
            f"'darkness>0.4'; found {text!r}"
        )
    return Rule(column, sign, bound)


def tell_apart(columns: Mapping[str, NDArray[Any]], yes: Mask, no: Mask) -> Rule | None:
    """Find the one number that best tells what is marked yes from what is marked no.

    It has to lie between all of them, at the widest gap, as a part of what the column spans.

    Parameters
    ----------
    columns : of the table of objects
    yes, no : bool, shape (objects,)

    Returns
    -------
    none where marks are few, or no number tells them apart.

    Examples
    --------
    >>> size, even = np.arange(10), np.array([5, 6, 7, 7, 8, 1, 1.5, 2, 1, 1])
    >>> yes = np.array([True] * 5 + [False] * 5)
    >>> str(tell_apart({"voxels": size, "evenness": even}, yes, ~yes))
    'evenness>3.5'
    """
    if min(yes.sum(), no.sum()) < FEW:
        return None
    best, widest = None, 0.0
    for name, column in columns.items():
        if PLACES.fullmatch(name) or column.dtype.kind not in "iuf":
            continue
        ours, theirs = (column[kind].astype(np.float64) for kind in (yes, no))
        both = np.concatenate([ours, theirs])
        if not np.isfinite(both).all():
            continue
        above = bool(ours.min() > theirs.max())
        low, high = (theirs.max(), ours.min()) if above else (ours.max(), theirs.min())
        gap = float(high - low) / (float(np.ptp(both)) or 1.0)
        bound = float(f"{(low + high) / 2:.3g}")
        if gap > widest and low < bound < high:
            best, widest = Rule(name, ">" if above else "<", bound), gap
    return best
