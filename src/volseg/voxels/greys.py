"""Grey values and labels, told apart by how neighbours differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LABELS_MEET = 0.5
"""Part of the places where pixels differ at which three or more labels meet, at most.

Measured on middle slices (2026-11-30): 0.6 to 1 of raw images, blurred ones among them, and 0 of
annotations; of dense maps of objects 2 pixels wide 0.49, 4 wide 0.22, 10 wide 0.08.
"""
FEWEST_VALUES, FEWEST_PLACES = 16, 500
"""Of an image that is judged: classes are fewer, and small images say little."""
FEW = 3
"""Values of a mask, at most; images have more."""
INSIDE = 0.8
"""Part of the squares above 0 that lie in one object, at least, where these are labels for sure."""


@dataclass(frozen=True)
class Meetings:
    """Squares of 2 x 2 pixels above 0.

    Attributes
    ----------
    values : different ones in the image.
    alike : squares of one value.
    places : squares of several.
    many : of which hold three or four.
    """

    values: int
    alike: int
    places: int
    many: int

    @property
    def grey(self) -> bool:
        """Tell whether these are grey values: of labels two meet, and three at corners alone."""
        enough = self.values >= FEWEST_VALUES and self.places >= FEWEST_PLACES
        return enough and self.many > LABELS_MEET * self.places

    @property
    def labelled(self) -> bool:
        """Tell whether these are labels or a mask for sure: there is more than one value, too."""
        squares = self.alike + self.places
        wide = squares >= FEWEST_PLACES and self.alike > INSIDE * squares
        objects = wide and self.many <= LABELS_MEET * self.places
        return self.values > 1 and (self.values <= FEW or objects)


def count_meetings(planes: NDArray[Any]) -> Meetings:
    """Count how many values meet wherever pixels above 0 of a plane, or of several, differ.

    Examples
    --------
    >>> count_meetings(np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]]))
    Meetings(values=3, alike=1, places=3, many=1)
    """
    rows = planes[..., :-1, :], planes[..., 1:, :]
    a, b, c, d = (corner for row in rows for corner in (row[..., :-1], row[..., 1:]))
    others = np.stack([b != a, (c != a) & (c != b), (d != a) & (d != b) & (d != c)])
    held = (1 + np.count_nonzero(others, axis=0))[(a > 0) & (b > 0) & (c > 0) & (d > 0)]
    alike, places, many = (int(np.count_nonzero(c)) for c in (held == 1, held > 1, held > 2))
    return Meetings(len(np.unique(planes)), alike, places, many)
