"""The form of a stored array: where it lies, and how it is cut and compressed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volseg.types import Zyx


@dataclass(frozen=True)
class ArrayForm:
    """An array in storage, seen as (z, y, x).

    Attributes
    ----------
    path : folder of the array.
    shape, dtype, chunk, shard : as seen; without sharding the shard is the chunk.
    leading : number of leading axes of length one that are hidden.
    compression : of the chunks, in an array of the form that volseg writes; else None.
    """

    path: Path
    shape: Zyx
    dtype: np.dtype[Any]
    chunk: Zyx
    shard: Zyx
    leading: int = 0
    compression: str | None = None
