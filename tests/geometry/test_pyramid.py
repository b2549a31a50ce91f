"""Pyramids: which levels, and reduction that equals a plain reading of its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toy_pyramids import factors, groups, seeds, sides
from volseg.geometry.pyramid import SMALLEST, pyramid_factors, reduced_shape
from volseg.voxels.downsample import reduce_mean


@given(
    shape=sides,
    factor=factors,
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    seed=seeds,
)
def test_means_are_rounded_to_nearest(shape, factor, dtype, seed):
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        block = rng.normal(size=shape).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        block = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    reduced = reduce_mean(block, factor)
    assert reduced.dtype == block.dtype
    for index, group in groups(block, factor):
        mean = group.astype(float).mean()
        if dtype == "float32":
            assert reduced[index] == pytest.approx(mean, rel=1e-6, abs=1e-7)
        else:
            assert reduced[index] == np.floor(mean + 0.5)


@given(
    shape=st.tuples(*[st.integers(1, 5000)] * 3),
    size=st.none() | st.tuples(*[st.floats(1, 200)] * 3),
)
def test_levels_end_small_and_even_out_the_voxels(shape, size):
    found = pyramid_factors(shape, size)
    assert found[0] == (1, 1, 1)
    assert max(reduced_shape(shape, found[-1])) <= SMALLEST
    voxel = np.array(size or (1.0, 1.0, 1.0))
    for fine, coarse in itertools.pairwise(found):
        steps = np.divide(coarse, fine)
        assert set(steps) <= {1, 2}
        assert (steps == 2).any()
        halved = voxel * fine
        kept = [k for k in range(3) if steps[k] == 1 and shape[k] > fine[k]]
        # what is not halved is coarser than the finest that is
        assert all(halved[k] > halved[steps == 2].min() for k in kept)
