"""Augmentation: one geometry for raw and labels, and no chance but the generator's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from volseg.training.augmentation import (
    Augmentation,
    draw_matrix,
    patch_coordinates,
    resample,
    signed_permutation,
    vary_intensity,
)

STILL = Augmentation(zoom=(1.0, 1.0), elastic=0.0, rotate_probability=0.0)
SIDE = 9


def _transform(seed, options, labels, *, isotropic=True):
    """Resample a cube about its centre; raw is the labels' ids as numbers."""
    rng = np.random.default_rng(seed)
    centre = ((SIDE - 1) / 2,) * 3
    coordinates, spacing = patch_coordinates(rng, options, (SIDE,) * 3, centre, isotropic=isotropic)
    return resample(labels.astype(np.float32), labels, coordinates, spacing)


def _cube():
    return np.random.default_rng(1).integers(0, 200, (SIDE,) * 3).astype(np.uint8)


@pytest.mark.parametrize("isotropic", [True, False])
def test_flips_and_quarter_turns_are_exact_permutations_of_the_voxels(isotropic):
    labels = _cube()
    orders = itertools.permutations(range(3)) if isotropic else [(0, 1, 2), (0, 2, 1)]
    possible = {
        np.flip(labels.transpose(order), axes).tobytes()
        for order in orders
        for count in range(4)
        for axes in itertools.combinations(range(3), count)
    }
    seen = set()
    for seed in range(150):
        raw, chosen = _transform(seed, STILL, labels, isotropic=isotropic)
        np.testing.assert_array_equal(raw, chosen)
        seen.add(np.ascontiguousarray(chosen).tobytes())
    assert seen <= possible
    assert len(seen) > len(possible) // 2


def test_raw_and_labels_move_together_and_labels_get_no_new_values():
    labels = np.zeros((SIDE,) * 3, np.uint8)
    labels[:, 4:] = 200
    for seed in range(20):
        raw, chosen = _transform(seed, Augmentation(), labels)
        assert set(np.unique(chosen)) <= {0, 200}
        clear = (raw < 50) | (raw > 150)
        np.testing.assert_array_equal(chosen[clear] > 100, raw[clear] > 100)


def test_the_same_seed_gives_the_same_patch_and_another_one_another():
    first, again, other = (_transform(seed, Augmentation(), _cube())[0] for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    raw = np.linspace(-1, 1, 64, dtype=np.float32).reshape(4, 4, 4)
    always = Augmentation(intensity_probability=1.0)
    varied = [vary_intensity(raw, np.random.default_rng(s), always) for s in (7, 7, 8)]
    np.testing.assert_array_equal(varied[0], varied[1])
    assert (varied[0] != varied[2]).any()
    assert varied[0].dtype == np.float32
    assert np.isfinite(varied[0]).all()


def test_without_chances_intensities_stay():
    raw = np.linspace(-1, 1, 64, dtype=np.float32).reshape(4, 4, 4)
    never = Augmentation(intensity_probability=0.0)
    np.testing.assert_array_equal(vary_intensity(raw, np.random.default_rng(0), never), raw)


def test_zoom_stays_in_its_range_and_anisotropic_data_keep_their_z_axis():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scale = np.linalg.norm(draw_matrix(rng, Augmentation(), isotropic=True), axis=1)
        assert np.allclose(scale, scale[0])
        assert 1 / 1.25 <= scale[0] <= 1 / 0.75
        matrix = draw_matrix(rng, Augmentation(), isotropic=False)
        assert abs(matrix[0, 0]) == 1
        assert not matrix[0, 1:].any()
        assert abs(np.linalg.det(signed_permutation(rng, isotropic=True))) == 1
