"""Hard examples: where a network is wrong, and patches that are drawn there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from volseg.geometry.grid import full_roi
from volseg.models.registry import find_architecture
from volseg.training.hard_examples import WINDOWS, find_hard_examples
from volseg.training.sampling import Source, draw_centre, find_foreground
from volseg.voxels.intensity import Tone

SHAPE = (12, 90, 100)


class Bright(nn.Module):
    """Takes what is bright for foreground."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, raw):
        return self.gain * raw


def _source(scale=(1.0, 1.0, 1.0), slices=None):
    """Two bright boxes, of which the labels know one; and a dark one, which they know too."""
    raw = np.full(SHAPE, 60, np.uint8)
    labels = np.zeros(SHAPE, np.uint8)
    raw[:, 10:40, 10:40] = raw[:, 55:85, 60:90] = 200
    labels[:, 10:40, 10:40] = labels[:, 60:80, 10:30] = 1
    roi = full_roi(SHAPE)
    foreground = find_foreground(labels, roi)[0]
    return Source(
        raw, labels, roi, Tone((0.0, 255.0)), foreground, False, slices, planar=True, scale=scale
    )


def _find(*sources):
    form = find_architecture("unet2d")
    return find_hard_examples(Bright(), sources, form, torch.float32, (0, 5))


@pytest.mark.parametrize("scale", [(1.0, 1.0, 1.0), (1.0, 2.0, 2.0), (1.0, 0.5, 0.5)])
def test_a_bright_box_that_is_none_and_a_dark_one_that_is_are_found_and_no_edges(scale):
    (found,) = _find(_source(scale))
    z, y, x = found.T
    rim = max(scale[1] - 1, 0)  # a coarse voxel may lie half on a box
    bright = (y >= 55 - rim) & (y < 85 + rim) & (x >= 60 - rim) & (x < 90 + rim)
    dark = (y >= 60) & (y < 80) & (x >= 10) & (x < 30)
    assert (bright | dark).all()
    assert bright.any()
    assert dark.any()
    assert len(np.unique(z)) > 3


def test_the_same_seed_finds_the_same_and_sources_do_not_mix():
    plain = _source()
    nothing = replace(plain, labels=(plain.raw > 100).astype(np.uint8))
    first, none, _ = _find(plain, nothing, plain)
    again, _, _ = _find(plain, nothing, plain)
    np.testing.assert_array_equal(first, again)
    assert none.shape == (0, 3)


def test_only_annotated_slices_are_looked_at():
    (found,) = _find(_source(slices=np.array([2, 9])))
    assert set(found[:, 0].tolist()) == {2, 9}
    assert WINDOWS >= 2


def test_voxels_that_nobody_annotated_are_no_mistakes():
    plain = _source()
    labels = plain.labels.astype(np.int16)
    labels[:, 50:90, 50:100] = -1
    (found,) = _find(replace(plain, labels=labels, partial=True))
    _, y, x = found.T
    assert len(found)
    assert ((y >= 60) & (y < 80) & (x >= 10) & (x < 30)).all()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_patches_are_drawn_there_as_often_as_asked_for(share):
    source = replace(_source(), hard=np.array([[3, 70, 75], [4, 71, 76]]))
    rng = np.random.default_rng(0)
    drawn = [draw_centre(source, rng, 0.0, hard_share=share) for _ in range(1000)]
    there = np.mean([centre in {(3.0, 70.0, 75.0), (4.0, 71.0, 76.0)} for centre in drawn])
    assert there == pytest.approx(share, abs=0.05)


def test_a_source_without_mistakes_is_drawn_from_as_ever():
    source = replace(_source(), hard=np.zeros((0, 3), np.int64))
    ours = [draw_centre(source, np.random.default_rng(k), 0.5, hard_share=1.0) for k in range(50)]
    plain = [draw_centre(_source(), np.random.default_rng(k), 0.5) for k in range(50)]
    assert ours == plain
