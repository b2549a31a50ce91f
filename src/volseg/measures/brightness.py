"""Mean intensity of objects as a part of the range of the tissue. Pure functions over arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from volseg.measures.object_table import Column

BRIGHTNESS = "brightness"
BRIGHT = 0.45
"""Part of the range that few mitochondria reach (decision 0093)."""


def add_brightness(
    columns: dict[str, Column], units: dict[str, str], window: tuple[float, float]
) -> None:
    """Add the mean intensity as a part of a volume's range, which volumes can be compared by.

    Parameters
    ----------
    columns, units : of `object_table`, with the intensities
    window : intensities that count as 0 and 1

    Examples
    --------
    >>> columns, units = {"intensity_mean": np.array([50.0, 90.0])}, {"intensity_mean": "1"}
    >>> add_brightness(columns, units, (30, 230))
    >>> columns["brightness"].tolist()
    [0.1, 0.3]
    """
    dark, bright = window
    columns[BRIGHTNESS] = (columns["intensity_mean"] - dark) / (bright - dark)
    units[BRIGHTNESS] = "1"


def find_bright(columns: Mapping[str, Column]) -> NDArray[np.int64]:
    """Find the rows of objects that are brighter than mitochondria mostly are, largest first.

    Where they are most of the foreground, the volume shows bright what others show dark, and none
    count.

    Examples
    --------
    >>> columns = {"brightness": np.array([0.2, 0.6, 0.3]), "voxels": np.array([7, 2, 9])}
    >>> find_bright(columns).tolist()
    [1]
    """
    voxels = columns["voxels"]
    rows = np.flatnonzero(columns[BRIGHTNESS] >= BRIGHT)
    rows = rows[np.argsort(-voxels[rows], kind="stable")]
    return rows if 2 * int(voxels[rows].sum()) < int(voxels.sum()) else rows[:0]
