"""Augmentation: one geometry for raw and labels, and no chance but the generator's."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import interpolate as scipy_interpolate
from scipy import ndimage

from volseg.training.augmentation import (
    Augmentation,
    draw_displacement,
    draw_faults,
    draw_matrix,
    interpolate,
    patch_coordinates,
    resample,
    show_sections,
    signed_permutation,
    vary_intensity,
)

STILL = Augmentation(
    zoom=(1.0, 1.0), shift=0.0, elastic_alpha=0.0, rotate_probability=0.0, fault_probability=0.0
)
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
        low, high = Augmentation().zoom
        assert 1 / high <= scale[0] <= 1 / low
        matrix = draw_matrix(rng, Augmentation(), isotropic=False)
        assert abs(matrix[0, 0]) == 1
        assert not matrix[0, 1:].any()
        assert abs(np.linalg.det(signed_permutation(rng, isotropic=True))) == 1


def test_interpolation_agrees_with_scipy():
    rng = np.random.default_rng(0)
    values, positions = rng.normal(size=(4, 7, 3)), rng.uniform(0, 6, 20)
    expected = scipy_interpolate.interp1d(np.arange(7), values, axis=1)(positions)
    np.testing.assert_allclose(interpolate(values, positions, 1), expected)


def test_a_displacement_has_the_spread_and_the_smoothness_that_are_asked_for():
    options = Augmentation(elastic_alpha=3.0, elastic_sigma=8.0)
    rng, shape = np.random.default_rng(0), (24, 48, 48)
    fields = np.stack([draw_displacement(rng, options, shape) for _ in range(24)])
    assert fields.shape == (24, 3, *shape)
    # linear interpolation between the knots takes a little of the variance
    assert fields.std() == pytest.approx(3.0, rel=0.15)
    # white noise smoothed by a Gaussian is correlated as exp(-d^2 / 4 sigma^2)
    for distance in (8, 16):
        near, far = fields[..., :-distance], fields[..., distance:]
        expected = np.exp(-(distance**2) / (4 * 8.0**2))
        assert np.corrcoef(near.ravel(), far.ravel())[0, 1] == pytest.approx(expected, abs=0.12)


def test_a_patch_is_shifted_by_at_most_its_part():
    options = dataclasses.replace(STILL, shift=0.25)
    centres = np.array(
        [
            patch_coordinates(
                np.random.default_rng(seed), options, (8, 8, 8), (50.0, 50.0, 50.0), isotropic=True
            )[0].mean(axis=(1, 2, 3))
            for seed in range(60)
        ]
    )
    assert np.abs(centres - 50).max() <= 2 + 1e-4
    assert np.abs(centres - 50).max() > 1.5


def test_slices_are_duplicated_and_shifted_in_raw_and_labels_alike():
    options = Augmentation(fault_probability=0.3, fault_shift=2.0)
    coordinates = np.stack(np.meshgrid(*[np.arange(12.0)] * 3, indexing="ij")).astype(np.float32)
    moved = draw_faults(np.random.default_rng(3), options, coordinates)
    z = moved[0, :, 0, 0]
    assert set(z - np.arange(12)) == {0.0, -1.0}
    offsets = moved[1:, :, 0, 0] - coordinates[1:, :, 0, 0]
    # a slice is moved as a whole
    np.testing.assert_allclose(
        moved[1:] - coordinates[1:], np.broadcast_to(offsets[:, :, None, None], (2, 12, 12, 12)),
        atol=1e-5,
    )  # fmt: skip
    assert 0 < (offsets[0] != 0).sum() < 12
    still = Augmentation(fault_probability=0.0)
    np.testing.assert_array_equal(
        draw_faults(np.random.default_rng(3), still, coordinates), coordinates
    )


def test_sections_are_averages_at_their_centres():
    raw = np.random.default_rng(0).normal(size=(30, 4, 5)).astype(np.float32)
    shown = show_sections(raw, 5.0, 0.0)
    for k in range(5, 25, 5):
        np.testing.assert_allclose(shown[k], raw[k - 2 : k + 3].mean(axis=0), atol=1e-5)
        halfway = 0.6 * shown[k] + 0.4 * shown[k + 5] if k < 20 else shown[k + 2]
        np.testing.assert_allclose(shown[k + 2], halfway, atol=1e-5)
    np.testing.assert_allclose(show_sections(raw, 1.0, 0.0), raw, atol=1e-6)


def _only(**strengths):
    """Make every chance certain, and every strength 0 but those given."""
    none = {"contrast": 0.0, "brightness": 0.0, "gamma": 0.0, "noise": 0.0, "blur": 0.0}
    certain = {"intensity_probability": 1.0, "section_probability": 0.0, "fault_probability": 0.0}
    return Augmentation(**{**none, **certain, **strengths})


RAW = np.random.default_rng(1).uniform(-1, 1, (6, 20, 20)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_contrast_and_brightness_are_a_line(seed):
    options = _only(contrast=0.5, brightness=0.4)
    varied = vary_intensity(RAW, np.random.default_rng(seed), options)
    gain, offset = np.polyfit(RAW.ravel(), varied.ravel(), 1)
    np.testing.assert_allclose(varied, gain * RAW + offset, atol=1e-4)
    assert 0.5 <= gain <= 1.5
    assert abs(offset) <= 0.4


@pytest.mark.parametrize("seed", range(5))
def test_gamma_is_a_power_of_intensity(seed):
    varied = vary_intensity(RAW, np.random.default_rng(seed), _only(gamma=1.0))
    exponent = np.log((varied + 1) / 2) / np.log((RAW + 1) / 2)
    clear = np.abs(np.log((RAW + 1) / 2)) > 0.1
    np.testing.assert_allclose(exponent[clear], np.median(exponent), rtol=1e-2)
    assert 0.5 <= np.median(exponent) <= 2


def test_blur_is_gaussian_and_noise_has_no_more_than_its_spread():
    varied = vary_intensity(RAW, np.random.default_rng(2), _only(blur=1.5))
    sigmas = np.linspace(0, 1.5, 301)
    errors = [np.abs(ndimage.gaussian_filter(RAW, s) - varied).max() for s in sigmas]
    assert min(errors) < 0.01
    spreads = [
        (vary_intensity(RAW, np.random.default_rng(s), _only(noise=0.3)) - RAW).std()
        for s in range(20)
    ]
    assert max(spreads) <= 0.32
    assert max(spreads) > 0.15


def test_missing_slices_are_flat_and_the_others_untouched():
    options = _only(fault_probability=0.4)
    varied = vary_intensity(RAW, np.random.default_rng(1), options)
    flat = np.ptp(varied, axis=(1, 2)) == 0
    assert 0 < flat.sum() < len(RAW)
    np.testing.assert_allclose(varied[~flat], RAW[~flat], atol=1e-5)


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_rotation_and_zoom_are_the_affine_map_that_scipy_makes(seed, isotropic):
    options = dataclasses.replace(STILL, zoom=(0.8, 1.25), rotate_probability=1.0)
    volume = ndimage.gaussian_filter(np.random.default_rng(1).random((41, 41, 41)), 2)
    volume = volume.astype(np.float32)
    centre, shape = (20.0, 20.0, 20.0), (9, 11, 13)
    matrix = draw_matrix(np.random.default_rng(seed), options, isotropic=isotropic)
    middle = (np.array(shape) - 1) / 2
    expected = ndimage.affine_transform(
        volume, matrix, centre - matrix @ middle, shape, order=1, mode="mirror"
    )
    coordinates, _ = patch_coordinates(
        np.random.default_rng(seed), options, shape, centre, isotropic=isotropic
    )
    labels = (volume > 0.5).astype(np.uint8)
    raw, chosen = resample(volume, labels, coordinates, 1.0)
    np.testing.assert_allclose(raw, expected, atol=1e-4)
    nearest = ndimage.affine_transform(
        labels, matrix, centre - matrix @ middle, shape, order=0, mode="mirror"
    )
    assert (chosen != nearest).mean() < 0.01
