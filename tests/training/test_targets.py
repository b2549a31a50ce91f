"""Targets of several maps: classes by value, contours and distances by instances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from volseg.errors import ParameterError
from volseg.models.maps import build_maps
from volseg.training.annotation import Annotation, parse_class
from volseg.training.losses import cross_entropy_loss, maps_loss
from volseg.training.targets import Targets, distances
from volseg.training.tissue import target_of

FULL = np.index_exp[0:8, 0:20, 0:20]


@pytest.fixture
def labels():
    """Two touching objects, a third one, and what nobody annotated."""
    found = np.zeros((8, 20, 20), np.int32)
    found[2:6, 4:10, 3:9], found[2:6, 4:10, 9:16], found[1:3, 12:18, 2:8] = 5, 6, 2
    found[7] = 9
    return found


def targets(labels, **changes):
    maps = build_maps(["cells"], ["contour", "distance"])
    known = Annotation(labels, ignore=9)
    return Targets((known,), maps, (4.0, 1.0, 1.0), 1.0, **changes)


def test_objects_that_touch_have_a_contour_between_them(labels):
    (mask, contour, distance), unknown = targets(labels).read(FULL)
    assert unknown[7].all()
    assert not unknown[:7].any()
    np.testing.assert_array_equal(mask, (labels > 0) & (labels != 9))
    assert contour[3, 6, 8] == contour[3, 6, 9] == 1
    assert contour[3, 6, 6] == 0
    # a slice is as far from the next as four voxels, so its whole face is no contour
    assert contour[2, 7, 5:7].sum() == 0
    assert distance[3, 7, 5] == pytest.approx(0.3)


@pytest.mark.parametrize("flat", [False, True])
def test_targets_are_the_same_whatever_box_is_read(labels, flat):
    layers = targets(labels, flat=flat, reach=4.0)
    whole, unknown = layers.read(FULL)
    for box in (np.index_exp[1:3, 2:11, 5:20], np.index_exp[4:8, 0:7, 8:10]):
        part, lacking = layers.read(box)
        np.testing.assert_array_equal(part, whole[:, *box])
        np.testing.assert_array_equal(lacking, unknown[box])


def test_classes_are_values_or_labels_of_their_own(labels):
    maps = build_maps(["cells", "walls"], ["walls-contour"])
    walls = np.zeros_like(labels)
    walls[:, :3] = 1
    classes = Annotation(labels, 5), Annotation(walls)
    found, unknown = Targets(classes, maps, (1.0,) * 3, 1.0).read(FULL)
    np.testing.assert_array_equal(found[0], labels == 5)
    np.testing.assert_array_equal(found[1], walls)
    assert found[2].sum() < found[1].sum()
    assert not unknown.any()
    for text in ("=1", "a=", "a=0", "a=-1", "a=1.5"):
        with pytest.raises(ParameterError):
            parse_class(text)


def test_distances_are_those_of_every_object_by_itself(labels):
    found = distances(labels, (1.0, 1.0, 2.0))
    for k in (5, 6, 2):
        alone = ndimage.distance_transform_edt(labels == k, (1.0, 1.0, 2.0))
        np.testing.assert_allclose(found[labels == k], alone[labels == k], rtol=1e-6)
    # the last slice is full, so what ends it lies before it
    np.testing.assert_array_equal(found[7], 1)


def test_losses_of_maps_are_weighed_and_heed_what_is_not_annotated():
    maps = build_maps(["a", "b"], ["contour"])
    logits, target = torch.randn(2, 3, 4), torch.rand(2, 3, 4)
    target[0] = -1
    found = maps_loss(
        logits, target, maps, {"a": 2.0, "b": 0.0, "a-contour": 0.0}, cross_entropy_loss
    )
    assert found == pytest.approx(float(cross_entropy_loss(logits[1, 0], target[1, 0])))
    target[:] = -1
    assert maps_loss(logits, target, maps, {}, cross_entropy_loss) == 0


def test_borders_are_not_known_beside_what_nobody_annotated():
    """An object of which half is known: where it ends there, nobody knows."""
    labels = np.zeros((1, 1, 24), np.int32)
    labels[..., 5:10], labels[..., 10:15] = 1, 9
    (mask, contour, distance), unknown = targets(labels, reach=8.0).read(
        np.index_exp[0:1, 0:1, 0:24]
    )
    assert np.flatnonzero(unknown[0, 0]).tolist() == [10, 11, 12, 13, 14]
    assert np.flatnonzero(mask[0, 0]).tolist() == [5, 6, 7, 8, 9]
    np.testing.assert_allclose(contour[0, 0, 3:10], [0, 0, 1, 0, 0, 0, np.nan])
    np.testing.assert_allclose(distance[0, 0, 4:10], [0, 1 / 8, 2 / 8, np.nan, np.nan, np.nan])
    channels = torch.stack([torch.from_numpy(m) for m in (mask, mask, unknown, contour, distance)])
    target = target_of(channels)
    assert target[1:, 0, 0, 9].tolist() == [-1, -1]
    assert target[0, 0, 0, 9] == 1
