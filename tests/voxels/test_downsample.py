"""Labels are reduced by vote: a plain reading of its definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from toy_pyramids import factors, groups, seeds, sides
from volseg.voxels.downsample import reduce_labels


@given(shape=sides, factor=factors, seed=seeds)
def test_labels_take_the_most_frequent_the_smallest_of_equals(shape, factor, seed):
    block = np.random.default_rng(seed).integers(0, 4, shape, np.uint32)
    reduced = reduce_labels(block, factor)
    assert reduced.dtype == block.dtype
    for index, group in groups(block, factor):
        values, counts = np.unique(group, return_counts=True)
        assert reduced[index] == values[counts.argmax()]
