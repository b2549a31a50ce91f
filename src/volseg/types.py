"""The shared vocabulary: axes are always (z, y, x), voxel sizes always nm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:  # this module is loaded before any command is known
    import numpy as np
    from numpy.typing import NDArray

Value = TypeVar("Value")

Zyx: TypeAlias = tuple[int, int, int]
"""Three integers along (z, y, x): a shape, an origin, a block size."""

VoxelSize: TypeAlias = tuple[float, float, float]
"""nm along (z, y, x)."""

Names: TypeAlias = tuple[str, ...]
"""Written as NAME,NAME,..."""

Roi: TypeAlias = tuple[slice, slice, slice]
"""A box in voxels; every slice has integer start and stop, and no step."""

Probabilities: TypeAlias = "NDArray[np.uint8]"
"""uint8, shape (z, y, x), 0..255 standing for 0..1."""

FULL_PROBABILITY = 255
"""Value that stands for 1 there."""

ROUNDING = 1e-6
"""By how much a quotient may pass a whole number and still mean it."""

Mask: TypeAlias = "NDArray[np.bool_]"
"""bool, shape (z, y, x)."""

Labels: TypeAlias = "NDArray[np.unsignedinteger[Any]]"
"""uint32 or uint64, shape (z, y, x), 0 the background."""

Floats: TypeAlias = "NDArray[np.float32]"
"""float32 of any shape."""

Doubles: TypeAlias = "NDArray[np.float64]"
"""float64 of any shape."""


class Readable(Protocol):
    """Anything with a shape that yields NumPy arrays when sliced: an array, labels of any kind."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    def __getitem__(self, box: Any, /) -> Any:
        """Read a box."""


def extent(numbers: Iterable[float]) -> str:
    """Write numbers along (z, y, x).

    Examples
    --------
    >>> extent((32, 384, 384)), extent((50.0, 4.6, 4.6))
    ('32 x 384 x 384', '50 x 4.6 x 4.6')
    """
    return " x ".join(f"{n:.10g}" for n in numbers)


def level_of(threshold: float) -> int:
    """Find the stored value, of 255, from which a voxel has at least this probability."""
    # from 0, all would be foreground
    return max(math.ceil(threshold * FULL_PROBABILITY - ROUNDING), 1)


def probability_of(level: int) -> float:
    """Find the shortest probability that stands for a stored value.

    Examples
    --------
    >>> probability_of(128), probability_of(100), probability_of(17)
    (0.5, 0.39, 0.066)
    """
    exact = level / FULL_PROBABILITY
    both = ((round(exact, n), math.floor(exact * 10**n) / 10**n) for n in range(1, 4))
    short = (p for pair in both for p in pair)
    return next((p for p in short if p > 0 and level_of(p) == level), exact)


def zyx(values: Iterable[Value]) -> tuple[Value, Value, Value]:
    """Take three values, one for each axis.

    Examples
    --------
    >>> zyx(n // 2 for n in (8, 64, 64))
    (4, 32, 32)
    """
    z, y, x = values
    return z, y, x
