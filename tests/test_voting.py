"""Labels are reduced by vote: a plain reading of its definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volseg.pyramid import reduced_shape
from volseg.voting import reduce_labels

sides = st.tuples(*[st.integers(1, 7)] * 3)
factors = st.tuples(*[st.integers(1, 2)] * 3)
seeds = st.integers(0, 2**32 - 1)


def groups(block, factor):
    """Yield each reduced voxel with the voxels that it stands for, the last ones held."""
    pad = [(0, -n % f) for n, f in zip(block.shape, factor, strict=True)]
    padded = np.pad(block, pad, mode="edge")
    for index in np.ndindex(reduced_shape(block.shape, factor)):
        yield (
            index,
            padded[
                tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factor, strict=True))
            ].ravel(),
        )


@given(shape=sides, factor=factors, seed=seeds)
def test_labels_take_the_most_frequent_the_smallest_of_equals(shape, factor, seed):
    block = np.random.default_rng(seed).integers(0, 4, shape, np.uint32)
    reduced = reduce_labels(block, factor)
    assert reduced.dtype == block.dtype
    for index, group in groups(block, factor):
        values, counts = np.unique(group, return_counts=True)
        assert reduced[index] == values[counts.argmax()]
