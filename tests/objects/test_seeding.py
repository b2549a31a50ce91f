"""Seeds that somebody chose part an object where it is thin."""

from __future__ import annotations

import numpy as np
import pytest

from volseg.objects.seeding import has_neck, split_from_seeds


def balls(*centres, radius=6, shape=(16, 16, 40)) -> np.ndarray:
    grid = np.stack(np.indices(shape), axis=-1)
    return np.any([((grid - c) ** 2).sum(-1) <= radius**2 for c in centres], axis=0)


@pytest.mark.parametrize("offset", [(0, 0, 0), (0, 5, 0), (-4, -3, 2)])
def test_seeds_anywhere_in_two_balls_part_them_at_their_neck(offset):
    centres = np.array([[8, 8, 10], [8, 8, 20]])
    mask = balls(*centres)
    pieces = split_from_seeds(mask, [*map(tuple, (centres + offset).tolist())], (1, 1, 1))
    assert ((pieces > 0) == mask).all()
    z, y, x = np.nonzero(mask)
    sure = abs(x - 15) > 1
    assert (pieces[z, y, x][sure] == np.where(x[sure] < 15, 1, 2)).all()


def test_two_seeds_in_one_ball_both_get_a_piece():
    mask = balls((8, 8, 10))
    pieces = split_from_seeds(mask, [(8, 8, 7), (8, 8, 13)], (1, 1, 1))
    counts = np.bincount(pieces.ravel(), minlength=3)[1:]
    assert counts.sum() == mask.sum()
    assert counts.min() > mask.sum() / 10


def test_parts_without_a_seed_go_to_the_nearest_piece_by_the_size_of_voxels():
    mask = np.zeros((3, 1, 9), bool)
    mask[0, 0, :2] = mask[0, 0, 7:] = mask[2, 0, 4:6] = True
    seeds = [(0, 0, 0), (0, 0, 8)]
    for height in (1, 50):
        pieces = split_from_seeds(mask, seeds, (height, 1, 1))
        assert pieces[0, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 2, 2]
        assert ((pieces > 0) == mask).all()
        assert pieces[2, 0, 5] == 2


def test_balls_that_touch_have_a_neck_and_a_rod_has_none():
    assert has_neck(balls((8, 8, 10), (8, 8, 21)), (1, 1, 1))
    assert not has_neck(balls(*((8, 8, x) for x in range(8, 32))), (1, 1, 1))
    assert not has_neck(balls((8, 8, 10), (8, 8, 14)), (1, 1, 1))
    flat = balls((8, 8, 10), (8, 8, 21))[::2]
    assert has_neck(flat, (2, 1, 1))
