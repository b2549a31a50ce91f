"""Reduced voxels and those that they stand for, as the definition says it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import strategies as st

from volseg.geometry.pyramid import reduced_shape

sides = st.tuples(*[st.integers(1, 7)] * 3)
factors = st.tuples(*[st.integers(1, 2)] * 3)
seeds = st.integers(0, 2**32 - 1)


def groups(block: np.ndarray, factor) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Yield each reduced voxel with the voxels that it stands for, the last ones held."""
    pad = [(0, -n % f) for n, f in zip(block.shape, factor, strict=True)]
    padded = np.pad(block, pad, mode="edge")
    for index in np.ndindex(reduced_shape(block.shape, factor)):
        box = tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factor, strict=True))
        yield index, padded[box].ravel()
