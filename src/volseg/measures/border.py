"""Objects that the border of what is looked at may cut. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.types import Mask, Roi


@dataclass(frozen=True)
class Borders:
    """A region of slices that are unrelated images.

    Attributes
    ----------
    sizes : (y, x) of each image of the volume
    """

    region: Roi
    sizes: Sequence[tuple[int, int]]


def reached_sides(
    starts: NDArray[np.int64], stops: NDArray[np.int64], region: Roi | Borders
) -> tuple[Mask, Mask]:
    """Tell which objects reach the near, and which the far border of a region, or of their image.

    The border may cut those. An image ends nowhere along z.
    """
    box = region.region if isinstance(region, Borders) else region
    first, last = (np.array([getattr(s, end) for s in box]) for end in ("start", "stop"))
    if isinstance(region, Borders):
        last = np.minimum(np.array(region.sizes).reshape(-1, 2)[starts[:, 0]], last[1:])
        first, starts, stops = first[1:], starts[:, 1:], stops[:, 1:]
    near, far = ((starts <= first).any(axis=1), (stops >= last).any(axis=1))
    return np.asarray(near), np.asarray(far)


def reaches_border(
    starts: NDArray[np.int64], stops: NDArray[np.int64], region: Roi | Borders
) -> Mask:
    """Tell which objects reach the border of a region, or of their image, so that it may cut them.

    Parameters
    ----------
    region : that was looked at
    """
    near, far = reached_sides(starts, stops, region)
    return near | far
