"""Blending: the weights of all tiles over a voxel sum to one, whatever the lattice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from volseg.geometry.lattice import AxisLattice
from volseg.voxels.blend import (
    FULL,
    blending_matrix,
    interpolation_matrix,
    reflected,
    to_probabilities,
)

lattices = st.builds(
    lambda n, overlap, core, scale, edge: AxisLattice(
        n, 2 * overlap + core, overlap, scale, min(edge, overlap)
    ),
    st.integers(1, 200),
    st.integers(0, 16),
    st.integers(1, 40),
    st.sampled_from([1.0, 0.5, 2.0, 1.37]),
    st.integers(0, 16),
)


@given(lattices)
@example(AxisLattice(length=69, tile=1, overlap=0, scale=1.37))
@settings(deadline=None)
def test_weights_over_every_voxel_sum_to_one(lattice):
    total = np.zeros(lattice.length)
    for k in range(lattice.count):
        start, stop = lattice.support(k)
        total[start:stop] += blending_matrix(lattice, k).sum(axis=1)
    np.testing.assert_allclose(total, 1, atol=1e-5)


@given(lattices)
@settings(deadline=None)
def test_a_constant_survives_blending_as_integers(lattice):
    total = np.zeros(lattice.length, np.uint16)
    for k in range(lattice.count):
        start, stop = lattice.support(k)
        share = blending_matrix(lattice, k) @ np.full(lattice.tile, 0.6, np.float32)
        total[start:stop] += np.rint(share * FULL).astype(np.uint16)
    assert set(to_probabilities(total)) == {round(0.6 * 255)}


@pytest.mark.parametrize("length", [1, 2, 5])
def test_reflection_equals_numpy_pad(length):
    axis = np.arange(length)
    pad = 7
    mode = "reflect" if length > 1 else "edge"
    assert (reflected(-pad, length + pad, length) == np.pad(axis, pad, mode=mode)).all()


def test_interpolation_equals_numpy_interp():
    position = np.linspace(-1, 9, 57)
    values = np.random.default_rng(0).random(8)
    expected = np.interp(position, np.arange(8), values)
    np.testing.assert_allclose(interpolation_matrix(position, 8) @ values, expected, atol=1e-6)


def test_eight_rounded_up_shares_fit_and_saturate():
    shares = np.array([FULL + 8], np.uint16)
    assert int(shares[0]) == FULL + 8
    assert to_probabilities(shares)[0] == 255
