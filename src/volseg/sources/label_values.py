"""Labels as whole numbers, whatever type they are stored as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError

WHOLE_NUMBERS = {"float32": (1 << 24, np.uint32), "float64": (1 << 53, np.uint64)}
"""Numbers up to which a type tells whole ones apart, and a type for them."""


def as_labels(values: NDArray[Any], path: Path) -> NDArray[Any]:
    """Take whole numbers of any type as labels; of the file, for messages.

    Raises
    ------
    SourceError
        If they are not whole, or negative or too large for a type that is none of whole numbers.
    """
    if values.dtype == np.bool_:
        return values.view(np.uint8)
    if values.dtype.kind != "f":
        return values
    largest, whole = WHOLE_NUMBERS[values.dtype.name]
    if not (np.isfinite(values) & (values >= 0) & (values <= largest)).all():
        raise SourceError(
            f"{path} holds {values.dtype} of which some are negative, not finite or above "
            f"{largest}; labels are whole numbers"
        )
    labels = values.astype(whole)
    if not np.array_equal(labels, values):
        odd = values[labels != values][0]
        raise SourceError(
            f"{path} holds {odd:g}, and labels are whole numbers; probabilities become labels with "
            f"a threshold"
        )
    return labels
