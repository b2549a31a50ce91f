"""Surfaces of bodies whose surface is known, at any place between the voxels, and their holes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import ellipeinc, ellipkinc
from skimage.measure import euler_number

from volseg.geometry.grid import full_roi
from volseg.measures.surface import (
    DIRECTIONS,
    crofton_weights,
    surface_areas,
)
from volseg.measures.tally import Readers, tally


def count_crossings(labels, brick=(16, 32, 32)):
    """Count the pairs of a whole volume."""
    roi, read = full_roi(labels.shape), Readers(labels.__getitem__)
    return tally(roi, labels.shape, brick, read, shapes=True)[0].crossings


def body(semiaxes, voxel_size, offset, turn=None):
    """Draw an ellipsoid on a grid, turned and shifted by less than a voxel."""
    turn = np.eye(3) if turn is None else turn
    reach = np.sqrt((turn**2) @ np.square(semiaxes))
    steps = [
        (np.arange(2 * int(r / v) + 4) - int(r / v) - 2 + o) * v
        for r, v, o in zip(reach, voxel_size, offset, strict=True)
    ]
    points = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
    return (((points @ turn) / semiaxes) ** 2).sum(axis=-1) < 1


def ellipsoid_surface(semiaxes):
    """Legendre's formula."""
    c, b, a = sorted(semiaxes)
    if a == c:
        return 4 * math.pi * a * a
    phi = math.acos(c / a)
    k = a**2 * (b**2 - c**2) / (b**2 * (a**2 - c**2))
    rest = ellipeinc(phi, k) * math.sin(phi) ** 2 + ellipkinc(phi, k) * math.cos(phi) ** 2
    return 2 * math.pi * (c**2 + a * b / math.sin(phi) * rest)


def area(mask, voxel_size):
    found = count_crossings(mask.astype(np.uint8))
    return surface_areas(found, tuple(map(float, voxel_size)))[0]


@pytest.mark.parametrize(
    ("aspect", "bias", "spread"),
    [(1, 0.5, 0.5), (2, 1.5, 1.5), (4, 1.5, 2.5), (5, 1.5, 3.0), (6, 1.5, 3.5)],
)
def test_balls_between_the_voxels(aspect, bias, spread):
    rng = np.random.default_rng(aspect)
    size = (aspect, 1, 1)
    errors = [
        100 * (area(body((r, r, r), size, rng.random(3)), size) / (4 * math.pi * r * r) - 1)
        for r in (8, 10, 13, 17, 22, 30, 40)
        for _ in range(4)
    ]
    assert abs(np.mean(errors)) < bias
    assert np.std(errors) < spread


@pytest.mark.parametrize(("aspect", "bias"), [(1, 0.5), (5, 1.5)])
def test_ellipsoids_in_any_direction(aspect, bias):
    rng = np.random.default_rng(aspect)
    size, errors = (aspect, 1, 1), []
    for _ in range(30):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        semiaxes = rng.uniform(8, 25, 3)
        found = area(body(semiaxes, size, rng.random(3), turn), size)
        errors.append(100 * (found / ellipsoid_surface(semiaxes) - 1))
    assert abs(np.mean(errors)) < bias


def test_isotropic_weights_are_the_published_ones():
    # Lehmann and Legland 2012, table 1: the shares of the directions on the sphere
    published = {1: 0.04577789120476, 2: 0.03698062787608, 3: 0.03519563978232}
    for step, weight in zip(DIRECTIONS, crofton_weights((1.0, 1.0, 1.0)), strict=True):
        kind = sum(map(abs, step))
        share = weight * math.sqrt(kind) / 4
        assert share == pytest.approx(published[kind], rel=1e-6)


def test_weights_scale_with_the_voxel():
    one, ten = crofton_weights((5.0, 1.0, 2.0)), crofton_weights((50.0, 10.0, 20.0))
    np.testing.assert_allclose(ten, 100 * one)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("brick", [(16, 32, 32), (4, 8, 64), (3, 9, 129)])
@pytest.mark.parametrize("shape", [(9, 10, 11), (2, 3, 300), (20, 1, 64), (1, 40, 129)])
def test_pairs_are_those_of_shifted_copies(shape, brick, seed):
    labels = np.random.default_rng(seed).integers(0, 4, shape)
    # long runs too
    labels[..., shape[2] // 2 :] = labels[..., shape[2] // 2, None]
    found = count_crossings(labels.astype(np.uint32), brick)
    padded = np.pad(labels, 1)
    inner = tuple(slice(1, -1) for _ in shape)
    assert found.labels.tolist() == [1, 2, 3]
    for k, label in enumerate(found.labels):
        mask = padded == label
        for direction, pairs in zip(DIRECTIONS, found.crossings[k], strict=True):
            # each object has as many first voxels of pairs as it has last ones
            after = np.roll(mask, [-d for d in direction], axis=(0, 1, 2))
            assert pairs == 2 * np.count_nonzero(mask[inner] & ~after[inner])


@pytest.mark.parametrize("seed", range(5))
def test_euler_numbers_are_those_of_scikit_image(seed):
    labels = np.random.default_rng(seed).integers(0, 4, (9, 10, 11)).astype(np.uint32)
    found = count_crossings(labels)
    expected = [euler_number(labels == k, connectivity=3) for k in (1, 2, 3)]
    assert found.euler.tolist() == expected


def test_a_tunnel_and_a_cavity():
    ring = np.ones((3, 5, 5), np.uint8)
    ring[:, 2, 2] = 0
    shell = np.ones((5, 5, 5), np.uint8)
    shell[2, 2, 2] = 0
    for mask, expected in ((np.ones((3, 3, 3), np.uint8), 1), (ring, 0), (shell, 2)):
        assert count_crossings(mask).euler.tolist() == [expected]


def test_touching_objects_are_measured_each_on_its_own():
    labels = np.zeros((12, 12, 12), np.uint32)
    labels[2:6, 2:10, 2:10], labels[6:10, 2:10, 2:10], labels[5:7, 4:6, 4:6] = 1, 2, 3
    found = count_crossings(labels)
    for k, label in enumerate(found.labels):
        alone = count_crossings((labels == label).astype(np.uint8))
        np.testing.assert_array_equal(found.crossings[k], alone.crossings[0])
        assert found.euler[k] == alone.euler[0]


def test_what_is_not_above_0_is_background():
    labels = np.full((4, 4, 4), -3, np.int32)
    labels[1:3, 1:3, 1:3] = 5
    found = count_crossings(labels)
    assert found.labels.tolist() == [5]
    np.testing.assert_array_equal(found.crossings, count_crossings(np.maximum(labels, 0)).crossings)


def test_an_object_that_fills_the_volume_is_closed_at_its_border():
    full = np.ones((4, 5, 6), np.uint8)
    padded = np.pad(full, 1)
    np.testing.assert_array_equal(
        count_crossings(full).crossings, count_crossings(padded).crossings
    )


def test_much_surface_is_counted_in_parts():
    noise = np.random.default_rng(0).random((24, 64, 64)) < 0.5
    labels = ndimage.label(noise)[0].astype(np.uint64)
    found = count_crossings(labels)
    assert len(found.labels) == labels.max()
    total = sum(
        np.count_nonzero(np.diff(np.pad(noise, 1).astype(np.int8), axis=a)) for a in range(3)
    )
    single = [k for k, d in enumerate(DIRECTIONS) if d.count(0) == 2]
    assert found.crossings[:, single].sum() == total
