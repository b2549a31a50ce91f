"""Offsets to centres: the same for any box, and turned as patches are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from volseg.errors import ParameterError
from volseg.geometry.grid import full_roi
from volseg.models.maps import build_maps
from volseg.models.registry import find_architecture
from volseg.stages.train.sources import Mirrored
from volseg.training import annotation, validation
from volseg.training.annotation import Annotation
from volseg.training.augmentation import Augmentation, Placement, draw_placement
from volseg.training.losses import cross_entropy_loss, maps_loss
from volseg.training.sampling import Source, read_tissue
from volseg.training.targets import Targets
from volseg.training.tissue import MASK, UNKNOWN, locate, needed, target_of
from volseg.training.validation import validate

SHAPE = (12, 24, 24)
MAPS = build_maps(["cells"], ["offset"])
SIDES = (2.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def labels():
    """Objects of several forms, two of which touch."""
    found = np.zeros(SHAPE, np.int32)
    found[2:9, 3:11, 3:9], found[3:8, 3:11, 9:17], found[1:10, 14:21, 4:20] = 5, 6, 2
    found[5:, 18:, 9:] = 0
    return found


def source_of(labels, *, flat=False, scale=(1.0, 1.0, 1.0), sides=SIDES):
    classes = (Annotation(labels, ignore=9).centred(flat=flat),)
    targets = Targets(classes, MAPS, sides, 1.0, longest=16.0, flat=flat)
    return Source(
        np.zeros(labels.shape, np.uint8),
        targets,
        full_roi(labels.shape),
        np.float32,
        np.zeros((0, 3), np.int64),
        isotropic=True,
        planar=flat,
        scale=scale,
        targets=targets,
    )


def cut(source, placement, shape):
    """Cut a patch as training does; its offsets in voxels of it, NaN outside of objects."""
    found = locate(placement, shape, source.roi, source.pooled)
    box = needed(found, source.roi, source.pooled)
    channels = source.targets.finish(read_tissue(source, box, source.roi).cut(found), source.scale)
    sides = np.array(source.targets.sides) * source.scale
    return (channels[-3:].numpy() - 0.5) * 2 * 16 / sides[:, None, None, None], channels


@pytest.mark.parametrize("flat", [False, True])
def test_targets_point_at_centres_whatever_box_is_read(labels, flat):
    targets = source_of(labels, flat=flat).targets
    whole, _ = targets.read(full_roi(SHAPE))
    at = np.moveaxis(np.indices(SHAPE), 0, -1)
    for box in (np.index_exp[1:3, 2:11, 5:20], np.index_exp[4:8, 0:7, 8:10]):
        np.testing.assert_array_equal(targets.read(box)[0], whole[:, *box])
    for k in (5, 6, 2):
        for part in [np.s_[z : z + 1] for z in range(SHAPE[0])] if flat else [np.s_[:]]:
            inside = np.zeros(SHAPE, bool)
            inside[part] = labels[part] == k
            if inside.any():
                aimed = at[inside] + whole[1:, inside].T
                expected = np.broadcast_to(at[inside].mean(0), aimed.shape)
                np.testing.assert_allclose(aimed, expected, atol=1e-5)
    assert not whole[1:, labels == 0].any()


@pytest.mark.parametrize("seed", range(4))
def test_offsets_turn_with_the_patch(labels, seed):
    """A patch that is flipped, turned, rotated, zoomed and sheared points at the moved centres."""
    rng, shape, scale = np.random.default_rng(seed), (9, 16, 16), (1.0, 1.2, 1.2)
    source = source_of(labels, scale=scale)
    options = Augmentation(rotate_probability=1.0, shear=0.2, elastic_alpha=0.0, zoom=(0.8, 1.4))
    placement = draw_placement(rng, options, shape, (5.0, 10.0, 11.0), source.frame)
    placement = dataclasses.replace(placement, order=np.arange(shape[0]))
    placement.offsets[:] = 0
    aims, channels = cut(source, placement, shape)
    at = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    in_tissue = at @ placement.matrix.T + placement.centre
    # all voxels around a sample are of one object, inside of the tissue
    corners = [np.floor(in_tissue + step).astype(int) for step in np.ndindex(2, 2, 2)]
    known = np.all([((c >= 0) & (c < SHAPE)).all(-1) for c in corners], axis=0)
    around = [labels[tuple(np.moveaxis(c.clip(0, np.array(SHAPE) - 1), -1, 0))] for c in corners]
    checked = 0
    for k in (5, 6, 2):
        inside = known & np.all([a == k for a in around], axis=0)
        if placement.spacing * 1.2 >= 2 or not inside.any():
            continue  # coarser levels mix more voxels
        centre = np.argwhere(labels == k).mean(0)
        expected = np.linalg.solve(placement.matrix, centre - placement.centre) - at[inside]
        reach = 16 / (np.array(SIDES) * scale)
        np.testing.assert_allclose(aims[:, inside].T, expected.clip(-reach, reach), atol=1e-3)
        checked += inside.sum()
    assert checked > 20
    assert np.isnan(aims[:, (channels[MASK] < 0.5).numpy()]).all()


@pytest.mark.parametrize(
    ("centre", "mirror", "line"),
    [(0.0, None, 20.0), (6.0, (20.0, 5.5), 25.5), (6.0, (5.5, 9.5), 10.5)],
)
def test_offsets_are_reflected_where_tissue_and_patches_are(labels, centre, mirror, line):
    shape = (5, 13, 41)
    placement = Placement.plain(shape, (5.0, 10.0, centre), (1.0, 1.0, 1.0))
    placement = dataclasses.replace(placement, mirror=mirror)
    aims, _ = cut(source_of(labels), placement, shape)
    on = np.arange(np.floor(line + 1), np.floor(line + 8)).astype(int)
    back = (2 * line - on).astype(int)
    assert np.isfinite(aims[2][..., on]).any()
    np.testing.assert_allclose(aims[2][..., on], -aims[2][..., back], atol=1e-4)
    np.testing.assert_allclose(aims[:2][..., on], aims[:2][..., back], atol=1e-4)


def test_images_of_several_sizes_are_reflected_beyond_their_ends():
    """What an image shows beyond its end points back at its own reflection."""
    planes = np.zeros((2, 12, 16), np.int32)
    planes[0, 2:6, 3:8], planes[1, 3:9, 9:13] = 1, 2
    sizes = ((8, 10), (12, 16))
    known = Annotation(planes).centred(flat=True)
    known = dataclasses.replace(known, labels=Mirrored(planes, sizes))
    box = full_roi(planes.shape)
    aims = known.aim(known.read(box)[0], box)
    for k in range(1, 6):
        np.testing.assert_allclose(aims[2, 0, :, 9 + k], -aims[2, 0, :, 9 - k])
        np.testing.assert_allclose(aims[1, 0, :, 9 + k], aims[1, 0, :, 9 - k])
    assert aims[:, 0, 3, 12].tolist() == [0.0, 0.5, 1.0]  # seen at 6, of a centre at 3.5, 5


def test_coarser_levels_point_at_centres_too(labels):
    """Half the resolution: what is averaged over background is not drawn towards it."""
    big = labels.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    source = source_of(big, sides=(1.0, 1.0, 1.0))
    place = Placement.plain(SHAPE, (np.array(big.shape) - 1) / 2, (2.0, 2.0, 2.0))
    source = dataclasses.replace(source, scale=(2.0, 2.0, 2.0))
    aims, channels = cut(source, place, SHAPE)
    expected = source_of(labels, sides=(1.0, 1.0, 1.0)).targets.read(full_roi(SHAPE))[0][1:]
    inside = (channels[MASK] > 0.999).numpy()
    np.testing.assert_array_equal(inside, labels > 0)
    np.testing.assert_allclose(aims[:, inside], expected[:, inside].clip(-8, 8), atol=1e-3)


def test_a_mask_has_the_centres_of_its_parts_and_what_is_cut_has_none(labels):
    mask = np.int32(labels > 0)
    found = Annotation(mask).centred(flat=False).read(full_roi(SHAPE))[0]
    np.testing.assert_array_equal(found > 0, mask)
    assert found.max() == ndimage.label(mask, np.ones((3, 3, 3)))[1] == 2
    hidden = labels.copy()
    hidden[9:] = 9  # nobody looked there, and object 2 reaches into it
    targets = source_of(hidden).targets
    aims = targets.read(full_roi(SHAPE))[0][1:]
    assert np.isnan(aims[:, hidden == 2]).all()
    assert np.isfinite(aims[:, hidden == 6]).all()
    channels = torch.from_numpy(np.concatenate([np.zeros((4, *SHAPE), np.float32), aims]))
    channels[MASK], channels[UNKNOWN] = torch.from_numpy((labels > 0) * 1.0), 0.0
    target = target_of(targets.finish(channels[[0, 1, 2, 4, 5, 6]], (1.0, 1.0, 1.0)))
    assert set(target[1:, torch.from_numpy(hidden == 2)].flatten().tolist()) == {-1.0}


def test_a_mask_that_is_too_large_is_refused(labels, monkeypatch):
    monkeypatch.setattr(annotation, "MOST_OF_A_MASK", 100)
    with pytest.raises(ParameterError, match="offsets need labels that number objects"):
        Annotation(np.int32(labels > 0)).centred(flat=False)


def test_the_loss_of_offsets_counts_inside_of_objects_alone():
    target = torch.rand(2, 4, 5)
    target[:, 1:, :3] = -1
    logits = torch.logit(target.clamp(0.01, 0.99))
    weights = {"cells": 0.0}
    assert maps_loss(logits, target, MAPS, weights, cross_entropy_loss) < 0.02
    logits[:, 1:, :3] = 9.0
    assert maps_loss(logits, target, MAPS, weights, cross_entropy_loss) < 0.02
    logits[:, 1:, 3:] += 2.0
    assert maps_loss(logits, target, MAPS, weights, cross_entropy_loss) > 0.1


def test_validation_tells_the_error_of_offsets(labels, monkeypatch):
    source = source_of(labels, sides=(1.0, 1.0, 1.0))
    truth = source.targets.finish(
        read_tissue(source, full_roi(SHAPE), source.roi).channels.clone(), (1.0, 1.0, 1.0)
    )
    truth = torch.cat([truth[MASK][None], truth[3:]]).numpy()
    said = np.nan_to_num(truth, nan=0.5)
    said[2] += 10 / 255
    monkeypatch.setattr(
        validation, "predict_maps", lambda _n, _s, w, *_: (said[:, *w], truth[:, *w])
    )
    form = find_architecture("unet3d")
    found = validate(torch.nn.Identity(), [source], form, torch.float32)
    assert [round(v.error * 255) for v in found] == [0, 0, 10, 0]
    assert found[0].jaccard == 1
