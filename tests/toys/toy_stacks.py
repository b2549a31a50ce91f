"""Stacks of noise, and how they are read page by page."""

from __future__ import annotations

from typing import Any

import numpy as np

from volseg.sources.open import open_stack
from volseg.sources.stack import Selection


def make_stack(shape=(5, 13, 17), dtype: str = "uint8") -> np.ndarray:
    """Draw noise over all the values that a type has."""
    rng = np.random.default_rng(7)
    if dtype == "float32":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def read_pages(source: Any, channel: int | None = None, **more: Any) -> np.ndarray:
    """Read a stack as a conversion does."""
    stack = open_stack(source, Selection(channel, **more))
    try:
        read = np.empty(stack.shape, stack.dtype)
        for n, page in enumerate(read):
            stack.read_page(n, page)
        assert stack.dtype.isnative
        return read
    finally:
        stack.close()
