"""Distractors: painted dark things are background, and the rest of a patch stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from volseg.training.augmentation import Augmentation
from volseg.training.distractors import draw_distractors, paint
from volseg.training.tissue import MASK, RAW, UNKNOWN

KINDS = ("sheath", "granule", "region", "edge", "nucleus")
SHAPES = [(1, 128, 128), (12, 48, 64)]


def _tissue(shape, channels=2):
    """Smooth grey tissue of which half is foreground, or not annotated."""
    noise = np.random.default_rng(0).normal(size=shape)
    raw = torch.from_numpy(ndimage.gaussian_filter(noise, 2).astype(np.float32) * 3)
    mask = torch.zeros(shape)
    mask[:, : shape[1] // 2] = 1
    return torch.stack([raw, mask, 1 - mask][:channels])


def _options(*kinds, chance=1.0):
    return Augmentation(**{f"{kind}_probability": chance for kind in kinds})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_painted_is_background_and_all_else_stays(kind, shape):
    painted_any = False
    for seed in range(12):
        tissue = _tissue(shape, 3)
        drawn = draw_distractors(np.random.default_rng(seed), _options(kind), shape)
        assert len(drawn) == 1
        painted = paint(tissue, drawn)
        changed = painted[RAW] != tissue[RAW]
        background = (painted[MASK] != tissue[MASK]) | (painted[UNKNOWN] != tissue[UNKNOWN])
        assert torch.isfinite(painted).all()
        assert not painted[MASK][background].any()
        assert not painted[UNKNOWN][background].any()
        assert changed[background].all()
        # the soft rim of what is painted may keep its label, and no more than that
        kept = changed & ~background & (tissue[MASK] > 0)
        inside = ndimage.binary_erosion(changed.numpy(), iterations=2)
        assert not (kept.numpy() & inside & (tissue[MASK].numpy() > 0)).sum() > 0.02 * kept.numel()
        painted_any |= bool(background.any())
    assert painted_any


def test_sheaths_regions_and_granules_are_dark():
    tissue = _tissue((1, 128, 128))
    for kind in KINDS[:3]:
        darker = []
        for seed in range(10):
            drawn = draw_distractors(np.random.default_rng(seed), _options(kind), (1, 128, 128))
            painted = paint(tissue, drawn)
            gone = (painted[MASK] == 0) & (tissue[MASK] == 1)
            if gone.any():
                darker.append(float(painted[RAW][gone].median() - tissue[RAW].median()))
        assert np.median(darker) < -0.5


def test_none_are_drawn_unless_asked_for_and_none_disturb_the_other_random_numbers():
    rng, untouched = np.random.default_rng(3), np.random.default_rng(3)
    assert draw_distractors(rng, Augmentation(), (1, 64, 64)) == ()
    assert rng.random() == untouched.random()
    tissue = _tissue((1, 64, 64))
    assert paint(tissue, ()) is tissue


def test_each_comes_as_often_as_its_probability():
    rng = np.random.default_rng(0)
    options = Augmentation(sheath_probability=0.2, edge_probability=0.6)
    drawn = [draw_distractors(rng, options, (1, 32, 32)) for _ in range(1000)]
    kinds = [chosen.kind for patch in drawn for chosen in patch]
    assert kinds.count("sheath") == pytest.approx(200, abs=50)
    assert kinds.count("edge") == pytest.approx(600, abs=60)
    assert set(kinds) == {"sheath", "edge"}


def test_the_same_seed_paints_the_same():
    tissue, options = _tissue((12, 48, 64)), _options(*KINDS)
    first, again = (
        paint(tissue, draw_distractors(np.random.default_rng(9), options, (12, 48, 64)))
        for _ in range(2)
    )
    assert torch.equal(first, again)
