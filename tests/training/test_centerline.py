"""The centerline target against thinning and distances computed apart."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.morphology import skeletonize

from volseg.training.augmentation import Augmentation
from volseg.training.centerline import centerline_proximity, object_proximity
from volseg.training.sampling import Source, draw_patch
from volseg.voxels.intensity import Tone


def _tube():
    z, y, x = np.mgrid[:20, :30, :50]
    return (z - 10) ** 2 + (y - 15 - 4 * np.sin(x / 8)) ** 2 < 36


@pytest.mark.parametrize("profile", [(), (1.0, 4.0)])
def test_it_is_the_exponential_of_the_distance_to_the_thinned_object(profile):
    alpha, reach = profile or (3, 15)
    told = (alpha, 5.0 * reach) if profile else ()  # in nm, of voxels of 5 nm
    mask = _tube()
    line = np.argwhere(skeletonize(mask, method="lee"))
    voxels = np.argwhere(mask)[::7]
    distance = np.sqrt(((voxels[:, None] - line[None]) ** 2).sum(2)).min(1)
    expected = np.expm1(alpha * np.clip(1 - distance / reach, 0, None)) / np.expm1(alpha)
    found = centerline_proximity(mask, *told)
    np.testing.assert_allclose(found[tuple(voxels.T)], expected, rtol=1e-5)


def test_it_is_one_on_the_line_and_zero_outside():
    mask = _tube()
    found = centerline_proximity(mask)
    assert found.max() == 1.0
    assert (found[skeletonize(mask, method="lee") > 0] == 1).all()
    assert found[~mask].max() == 0
    assert found.dtype == np.float32


def test_beyond_the_reach_it_is_zero_and_nothing_gives_nothing():
    mask = np.zeros((3, 3, 40), bool)
    mask[1, 1] = True
    assert centerline_proximity(mask).min(initial=1, where=mask) == 1
    z, y, _ = np.mgrid[:40, :40, :80]
    thick = (z - 20) ** 2 + (y - 20) ** 2 <= 18**2
    thick[..., :3] = thick[..., -3:] = False
    column = centerline_proximity(thick)[:, 20, 40]
    assert column[20] == 1
    assert (column[6:35] > 0).all()
    assert not column[:6].any()
    assert not centerline_proximity(np.zeros((4, 4, 4), bool)).any()


OFF = ("flip", "turn", "zoom", "shift", "elastic", "rotate", "section", "fault", "intensity")
STILL = Augmentation(**{f"{name}_probability": 0.0 for name in OFF})


def test_a_patch_has_the_centerline_of_its_whole_object():
    labels = np.zeros((12, 20, 60), np.uint8)
    labels[3:8, 6:13, 4:56] = 1  # a rod, of which a patch holds a piece
    labels[3:8, 13:18, 4:56] = 2  # and another that touches it
    whole = object_proximity(labels, 3.0, 75.0, (5.0, 5.0, 5.0))
    for number in (1, 2):
        np.testing.assert_allclose(
            whole[labels == number],
            centerline_proximity(labels == number)[labels == number],
            atol=1e-3,
        )
    box = tuple(slice(0, n) for n in labels.shape)
    source = Source(labels, labels, box, Tone((0, 2)), np.argwhere(labels), True, lines=whole)
    drawn = draw_patch(source, np.random.default_rng(1), (5, 5, 5), STILL, shares=(1.0, 0.0))
    windows = np.lib.stride_tricks.sliding_window_view(whole.astype(np.float32), (5, 5, 5))
    found = drawn.lines[0].numpy()
    assert np.abs(windows - found).max(axis=(3, 4, 5)).min() < 2e-3
