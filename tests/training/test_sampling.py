"""Patches: where they come from, and the same from storage as from memory."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toy_training import STILL
from volseg.errors import ShapeError
from volseg.geometry.grid import full_roi
from volseg.storage.arrays import ArraySpec, create_array
from volseg.training.augmentation import Augmentation, draw_placement
from volseg.training.sampling import (
    CPU,
    Source,
    draw_centre,
    draw_patch,
    find_foreground,
    hold,
    read_tissue,
)
from volseg.training.tissue import RAW, Tissue, locate, needed, target_of
from volseg.voxels.intensity import Tone, normalise

SHAPE = (24, 40, 36)
ROI = (slice(4, 20), slice(3, 40), slice(0, 30))
WINDOW = (20.0, 220.0)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 255, SHAPE, dtype=np.uint8)
    labels = np.zeros(SHAPE, np.uint16)
    labels[8:14, 10:20, 12:22] = 700
    return raw, labels


def _source(raw, labels, roi=ROI):
    return Source(raw, labels, roi, Tone(WINDOW), find_foreground(labels, roi)[0], isotropic=True)


def test_the_foreground_is_found_in_the_roi_only_and_evenly_sampled(arrays):
    _, labels = arrays
    positions, count = find_foreground(labels, ROI)
    np.testing.assert_array_equal(positions, np.argwhere(labels))
    assert count == 600
    few, counted = find_foreground(labels, ROI, keep=10)
    assert counted == 600
    np.testing.assert_array_equal(np.bincount(few[:, 0])[8:], np.full(6, 10))
    assert (labels[tuple(few.T)] > 0).all()
    aside = (slice(0, 8), *ROI[1:])
    assert find_foreground(labels, aside)[1] == 0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_patches_about_the_foreground_is_the_one_asked_for(arrays, share):
    raw, labels = arrays
    source = _source(raw, labels)
    rng = np.random.default_rng(2)
    centres = [tuple(map(int, draw_centre(source, rng, share))) for _ in range(2000)]
    inside = np.mean([labels[c] > 0 for c in centres])
    by_chance = 600 / (16 * 37 * 30)
    assert inside == pytest.approx(share + (1 - share) * by_chance, abs=0.04)
    for axis, s in enumerate(ROI):
        assert s.start <= min(c[axis] for c in centres) <= max(c[axis] for c in centres) < s.stop


def test_patches_from_storage_equal_those_from_memory(arrays, tmp_path):
    raw, labels = arrays
    stored = []
    for name, array in (("raw", raw), ("labels", labels)):
        shard = (32, 64, 64)
        spec = ArraySpec(SHAPE, array.dtype.name, (16, 32, 32), shard)
        stored.append(create_array(tmp_path / name, spec))
        stored[-1].write(tuple(slice(0, n) for n in SHAPE), array)
    options = Augmentation()
    for seed in range(6):
        patches = [
            draw_patch(_source(*pair), np.random.default_rng(seed), (8, 16, 16), options)
            for pair in ((raw, labels), stored)
        ]
        np.testing.assert_array_equal(*[patch.channels for patch in patches])
        held = hold(_source(raw, labels), CPU)
        patch = draw_patch(held, np.random.default_rng(seed), (8, 16, 16), options)
        np.testing.assert_allclose(patch.channels, patches[0].channels, atol=4e-3)


@pytest.mark.parametrize("scale", [1.0, 2.3, 4.0])
def test_what_is_read_for_a_patch_is_what_is_held(arrays, scale):
    """At coarser levels and reflected at the border, too."""
    raw, labels = arrays
    source = dataclasses.replace(_source(raw, labels), scale=(scale,) * 3)
    held = hold(source, CPU)
    for seed in range(20):
        patches = [
            draw_patch(s, np.random.default_rng(seed), (8, 24, 24), Augmentation()).channels
            for s in (source, held)
        ]
        np.testing.assert_allclose(patches[0], patches[1], atol=4e-3)


def test_loaders_that_want_a_level_at_once_get_that_level():
    """A ramp, averaged two by two twice; its slices are as far apart as the level's voxels."""
    ramp = torch.arange(32.0).repeat(2, 8, 32, 1)
    for _ in range(20):
        tissue = Tissue(ramp, full_roi(ramp.shape[1:]), (0, 0, 0), (False, True, True))
        with ThreadPoolExecutor(8) as pool:
            levels = list(pool.map(tissue.level, [1, 2] * 8))
        for level, factor in zip(levels, [2, 4] * 8, strict=True):
            middles = factor * torch.arange(32 // factor) + (factor - 1) / 2
            assert torch.equal(level[0, 0, 0], middles)


def test_a_single_slice_is_never_missing_nor_thick(arrays):
    """What hides an object hides its label in no neighbouring slice."""
    options = Augmentation(fault_probability=1.0, section_probability=1.0)
    planar = dataclasses.replace(_source(*arrays), planar=True)
    look = draw_patch(planar, np.random.default_rng(1), (1, 16, 16), options).look
    assert np.isnan(look.missing).all()
    assert look.sections is None


def test_without_augmentation_a_patch_is_a_slice_that_was_flipped_and_turned(arrays):
    raw, labels = arrays
    source = _source(raw, labels)
    for seed in range(10):
        patch = draw_patch(source, np.random.default_rng(seed), (7, 7, 7), STILL)
        z, y, x = map(int, draw_centre(source, np.random.default_rng(seed), 0.6))
        if min(z - 4, y - 3, x, 19 - z, 39 - y, 29 - x) < 3:
            continue
        box = tuple(slice(c - 3, c + 4) for c in (z, y, x))
        expected = np.sort(normalise(raw[box], WINDOW), axis=None)
        found = np.sort(patch.channels[RAW].numpy(), axis=None)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert target_of(patch.channels).sum() == (labels[box] > 0).sum()


def test_nothing_outside_the_roi_is_read(arrays):
    _raw, labels = arrays
    blind = np.full(SHAPE, 255, np.uint8)
    blind[ROI] = 20
    for seed in range(20):
        patch = draw_patch(_source(blind, labels), np.random.default_rng(seed), (16, 32, 32), STILL)
        np.testing.assert_allclose(patch.channels[RAW], -1, atol=1e-5)


def test_shapes_that_do_not_match_are_named(arrays):
    raw, labels = arrays
    with pytest.raises(ShapeError, match=r"raw \(24, 40, 36\), labels \(24, 40, 35\)"):
        draw_patch(_source(raw, labels[..., :35]), np.random.default_rng(0), (8, 16, 16), STILL)


def test_crops_are_random_or_from_the_middle():
    raw, labels = np.zeros((20, 40, 60), np.uint8), np.zeros((20, 40, 60), np.uint8)
    whole = slice(0, 20), slice(0, 40), slice(0, 60)
    source, rng = _source(raw, labels, whole), np.random.default_rng(0)
    assert draw_centre(source, rng, 0.5, centre_crop=1.0) == (9.5, 19.5, 29.5)
    drawn = np.array([draw_centre(source, rng, 0.5) for _ in range(300)])
    assert (drawn.min(axis=0) < [3, 5, 7]).all()
    assert (drawn.max(axis=0) > [16, 34, 52]).all()
    planar = dataclasses.replace(source, planar=True)
    middle = np.array([draw_centre(planar, rng, 0.5, centre_crop=1.0) for _ in range(50)])
    assert set(middle[:, 0]) <= set(range(20))
    assert len(set(middle[:, 0])) > 5
    assert (middle[:, 1:] == [19.5, 29.5]).all()


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.tuples(*[st.integers(1, 9)] * 3),
    scale=st.tuples(*[st.sampled_from([0.5, 1.0, 2.0, 4.0])] * 3),
    planar=st.booleans(),
    isotropic=st.booleans(),
)
def test_a_patch_is_the_same_of_what_it_needs_as_of_all(seed, sizes, scale, planar, isotropic):
    rng = np.random.default_rng(seed)
    raw, labels = (rng.integers(-1, 9, sizes).astype(np.int16) for _ in range(2))
    roi = tuple(slice(int(rng.integers(n)), n) for n in sizes)
    source = Source(
        raw,
        labels,
        roi,
        Tone((0.0, 8.0)),
        np.zeros((0, 3), np.int64),
        isotropic=isotropic,
        planar=planar,
        scale=scale,
        partial=True,
    )
    changes = Augmentation(zoom=(0.3, 2.0), stretch=0.3, shear=0.2, mirror_probability=0.3)
    shape = (1, 6, 6) if planar else (4, 6, 6)
    placed = draw_placement(rng, changes, shape, draw_centre(source, rng, 0.0), source.frame)
    cut = locate(placed, shape, roi, source.pooled)
    some, whole = (read_tissue(source, b, roi) for b in (needed(cut, roi, source.pooled), roi))
    assert torch.equal(some.cut(cut), whole.cut(cut))


def test_a_bright_speck_stays_a_number_in_half_precision():
    """Of float data, what lies far beyond the window is more than half precision holds."""
    raw, labels = np.zeros((1, 8, 8), np.float32), np.zeros((1, 8, 8), np.uint8)
    raw[0, 5, 5] = 1e7
    tone, none = Tone((0.0, 1.0)), np.zeros((0, 3), np.int64)
    source = Source(raw, labels, full_roi(raw.shape), tone, none, isotropic=False, planar=True)
    changes, rng = Augmentation(), np.random.default_rng(0)
    drawn = [draw_patch(hold(source, CPU), rng, (1, 16, 16), changes) for _ in range(8)]
    assert all(torch.isfinite(patch.channels).all() for patch in drawn)
