"""Objects that the border of what is looked at may cut. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.types import Roi


@dataclass(frozen=True)
class Borders:
    """A region of slices that are unrelated images.

    Attributes
    ----------
    sizes : (y, x) of each image of the volume
    """

    region: Roi
    sizes: Sequence[tuple[int, int]]


def reaches_border(
    starts: NDArray[np.int64], stops: NDArray[np.int64], region: Roi | Borders
) -> NDArray[np.bool_]:
    """Tell which objects reach the border of a region, or of their image, so that it may cut them.

    Parameters
    ----------
    region : that was looked at
    """
    if not isinstance(region, Borders):
        low, high = [s.start for s in region], [s.stop for s in region]
        return np.asarray((starts <= low).any(axis=1) | (stops >= high).any(axis=1))
    _, y, x = region.region  # an image ends nowhere along z
    ends = np.minimum(np.array(region.sizes).reshape(-1, 2)[starts[:, 0]], (y.stop, x.stop))
    near = starts[:, 1:] <= (y.start, x.start)
    return np.asarray((near | (stops[:, 1:] >= ends)).any(axis=1))
