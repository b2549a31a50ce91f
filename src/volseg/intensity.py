"""Intensities: the one mapping from stored values to what networks see."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Floats


def normalise(raw: NDArray[Any], window: tuple[float, float]) -> Floats:
    """Map intensities linearly so that the window becomes -1..1; nothing is clipped.

    Parameters
    ----------
    raw : any real type, any shape
    window : (low, high)
        Intensities, frozen once per volume; ``low < high``.

    Returns
    -------
    float32, shape of ``raw``

    Examples
    --------
    >>> normalise(np.array([10, 20, 40]), (10, 30))
    array([-1.,  0.,  2.], dtype=float32)
    """
    low, high = window
    return (raw.astype(np.float32) - np.float32(low)) * np.float32(2 / (high - low)) - np.float32(1)
