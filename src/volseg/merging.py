"""Add up partial sums of the same objects, from any blocks in any order. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

Sums = TypeVar("Sums", bound=Any)

REDUCTIONS: dict[str, np.ufunc] = {
    "starts": np.minimum,
    "stops": np.maximum,
    "lowest": np.minimum,
    "highest": np.maximum,
}
"""How the rows of one object become one, by the column's name; all others are added."""


def merge(parts: Sequence[Sums]) -> Sums:
    """Add up the sums of several blocks; at least one.

    Parameters
    ----------
    parts : frozen dataclasses of one kind
        Arrays with one row per object, among them ``labels``; a label may occur in several parts.

    Returns
    -------
    of the same kind, one row per label, ascending
    """
    if len(parts) == 1:
        return parts[0]
    kind = type(parts[0])
    columns = {
        f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(parts[0])
    }
    joined: Sums = kind(**columns)
    return group(joined)


def group(rows: Sums) -> Sums:
    """Reduce rows of equal labels to one, and sort them.

    Integers wrap around where they do not fit, which addition undoes again: see `Moments`.
    """
    labels = rows.labels
    if not len(labels):
        return rows
    order = np.argsort(labels, kind="stable")
    labels = labels[order]
    heads = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
    columns = {"labels": labels[heads]}
    for field in fields(rows):
        if field.name != "labels":
            reduce = REDUCTIONS.get(field.name, np.add).reduceat
            columns[field.name] = reduce(getattr(rows, field.name)[order], heads)
    grouped: Sums = type(rows)(**columns)
    return grouped
