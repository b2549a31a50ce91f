"""Mean intensity of objects as a part of the range of the tissue. Pure functions over arrays."""

from __future__ import annotations

from collections.abc import Mapping

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
    >>> import numpy as np
    >>> columns, units = {"intensity_mean": np.array([50.0, 90.0])}, {"intensity_mean": "1"}
    >>> add_brightness(columns, units, (30, 230))
    >>> columns["brightness"].tolist()
    [0.1, 0.3]
    """
    dark, bright = window
    columns[BRIGHTNESS] = (columns["intensity_mean"] - dark) / (bright - dark)
    units[BRIGHTNESS] = "1"


def count_bright(columns: Mapping[str, Column]) -> tuple[int, int]:
    """Count the objects that are brighter than mitochondria mostly are, and their voxels.

    Where they are most of the foreground, the volume shows bright what others show dark, and none
    count.

    Examples
    --------
    >>> import numpy as np
    >>> columns = {"brightness": np.array([0.2, 0.6, 0.3]), "voxels": np.array([7, 2, 9])}
    >>> count_bright(columns)
    (1, 2)
    """
    bright, voxels = columns[BRIGHTNESS] >= BRIGHT, columns["voxels"]
    some = int(voxels[bright].sum())
    return (int(bright.sum()), some) if 2 * some < voxels.sum() else (0, 0)
