"""Find objects with thin necks, among those that are farthest from round."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from volseg.geometry.grid import grow
from volseg.objects.seeding import has_neck
from volseg.stages.report.plan import Subject
from volseg.types import Roi, zyx

MOST = 200
"""Objects of a volume that are looked at, the least spherical first."""
LARGEST = 1 << 18
"""Voxels of an object's box, at the level at which it is looked at."""
SMALLEST = 200
"""Voxels below which the form of an object is not known well enough."""


def find_necks(subject: Subject) -> frozenset[int]:
    """List the rows of objects with a thin neck; none without scikit-image or shapes.

    Each is read at the finest level at which its box is small.
    """
    columns = subject.columns
    if "sphericity" not in columns or find_spec("skimage") is None:
        return frozenset()
    known = np.isfinite(columns["sphericity"]) & (columns["voxels"] >= SMALLEST)
    rows = np.flatnonzero(known)
    order = np.argsort(columns["sphericity"][rows], kind="stable")[:MOST]
    return frozenset(int(row) for row in rows[order] if _look(subject, int(row)))


def _look(subject: Subject, row: int) -> bool:
    columns, image = subject.columns, subject.labels
    bounds = [[int(columns[f"bbox_{a}_{e}"][row]) for e in ("start", "stop")] for a in "zyx"]
    size = subject.summary.voxel_size or (1.0, 1.0, 1.0)
    for array, factors in zip(image.levels, image.factors, strict=True):
        z, y, x = (
            slice(int(first // f), int(-(-last // f)))
            for (first, last), f in zip(bounds, factors, strict=True)
        )
        box: Roi = grow((z, y, x), (0, 0, 0), array.shape)
        if np.prod([s.stop - s.start for s in box]) > LARGEST:
            continue
        spacing = [s * f for s, f in zip(size, factors, strict=True)]
        mask = array[box] == columns["label"][row]
        return has_neck(mask, zyx(spacing))
    return False
