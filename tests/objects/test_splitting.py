"""Objects come apart at their necks, whatever the voxels' form, and noise does not split them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from volseg.geometry.grid import Grid, full_roi
from volseg.objects.components import find_components
from volseg.objects.pieces import component_boxes, gather_runs, piece_runs
from volseg.objects.runs import paint
from volseg.objects.splitting import Splitter, distance_seeds


def balls(centres, radius=8, shape=(24, 24, 60), spacing=(1, 1, 1)):
    z, y, x = np.indices(shape)
    mask = np.zeros(shape, bool)
    for centre in centres:
        away = [(a - c) * s for a, c, s in zip((z, y, x), centre, spacing, strict=True)]
        mask |= sum(a**2 for a in away) < radius**2
    return mask


PAIR = [(12, 12, 14), (12, 12, 28)]


@pytest.mark.parametrize("method", ["distance", "kmeans"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_touching_balls_come_apart_in_the_middle(method, count):
    centres = [(12, 12, 12 + 14 * k) for k in range(count)]
    mask = balls(centres)
    pieces = Splitter(method)(mask)
    assert pieces.max() == count
    np.testing.assert_array_equal(pieces > 0, mask)
    assert len({pieces[c] for c in centres}) == count
    x = np.indices(mask.shape)[2]
    nearest = np.abs(x[..., None] - [c[2] for c in centres]).min(-1)
    wrong = sum(
        (pieces[(x == at) & mask & (nearest < 6)] != pieces[c]).sum()
        for c in centres
        for at in range(c[2] - 5, c[2] + 6)
    )
    assert wrong < 0.02 * mask.sum()


GRID = [(a, b, c) for a in (9, 23) for b in (9, 23) for c in (9, 23)]
FLAT = [(0, 10 + 14 * a, 10 + 14 * b) for a in range(3) for b in range(3)]


@pytest.mark.parametrize(
    ("centres", "shape"),
    [
        (GRID, (32, 32, 32)),
        ([(9, 9, 9 + 14 * k) for k in range(11)], (18, 18, 160)),
        ([(0, 12, 14)], (1, 24, 44)),
        ([(0, 12, 14), (0, 12, 28)], (1, 24, 44)),
        (FLAT, (1, 48, 48)),
    ],
)
def test_kmeans_finds_how_many_balls_or_discs_touch(centres, shape):
    mask = balls(centres, shape=shape)
    pieces = Splitter("kmeans")(mask)
    assert pieces.max() == len(centres)
    assert len({pieces[c] for c in centres}) == len(centres)
    np.testing.assert_array_equal(pieces > 0, mask)


@pytest.mark.parametrize("radii", [(10, 10, 15), (8, 8, 32), (0.5, 10, 15), (0.5, 4, 20)])
def test_kmeans_leaves_a_convex_object_whole(radii):
    z, y, x = np.indices([2 * int(r) + 1 for r in radii])
    away = [(a - int(r)) / r for a, r in zip((z, y, x), radii, strict=True)]
    round_ = sum(a**2 for a in away) <= 1
    assert Splitter("kmeans")(round_).max() == 1
    assert Splitter("kmeans")(np.ones([2 * int(r) + 1 for r in radii], bool)).max() == 1


@pytest.mark.parametrize("slices", [2, 3, 4])
def test_kmeans_splits_large_flat_objects(slices):
    y, x = np.indices((90, 170))
    discs = ((y - 45) ** 2 + (x - 45) ** 2 < 1600) | ((y - 45) ** 2 + (x - 123) ** 2 < 1600)
    mask = np.broadcast_to(discs, (slices, 90, 170))
    pieces = Splitter("kmeans", (1.0, 1.0, 1.0))(mask)
    assert len(np.unique(pieces[mask])) == 2


def test_as_many_centres_as_the_user_counted():
    rod = np.ones((5, 5, 40), bool)
    assert [int(Splitter("kmeans", centres=n)(rod).max()) for n in (1, 4, 40)] == [1, 4, 40]
    assert Splitter("kmeans", centres=9)(np.ones((1, 1, 2), bool)).max() == 2


@pytest.mark.parametrize("method", ["distance", "kmeans"])
def test_voxels_need_not_be_cubes(method):
    spacing = (5.0, 1.0, 1.0)
    mask = balls([(4, 12, 14), (4, 12, 28)], shape=(9, 24, 44), spacing=spacing)
    assert Splitter(method, spacing)(mask).max() == 2


def test_what_lies_in_one_slice_is_split_within_it():
    mask = balls([(0, 12, 14), (0, 12, 28)], shape=(1, 24, 44))
    assert Splitter("distance")(mask).max() == 2
    assert Splitter("distance")(mask.transpose(1, 0, 2)).max() == 2


def test_a_rough_surface_makes_no_seeds():
    mask = balls([(12, 12, x) for x in range(12, 48)], 9)
    edge = mask & ~ndimage.binary_erosion(mask)
    mask &= ~(edge & (np.random.default_rng(3).random(mask.shape) < 0.3))
    assert Splitter("distance")(mask).max() == 1
    distance = ndimage.distance_transform_edt(mask).astype(np.float32)
    assert distance_seeds(distance, 0.01).max() > 1


def test_seeds_and_pieces_are_those_of_skimage():
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((30, 31, 32)), 2)
    labels, _ = ndimage.label(smooth > 0.5, np.ones((3, 3, 3)))
    mask = np.pad(labels == np.bincount(labels.ravel())[1:].argmax() + 1, 1)
    distance = ndimage.distance_transform_edt(mask).astype(np.float32)
    seeds = distance_seeds(distance, 0.75)
    peaks, count = ndimage.label(h_maxima(distance, 0.75), np.ones((3, 3, 3)))
    # skimage marks the tops only, of the same maxima
    pairs = np.unique(np.stack([seeds[peaks > 0], peaks[peaks > 0]]), axis=1)
    np.testing.assert_array_equal(np.sort(pairs[0]), np.arange(1, seeds.max() + 1))
    assert count == seeds.max() > 1
    want = watershed(-distance, seeds, mask=mask, connectivity=np.ones((3, 3, 3)))
    found = Splitter("distance", depth=0.75)(mask[1:-1, 1:-1, 1:-1])
    np.testing.assert_array_equal(found, want[1:-1, 1:-1, 1:-1])


@pytest.mark.parametrize("method", ["distance", "kmeans"])
def test_no_piece_is_smaller_than_asked_for_and_no_voxel_is_lost(method):
    zyx = np.stack(np.meshgrid(*[np.arange(n) for n in (24, 24, 60)], indexing="ij"), -1)
    balls = (((12, 12, 12), 11), ((12, 12, 30), 9), ((12, 12, 43), 6), ((12, 12, 51), 4))
    mask = np.any([((zyx - c) ** 2).sum(-1) < r * r for c, r in balls], axis=0)
    before = np.bincount(Splitter(method, depth=0.5)(mask)[mask])[1:]
    for smallest in (0, 300, 1000, 4000, mask.sum()):
        pieces = Splitter(method, depth=0.5, smallest=smallest)(mask)
        np.testing.assert_array_equal(pieces > 0, mask)
        sizes = np.bincount(pieces[mask])[1:]
        assert sizes.min() >= smallest
        assert len(sizes) == max((before >= smallest).sum(), 1)


def test_boxes_are_those_of_scipy():
    mask = np.random.default_rng(2).random((9, 12, 14)) < 0.1
    core = (slice(2, 9), slice(3, 11), slice(0, 14))
    labels, _ = ndimage.label(mask[core], np.ones((3, 3, 3)))
    found = component_boxes(find_components(mask[core], core, mask.shape), core)
    want = [
        [s.start + c.start for s, c in zip(b, core, strict=True)]
        + [s.stop + c.start for s, c in zip(b, core, strict=True)]
        for b in ndimage.find_objects(labels)
    ]
    assert sorted(found.tolist()) == sorted(want)


def test_pieces_are_painted_as_they_were():
    pieces = np.random.default_rng(1).integers(0, 4, (8, 9, 10))
    for block in Grid((8, 9, 10), (3, 4, 5)).blocks():
        corner = [s.start for s in block.core]
        found = piece_runs(pieces[block.core]) + np.array([*corner, corner[2], 0])
        # as though they came from several objects
        runs, values = gather_runs(found[::-1], block.core)
        part = pieces[block.core]
        painted = paint(runs, values, part.shape[1], full_roi(part.shape))
        np.testing.assert_array_equal(painted, part)
