"""Blocks and tiles: every voxel has one writer, every tile one home."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.errors import ParameterError
from volseg.geometry.grid import Grid, full_roi, grow, intersect, parse_roi, roi_size
from volseg.geometry.lattice import AxisLattice

sizes = st.tuples(*[st.integers(1, 40)] * 3)


@given(shape=sizes, size=sizes)
def test_cores_cover_every_voxel_exactly_once(shape, size):
    count = np.zeros(shape, int)
    for block in Grid(shape, size).blocks():
        count[block.core] += 1
    assert (count == 1).all()


@given(shape=sizes, size=sizes, at=st.tuples(*[st.integers(0, 39)] * 3))
def test_index_at_finds_the_block_that_holds_the_voxel(shape, size, at):
    voxel = tuple(a % n for a, n in zip(at, shape, strict=True))
    grid = Grid(shape, size)
    core = grid.block(grid.index_at(voxel)).core
    assert all(s.start <= v < s.stop for s, v in zip(core, voxel, strict=True))


def test_blocks_of_a_roi_are_those_that_touch_it():
    grid = Grid((20, 20, 20), (8, 8, 8))
    roi = (slice(7, 9), slice(0, 8), slice(16, 20))
    touching = [b.index for b in grid.blocks() if intersect(b.core, roi)]
    assert [b.index for b in grid.blocks(roi)] == touching == [(0, 0, 2), (1, 0, 2)]


def test_grow_stops_at_the_volume():
    assert grow(full_roi((5, 6, 7)), (2, 2, 2), (5, 6, 9)) == (
        slice(0, 5),
        slice(0, 6),
        slice(0, 9),
    )


@pytest.mark.parametrize("text", ["1:2", "a:b,:,:", "5:3,:,:", "0:99,:,:", "::,:,:", "-1:3,:,:"])
def test_bad_regions_are_refused_with_what_was_found(text):
    with pytest.raises(ParameterError, match=r"region"):
        parse_roi(text, (10, 10, 10))


lattices = st.builds(
    lambda n, overlap, core, scale, edge: AxisLattice(
        n, 2 * overlap + core, overlap, scale, min(edge, overlap)
    ),
    st.integers(1, 300),
    st.integers(0, 16),
    st.integers(1, 40),
    st.sampled_from([1.0, 0.5, 2.0, 1.37, 3.3]),
    st.integers(0, 16),
)


@given(lattices)
def test_supports_cover_the_axis_and_reach_both_ends(lattice):
    supports = [lattice.support(k) for k in range(lattice.count)]
    assert supports[0][0] == 0
    assert supports[-1][1] == lattice.length
    assert all(a[1] >= b[0] for a, b in itertools.pairwise(supports))
    assert all(0 <= lattice.home(k) < lattice.length for k in range(lattice.count))


@given(lattices, st.integers(0, 299), st.integers(1, 50))
def test_reaching_lists_exactly_the_tiles_with_a_share(lattice, start, length):
    start = start % lattice.length
    stop = min(start + length, lattice.length)
    expected = [
        k
        for k in range(lattice.count)
        if lattice.support(k)[0] < stop and lattice.support(k)[1] > start
    ]
    assert [k for k in lattice.reaching(start, stop)] == expected  # noqa: C416


@given(st.integers(1, 200), st.integers(1, 200))
def test_roi_size_counts_voxels(a, b):
    assert roi_size((slice(0, a), slice(5, 5 + b), slice(2, 3))) == a * b
