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


@dataclass(frozen=True)
class Meetings:
    """Squares of 2 x 2 pixels above 0 that are not all alike.

    Attributes
    ----------
    values : different ones in the image.
    places : such squares.
    many : of which hold three or four values.
    """

    values: int
    places: int
    many: int

    @property
    def grey(self) -> bool:
        """Tell whether these are grey values: of labels two meet, and three at corners alone."""
        enough = self.values >= FEWEST_VALUES and self.places >= FEWEST_PLACES
        return enough and self.many > LABELS_MEET * self.places


def count_meetings(plane: NDArray[Any]) -> Meetings:
    """Count how many values meet wherever pixels above 0 differ.

    Examples
    --------
    >>> count_meetings(np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]]))
    Meetings(values=3, places=3, many=1)
    """
    corners = np.stack([plane[:-1, :-1], plane[:-1, 1:], plane[1:, :-1], plane[1:, 1:]])
    corners.sort(axis=0)
    held = 1 + np.count_nonzero(corners[1:] != corners[:-1], axis=0)[corners[0] > 0]
    return Meetings(
        len(np.unique(plane)), int(np.count_nonzero(held > 1)), int(np.count_nonzero(held > 2))
    )
