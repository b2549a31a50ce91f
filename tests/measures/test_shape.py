"""Axes, directions and ratios of bodies whose shape is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from volseg.geometry.grid import shift
from volseg.measures.shape import (
    complexity_indices,
    nearest_neighbours,
    principal_axes,
    sphericities,
    standard_deviations,
    too_large,
)
from volseg.measures.sums import Values, merge
from volseg.measures.tally import Readers, tally


def sums(labels, offset=(0, 0, 0), values=None):
    """Sum over objects far from the volume's origin."""

    def reader(array):
        def read(box):
            near = shift(box, offset)
            return None if min(s.start for s in near) < 0 else array[near]

        return read

    core = tuple(slice(o, o + n) for o, n in zip(offset, labels.shape, strict=True))
    readers = Readers(reader(labels), None if values is None else reader(values))
    return tally(core, tuple(s.stop for s in core), (32, 64, 64), readers, shapes=True)[0]


def moments(labels, offset=(0, 0, 0)):
    return sums(labels, offset).moments


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (4.0, 2.0, 1.0)])
def test_an_ellipsoid_has_its_axes_and_direction(size):
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
    semiaxes = np.array([30.0, 20.0, 12.0])
    steps = [(np.arange(-70, 71) * v)[np.abs(np.arange(-70, 71) * v) < 34] for v in size]
    points = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
    mask = (((points @ turn) / semiaxes) ** 2).sum(axis=-1) < 1
    lengths, directions = principal_axes(moments(mask.astype(np.uint8)), size)
    np.testing.assert_allclose(lengths[0], 2 * semiaxes, rtol=0.01 * max(size))
    assert abs(directions[0] @ turn[:, 0]) == pytest.approx(1, abs=1e-3)
    assert directions[0, 0] > 0


def test_thin_objects_have_no_thickness():
    labels = np.zeros((8, 8, 9), np.uint8)
    labels[1, 6, 1:6] = 1
    labels[np.arange(6), np.arange(6), np.arange(6) + 3] = 2
    labels[7, 7, 0] = 3
    lengths, directions = principal_axes(moments(labels), (1.0, 1.0, 1.0))
    assert lengths[0].tolist() == [math.sqrt(20 * 2), 0, 0]
    assert lengths[1, 1:].tolist() == [0, 0]
    np.testing.assert_allclose(directions[0], [0, 0, 1])
    np.testing.assert_allclose(directions[1], [3**-0.5] * 3)
    assert lengths[2].tolist() == [0, 0, 0]
    assert np.isnan(directions[2]).all()


def test_axes_do_not_depend_on_the_place_even_where_sums_wrap():
    labels = np.random.default_rng(0).integers(0, 3, (9, 10, 11)).astype(np.uint8)
    near, far = moments(labels), moments(labels, (10**9, 2 * 10**9, 3 * 10**9))
    assert (far.products != near.products).any()
    found = [principal_axes(m, (5.0, 1.0, 1.0)) for m in (near, far)]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_does_not_fit_64_bits_is_left_out():
    corners = [moments(np.ones((1, 1, 1), np.uint8), (k, k, k)) for k in (0, 2**31)]
    huge = merge(corners)
    assert too_large(huge).tolist() == [True]
    assert np.isnan(principal_axes(huge, (1.0, 1.0, 1.0))[0]).all()


def test_a_ball_is_the_roundest_body():
    volume, surface = np.array([4 / 3 * math.pi]), np.array([4 * math.pi])
    assert sphericities(volume, surface)[0] == pytest.approx(1)
    assert complexity_indices(volume, surface)[0] == pytest.approx(9 / (4 * math.pi))
    assert np.isnan(sphericities(volume, np.array([np.nan]))[0])


def test_neighbours_are_measured_in_physical_units():
    labels = np.zeros((4, 20, 20), np.uint8)
    labels[0, 0, 0], labels[1, 0, 0], labels[0, 0, 7:10] = 1, 2, 3
    np.testing.assert_allclose(nearest_neighbours(moments(labels), (50.0, 5.0, 5.0)), [40, 50, 40])
    np.testing.assert_allclose(nearest_neighbours(moments(labels), (5.0, 5.0, 5.0)), [5, 5, 40])
    labels[labels > 1] = 0
    assert np.isnan(nearest_neighbours(moments(labels), (1.0, 1.0, 1.0))).tolist() == [True]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_deviations_are_exact_far_from_zero(dtype):
    labels = np.ones((3, 4, 5), np.uint8)
    limits = np.iinfo(dtype)
    raw = (limits.max - np.arange(60) % 3).astype(dtype).reshape(labels.shape)
    for values in (raw, (limits.min + np.arange(60) % 3).astype(dtype).reshape(labels.shape)):
        found = sums(labels, values=values).intensity
        expected = np.std(values.astype(float))
        assert standard_deviations(found, np.array([60]))[0] == pytest.approx(expected, rel=1e-12)


def test_squares_that_wrapped_wrap_back():
    n = 2**40
    squares = np.array([(n // 2 * 30000**2 + n // 2 * 30002**2) % 2**64], np.uint64)
    total = np.array([n * 30001])
    found = Values(np.array([1], np.uint8), total, squares, np.array([30000]), np.array([30002]))
    assert standard_deviations(found, np.array([n]))[0] == pytest.approx(1)


def test_an_empty_volume_has_no_shapes():
    none = moments(np.zeros((2, 2, 2), np.uint8))
    assert [a.shape for a in principal_axes(none, (1.0, 1.0, 1.0))] == [(0, 3), (0, 3)]
