"""Distractors: painted dark things are background, and the rest of a patch stays as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from volseg.training.augmentation import Augmentation
from volseg.training.canvas import Canvas, measure_inside, mottle
from volseg.training.crowds import draw_crowd, shape_crowd
from volseg.training.nuclei import draw_nucleus, shape_nucleus
from volseg.training.painting import draw_painted, paint
from volseg.training.sheaths import draw_sheath, shape_sheath
from volseg.training.tissue import MASK, RAW, UNKNOWN

KINDS = ("sheath", "granule", "region", "edge", "nucleus")
"""What is painted as background."""
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
        drawn = draw_painted(np.random.default_rng(seed), _options(kind), shape)
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
            drawn = draw_painted(np.random.default_rng(seed), _options(kind), (1, 128, 128))
            painted = paint(tissue, drawn)
            gone = (painted[MASK] == 0) & (tissue[MASK] == 1)
            if gone.any():
                darker.append(float(painted[RAW][gone].median() - tissue[RAW].median()))
        assert np.median(darker) < -0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_nuclei_are_bright_with_grey_clumps_and_a_dark_envelope(shape):
    canvas = Canvas(_tissue(shape)[RAW], -1.0, 1.0)
    greys: dict[float, list[float]] = {3.0: [], 0.0: [], -3.0: []}
    for seed in range(8):
        drawn = draw_nucleus(np.random.default_rng(seed), shape)
        known = replace(drawn, rim=2.0, grey=0.4, ground=0.1, attached=0.0, specks=0.0, own=False)
        for bare, found in greys.items():
            cover, look = shape_nucleus(replace(known, bare=bare), canvas)
            assert (look[(cover > 0.5) & (cover < 1)] == canvas.dark).all()
            within = measure_inside(known.knots, known.level, canvas.raw) > 2
            found.extend(look[within].tolist())
    assert np.median(greys[3.0]) == pytest.approx(0.8, abs=0.02), "ground alone"
    assert np.median(greys[-3.0]) == pytest.approx(0.0, abs=0.02), "clumps alone"
    assert 0.1 < np.median(greys[0.0]) < 0.7
    assert np.quantile(greys[0.0], 0.02) > -0.4, "not as dark as myelin"


def test_a_sheath_is_about_as_wide_as_it_says_and_its_width_wavers():
    canvas = Canvas(torch.zeros(1, 200, 200), -1.0, 1.0)
    knots = np.linspace(-1, 1, 5, dtype=np.float32)[None, None].repeat(5, 1)  # a plane along x
    drawn = draw_sheath(np.random.default_rng(0), (1, 200, 200))
    even = replace(drawn, knots=knots, level=0.5, width=10.0, waver=0.0, soft=1.0)
    wide = (shape_sheath(even, canvas)[0][0] > 0.5).sum(1)
    assert ((wide >= 15) & (wide <= 23)).all()
    wavering = replace(even, waver=0.4, reach=30.0)
    wavers = (shape_sheath(wavering, canvas)[0][0] > 0.5).sum(1)
    assert wavers.max() - wavers.min() > 6


def test_mottles_go_on_from_slice_to_slice_and_those_of_one_slice_stay_as_they_were():
    noise = Canvas(torch.zeros(16, 90, 70), -1.0, 1.0).noise(1)
    mottles = mottle(noise, 6.0)
    assert mottles.shape == noise.shape
    along_z, along_y = (mottles.diff(dim=k).abs().mean() for k in (0, 1))
    assert 0.5 * along_y < along_z < 1.5 * along_y
    small = noise[:1, None, :15, :12]
    before = torch.nn.functional.interpolate(small, (90, 70), mode="bilinear")[:, 0]
    assert torch.equal(mottle(noise[:1], 6.0), before)
    drawn = draw_sheath(np.random.default_rng(0), (16, 90, 70))
    knots = np.linspace(-1, 1, 5, dtype=np.float32)[None, None].repeat(5, 1)  # a plane along x
    even = replace(drawn, knots=knots, level=0.5, width=10.0, waver=0.45, reach=24.0, soft=1.0)
    wide = shape_sheath(even, Canvas(torch.zeros(16, 90, 70), -1.0, 1.0))[0].sum(2)
    assert wide.diff(dim=0).abs().max() < 2


@pytest.mark.parametrize("shape", SHAPES)
def test_painted_mitochondria_are_known_foreground_apart_and_all_else_stays(shape):
    parts = []
    for seed in range(12):
        tissue = _tissue(shape, 3)
        tissue[MASK] = 0
        drawn = draw_painted(np.random.default_rng(seed), _options("crowd"), shape)
        assert len(drawn) == 1
        painted = paint(tissue, drawn)
        changed, found = painted[RAW] != tissue[RAW], painted[MASK] == 1
        assert torch.isfinite(painted).all()
        assert changed[found].all()
        assert not painted[UNKNOWN][found].any()
        assert torch.equal(painted[UNKNOWN][~found], tissue[UNKNOWN][~found])
        # what is changed and no foreground is their soft rim, or a cell too thin to have more
        rim = (changed & ~found).numpy()
        near = ndimage.binary_dilation(found.numpy(), np.ones((3, 3, 3)), iterations=2)
        assert (rim & ~near).mean() < 0.01
        parts.append(float(found.float().mean()))
    assert min(parts) < 0.3
    assert max(parts) > 0.5


@pytest.mark.parametrize(("radius", "low", "high"), [(26.0, 88, 94), (200.0, 94, 98)])
def test_painted_mitochondria_lie_apart_and_end_at_their_radius(radius, low, high):
    seeds = np.array([[0, 100, 70], [0, 100, 130], [0, 0, 0]], np.float32)
    crowd = draw_crowd(np.random.default_rng(0), (1, 200, 200))
    crowd = replace(crowd, seeds=seeds, taken=np.array([True, True, False]), squeeze=1.0)
    crowd = replace(crowd, radius=radius, gap=4.0)
    cover, _ = shape_crowd(crowd, Canvas(torch.zeros(1, 200, 200), 0.0, 1.0))
    found = cover[0].numpy() > 0.5
    assert ndimage.label(found)[1] == 2
    assert low <= np.flatnonzero(found[100, :100]).max() <= high
    assert not found[0, 0], "a cell that is not taken"


def test_none_are_drawn_unless_asked_for_and_none_disturb_the_other_random_numbers():
    rng, untouched = np.random.default_rng(3), np.random.default_rng(3)
    assert draw_painted(rng, Augmentation(), (1, 64, 64)) == ()
    assert rng.random() == untouched.random()
    tissue = _tissue((1, 64, 64))
    assert paint(tissue, ()) is tissue


def test_each_comes_as_often_as_its_probability():
    rng = np.random.default_rng(0)
    options = Augmentation(sheath_probability=0.2, edge_probability=0.6, crowd_probability=0.4)
    drawn = [draw_painted(rng, options, (1, 32, 32)) for _ in range(1000)]
    kinds = [
        getattr(chosen, "kind", type(chosen).__name__.lower())
        for patch in drawn
        for chosen in patch
    ]
    assert kinds.count("sheath") == pytest.approx(200, abs=50)
    assert kinds.count("edge") == pytest.approx(600, abs=60)
    assert kinds.count("crowd") == pytest.approx(400, abs=60)
    assert set(kinds) == {"sheath", "edge", "crowd"}


def test_the_same_seed_paints_the_same():
    tissue, options = _tissue((12, 48, 64)), _options(*KINDS, "crowd")
    first, again = (
        paint(tissue, draw_painted(np.random.default_rng(9), options, (12, 48, 64)))
        for _ in range(2)
    )
    assert torch.equal(first, again)
