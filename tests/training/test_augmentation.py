"""Augmentation: one geometry for raw and labels, and no chance but the generator's."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy import interpolate as scipy_interpolate
from scipy import ndimage

from volseg.geometry.grid import full_roi
from volseg.training.augmentation import (
    Augmentation,
    Frame,
    Placement,
    draw_matrix,
    draw_placement,
    signed_permutation,
)
from volseg.training.looks import (
    apply_looks,
    draw_curve,
    draw_look,
    interpolate,
    section_weights,
)
from volseg.training.tissue import MASK, RAW, Tissue, locate

STILL = Augmentation(
    zoom=(1.0, 1.0), shift=0.0, elastic_alpha=0.0, rotate_probability=0.0, fault_probability=0.0
)
SIDE = 9


def _cut(raw, mask, placement, shape):
    """Cut a patch about whatever was placed, out of arrays."""
    channels = torch.from_numpy(np.stack([raw, mask]).astype(np.float32))
    bounds = full_roi(raw.shape)
    tissue = Tissue(channels, bounds, (0, 0, 0), (True, True, True))
    patch = tissue.cut(locate(placement, shape, bounds, tissue.pooled)).numpy()
    return patch[RAW], patch[MASK]


def _transform(seed, options, labels, *, isotropic=True):
    """Cut a cube about its centre; raw is the labels' ids as numbers, and the mask those too."""
    rng = np.random.default_rng(seed)
    centre, shape = ((SIDE - 1) / 2,) * 3, (SIDE,) * 3
    placement = draw_placement(rng, options, shape, centre, Frame(isotropic=isotropic))
    return _cut(labels, labels, placement, shape)


def _vary(raw, rng, options):
    """Change the intensities of one patch."""
    look = draw_look(rng, options, len(raw))
    return apply_looks(torch.from_numpy(raw)[None, None], [look])[0, 0].numpy()


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
        np.testing.assert_allclose(raw, raw.round(), atol=1e-3)
        seen.add(raw.round().astype(np.uint8).tobytes())
    assert seen <= possible
    assert len(seen) > len(possible) // 2


@pytest.mark.parametrize("isotropic", [True, False])
def test_without_flips_and_turns_a_patch_is_what_it_shows(isotropic):
    off = dataclasses.replace(STILL, flip_probability=0, turn_probability=0)
    strong = Augmentation(
        **{f.name: 0.0 for f in dataclasses.fields(Augmentation) if "probability" in f.name}
    )
    for seed in range(20):
        shown = _transform(seed, off, _cube(), isotropic=isotropic)[0]
        np.testing.assert_allclose(shown, _cube(), atol=1e-3)
        # strengths do nothing where no change happens
        shown = _transform(seed, strong, _cube(), isotropic=isotropic)[0]
        np.testing.assert_allclose(shown, _cube(), atol=1e-3)
        raw = np.linspace(-1, 1, SIDE**3, dtype=np.float32).reshape((SIDE,) * 3)
        np.testing.assert_array_equal(_vary(raw, np.random.default_rng(seed), strong), raw)


@pytest.mark.parametrize("isotropic", [True, False])
def test_flips_and_turns_are_switched_off_one_by_one(isotropic):
    kinds = {}
    for name in ("flip_probability", "turn_probability"):
        options = dataclasses.replace(STILL, **{name: 0.0})
        rng = np.random.default_rng(0)
        kinds[name] = [draw_matrix(rng, options, isotropic=isotropic) for _ in range(200)]
    assert all(np.linalg.det(m) > 0 for m in kinds["flip_probability"])
    assert all(np.array_equal(abs(m), np.eye(3)) for m in kinds["turn_probability"])
    count = {
        name: len({m.tobytes() for m in found + 0.0})
        for name, found in ((name, np.array(found)) for name, found in kinds.items())
    }
    assert count == {"flip_probability": 24 if isotropic else 4, "turn_probability": 8}


def test_angles_have_a_range_and_shear_and_stretch_a_strength():
    off = dataclasses.replace(STILL, flip_probability=0, turn_probability=0)
    rng = np.random.default_rng(2)
    turned = dataclasses.replace(off, rotate_probability=1.0, rotate=(10.0, 20.0))
    angles = [np.degrees(np.arctan2(m[2, 1], m[1, 1])) for m in _matrices(rng, turned)]
    assert 10 <= min(angles) < 11 < 19 < max(angles) <= 20
    sheared = [m[1, 2] for m in _matrices(rng, dataclasses.replace(off, shear=0.3))]
    assert -0.3 <= min(sheared) < -0.25 < 0.25 < max(sheared) <= 0.3
    longer = [m[1, 1] / m[2, 2] for m in _matrices(rng, dataclasses.replace(off, stretch=0.2))]
    assert np.exp(-0.4) <= min(longer) < 0.75 < 1.35 < max(longer) <= np.exp(0.4)


def _matrices(rng, options):
    return [draw_matrix(rng, options, isotropic=True) for _ in range(100)]


def test_raw_and_labels_move_together():
    raw = np.zeros((SIDE,) * 3, np.uint8)
    raw[:, 4:] = 200
    for seed in range(20):
        rng = np.random.default_rng(seed)
        centre, shape = ((SIDE - 1) / 2,) * 3, (SIDE,) * 3
        placement = draw_placement(rng, Augmentation(), shape, centre, Frame())
        cut, mask = _cut(raw, raw > 0, placement, shape)
        np.testing.assert_allclose(cut / 200, mask, atol=1e-4)


def test_the_same_seed_gives_the_same_patch_and_another_one_another():
    first, again, other = (_transform(seed, Augmentation(), _cube())[0] for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    raw = np.linspace(-1, 1, 64, dtype=np.float32).reshape(4, 4, 4)
    always = Augmentation(intensity_probability=1.0)
    varied = [_vary(raw, np.random.default_rng(s), always) for s in (7, 7, 8)]
    np.testing.assert_array_equal(varied[0], varied[1])
    assert (varied[0] != varied[2]).any()
    assert varied[0].dtype == np.float32
    assert np.isfinite(varied[0]).all()


def test_without_chances_intensities_stay():
    raw = np.linspace(-1, 1, 64, dtype=np.float32).reshape(4, 4, 4)
    never = Augmentation(intensity_probability=0.0, section_probability=0.0, fault_probability=0.0)
    np.testing.assert_array_equal(_vary(raw, np.random.default_rng(0), never), raw)


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


def _positions(placement, shape):
    """Cut positions: three ramps, far from the border, are what a patch's coordinates are."""
    size = (80,) * 3
    found = []
    for axis in range(3):
        ramp = np.broadcast_to(
            np.arange(80.0).reshape([-1 if k == axis else 1 for k in range(3)]), size
        )
        found.append(_cut(ramp, ramp, placement, shape)[0])
    return np.stack(found)


MIDDLE = (40.0, 40.0, 40.0)


def test_a_displacement_has_the_spread_and_the_smoothness_that_are_asked_for():
    options = dataclasses.replace(STILL, elastic_alpha=2.0, elastic_sigma=8.0)
    shape = (24, 40, 40)
    moved = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        placement = draw_placement(rng, options, shape, MIDDLE, Frame())
        still = dataclasses.replace(placement, knots=np.zeros((3, 1, 1, 1), np.float32))
        moved.append(_positions(placement, shape) - _positions(still, shape))
    fields = np.stack(moved)
    # linear interpolation between the knots takes a little of the variance
    assert fields.std() == pytest.approx(2.0, rel=0.15)
    # white noise smoothed by a Gaussian is correlated as exp(-d^2 / 4 sigma^2)
    for distance in (8, 16):
        near, far = fields[..., :-distance], fields[..., distance:]
        expected = np.exp(-(distance**2) / (4 * 8.0**2))
        assert np.corrcoef(near.ravel(), far.ravel())[0, 1] == pytest.approx(expected, abs=0.12)


def test_a_patch_is_shifted_by_at_most_its_part():
    options = dataclasses.replace(STILL, shift=0.25)
    centres = np.array(
        [
            draw_placement(np.random.default_rng(s), options, (8, 8, 8), MIDDLE, Frame()).centre
            for s in range(60)
        ]
    )
    assert np.abs(centres - 40).max() <= 2 + 1e-4
    assert np.abs(centres - 40).max() > 1.5


def test_a_mirrored_patch_is_a_box_and_its_reflections():
    raw = np.random.default_rng(0).random((1, 40, 40))
    shape = (1, 31, 31)
    still = Placement.plain(shape, (0, 20, 20), (1, 1, 1))
    plain, _ = _cut(raw, raw, still, shape)
    mirrored, _ = _cut(raw, raw, dataclasses.replace(still, mirror=(4.0, 7.0)), shape)
    folded = plain[:, 11:20, 8:23]  # as NumPy reflects it, as often as it takes
    np.testing.assert_allclose(
        mirrored, np.pad(folded, [(0, 0), (11, 11), (8, 8)], mode="reflect"), atol=1e-5
    )


def test_mirrored_patches_come_as_often_as_asked_and_need_little_tissue():
    options = dataclasses.replace(STILL, mirror_probability=0.3, shift=0.2)
    drawn = [
        draw_placement(np.random.default_rng(s), options, (1, 99, 99), MIDDLE, Frame(planar=True))
        for s in range(200)
    ]
    mirrored = [place for place in drawn if place.mirror is not None]
    assert 40 < len(mirrored) < 80
    for place in mirrored:
        cut = locate(place, (1, 99, 99), full_roi((80, 80, 80)), (True, True, True))
        half = (np.abs(place.matrix) @ (0, *place.mirror))[1:]
        assert (cut.high[1:] - cut.low[1:] <= 2 * half + 3).all()
        assert (np.abs(place.centre[1:] - MIDDLE[1:]) <= 0.4 * half + 1e-6).all()


def test_slices_are_duplicated_and_shifted_as_a_whole():
    options = dataclasses.replace(STILL, fault_probability=0.3, fault_shift=2.0)
    shape = (12, 12, 12)
    rng = np.random.default_rng(3)
    drawn = draw_placement(rng, options, shape, MIDDLE, Frame(isotropic=False))
    placed = dataclasses.replace(drawn, matrix=np.eye(3))
    z, y, x = _positions(placed, shape)
    assert set((z[:, 0, 0] - z[0, 0, 0] - np.arange(12)).round(3)) == {0.0, -1.0}
    for axis, at in ((0, y.transpose(0, 2, 1)), (1, x)):
        offsets = at - (np.arange(12) + 34.5)
        # a slice is moved as a whole
        np.testing.assert_allclose(offsets - offsets[:, :1, :1], 0, atol=1e-3)
        np.testing.assert_allclose(offsets[:, 0, 0], placed.offsets[axis], atol=1e-3)
        assert 0 < (np.abs(offsets[:, 0, 0]) > 0.01).sum() < 12
    still = draw_placement(np.random.default_rng(3), STILL, shape, MIDDLE, Frame())
    assert (still.order == np.arange(12)).all()
    assert not still.offsets.any()


@pytest.mark.parametrize("isotropic", [True, False])
def test_coarser_levels_show_the_averages(isotropic):
    """At twice the voxels a patch is the volume averaged over two voxels along each axis."""
    volume = np.random.default_rng(0).random((16, 24, 24)).astype(np.float32)
    pooled = (isotropic, True, True)
    tissue = Tissue(torch.from_numpy(np.stack([volume, volume])), full_roi(volume.shape),
                    (0, 0, 0), pooled)  # fmt: skip
    scale = (2.0 if isotropic else 1.0, 2.0, 2.0)
    shape = (8 if isotropic else 16, 12, 12)
    rng = np.random.default_rng(0)
    placed = draw_placement(rng, STILL, shape, (7.5, 11.5, 11.5), Frame(False, False, scale))
    placed = dataclasses.replace(placed, matrix=np.diag(scale))
    patch = tissue.cut(locate(placed, shape, tissue.bounds, pooled))[RAW].numpy()
    factors = (2 if isotropic else 1, 2, 2)
    blocks = volume.reshape([n for s, f in zip(shape, factors, strict=True) for n in (s, f)])
    np.testing.assert_allclose(patch, blocks.mean(axis=(1, 3, 5)), atol=1e-5)


def test_sections_are_averages_at_their_centres():
    raw = np.random.default_rng(0).normal(size=(30, 4, 5)).astype(np.float32)

    def show_sections(raw, thickness, phase):
        return np.tensordot(section_weights(len(raw), thickness, phase), raw, axes=1)

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


NOISE = np.random.default_rng(1).uniform(-1, 1, (6, 20, 20)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_contrast_and_brightness_are_a_line(seed):
    options = _only(contrast=0.5, brightness=0.4)
    varied = _vary(NOISE, np.random.default_rng(seed), options)
    gain, offset = np.polyfit(NOISE.ravel(), varied.ravel(), 1)
    np.testing.assert_allclose(varied, gain * NOISE + offset, atol=1e-4)
    assert 0.5 <= gain <= 1.5
    assert abs(offset) <= 0.4


@pytest.mark.parametrize("seed", range(5))
def test_gamma_is_a_power_of_intensity(seed):
    varied = _vary(NOISE, np.random.default_rng(seed), _only(gamma=1.0))
    exponent = np.log((varied + 1) / 2) / np.log((NOISE + 1) / 2)
    clear = np.abs(np.log((NOISE + 1) / 2)) > 0.1
    np.testing.assert_allclose(exponent[clear], np.median(exponent), rtol=1e-2)
    assert 0.5 <= np.median(exponent) <= 2


def test_blur_is_gaussian_and_noise_has_no_more_than_its_spread():
    varied = _vary(NOISE, np.random.default_rng(2), _only(blur=1.5))
    sigmas = np.linspace(0, 1.5, 301)
    errors = [np.abs(ndimage.gaussian_filter(NOISE, s) - varied).max() for s in sigmas]
    assert min(errors) < 0.01
    spreads = [
        (_vary(NOISE, np.random.default_rng(s), _only(noise=0.3)) - NOISE).std() for s in range(20)
    ]
    assert max(spreads) <= 0.32
    assert max(spreads) > 0.15


def test_missing_slices_are_flat_and_the_others_untouched():
    options = _only(fault_probability=0.4)
    varied = _vary(NOISE, np.random.default_rng(1), options)
    flat = np.ptp(varied, axis=(1, 2)) == 0
    assert 0 < flat.sum() < len(NOISE)
    np.testing.assert_allclose(varied[~flat], NOISE[~flat], atol=1e-5)


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
    rng = np.random.default_rng(seed)
    placement = draw_placement(rng, options, shape, centre, Frame(isotropic=isotropic))
    raw, _ = _cut(volume, volume, placement, shape)
    if placement.spacing < 1.2:
        np.testing.assert_allclose(raw, expected, atol=1e-4)
    else:
        assert np.abs(raw - expected).max() < 0.05


def test_a_planar_patch_takes_nothing_from_other_slices():
    volume = np.broadcast_to(np.arange(20.0)[:, None, None], (20, 30, 30))
    options = Augmentation(elastic_alpha=3.0, zoom=(0.9, 1.3))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        placed = draw_placement(rng, options, (1, 16, 16), (7.0, 15.0, 15.0), Frame(False, True))
        raw, _ = _cut(volume, volume, placed, (1, 16, 16))
        np.testing.assert_allclose(raw, 7, atol=1e-4)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_curves_rise_from_end_to_end(strength):
    for seed in range(20):
        curve = draw_curve(np.random.default_rng(seed), strength)
        np.testing.assert_allclose(curve[[0, -1]], [-1, 1], atol=1e-6)
        assert (np.diff(curve) >= 0).all()
        assert np.abs(curve - np.linspace(-1, 1, len(curve))).max() <= 2 * strength + 1e-6


def test_a_curve_is_interpolated_between_its_knots():
    options = _only(curve=1.0)
    for seed in range(5):
        look = draw_look(np.random.default_rng(seed), options, len(NOISE))
        varied = _vary(NOISE, np.random.default_rng(seed), options)
        knots = np.linspace(-1, 1, len(look.curve))
        np.testing.assert_allclose(varied, np.interp(NOISE, knots, look.curve), atol=1e-5)


def test_shading_is_slow_and_the_same_in_all_slices():
    varied = _vary(NOISE, np.random.default_rng(0), _only(shading=0.5)) - NOISE
    np.testing.assert_allclose(varied, np.broadcast_to(varied[0], varied.shape), atol=1e-5)
    assert varied.std() > 0.05
    assert np.abs(np.diff(varied, axis=-1)).max() < 0.5


def test_coarse_pixels_keep_the_mean_and_lose_detail():
    varied = _vary(NOISE, np.random.default_rng(0), _only(coarse=4.0))
    assert varied.mean() == pytest.approx(NOISE.mean(), abs=0.02)
    assert varied.std() < 0.7 * NOISE.std()


def test_a_strip_is_flat_and_the_rest_untouched():
    varied = _vary(NOISE, np.random.default_rng(2), _only(strip_probability=1.0))
    changed = varied != NOISE
    assert 0 < changed.mean() < 0.3
    assert len(np.unique(varied[changed])) == 1


def test_the_patches_of_a_batch_do_not_see_each_other():
    """A batch is what its patches are one by one."""
    options = Augmentation(
        intensity_probability=0.7, curve=0.8, shading=0.3, coarse=3.0, strip_probability=0.5,
        section_probability=0.5, fault_probability=0.2,
    )  # fmt: skip
    raw = torch.randn((6, 1, 5, 24, 20), generator=torch.Generator().manual_seed(0))
    looks = [draw_look(np.random.default_rng(k), options, 5) for k in range(6)]
    together = apply_looks(raw, looks)
    for k, look in enumerate(looks):
        alone = apply_looks(raw[k : k + 1], [look])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-4, atol=1e-4)
