"""Background and defects: found to the pixel, and nothing of tissue with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from volseg.voxels.background import (
    SIDE,
    choose_background,
    constant_squares,
    count_constant,
    fill_by_reflection,
    find_constant,
)
from volseg.voxels.defects import Columns, find_defects, find_missing, is_uneven
from volseg.voxels.evening import even_out, even_tone
from volseg.voxels.histogram import count_intensities
from volseg.voxels.intensity import Preprocessing
from volseg.voxels.slices import note_slices


def tissue(shape, seed=0, dtype="uint8"):
    """Draw blobs and noise between 60 and 190, alike from slice to slice."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.random(shape), [6, 4, 4])
    blobs = (blobs - blobs.mean()) / blobs.std()
    return np.clip(125 + 20 * blobs + rng.normal(0, 8, shape), 60, 190).astype(dtype)


def columns(raw):
    notes = note_slices(raw)
    repeats = np.zeros(len(raw), bool)
    repeats[1:] = notes.checksums[1:] == notes.checksums[:-1]
    return Columns(notes.quantiles, notes.sharpness, notes.constant, notes.likeness, repeats)


@pytest.mark.parametrize("width", [1, 2, 9, 40])
@pytest.mark.parametrize("value", [0, 125, 255])
def test_padding_is_found_to_the_pixel(width, value):
    plane = np.pad(tissue((1, 90, 70))[0], width, constant_values=value)
    padding = np.pad(np.zeros((90, 70), bool), width, constant_values=True)
    found = constant_squares(plane, value)
    np.testing.assert_array_equal(found & ~padding, False)
    assert (found & padding).sum() == padding.sum() == count_constant(plane)[value]


@given(seed=st.integers(0, 1000), y=st.integers(0, 40), x=st.integers(0, 40))
def test_what_is_found_in_a_box_is_what_is_found_in_the_whole(seed, y, x):
    rng = np.random.default_rng(seed)
    plane = np.zeros((90, 90), np.uint8)
    for _ in range(6):
        at, size = rng.integers(0, 80, 2), rng.integers(1, 50, 2)
        plane[at[0] : at[0] + size[0], at[1] : at[1] + size[1]] = rng.integers(0, 2)
    reach = SIDE - 1
    top, left = max(y - reach, 0), max(x - reach, 0)
    part = plane[top : y + 30 + reach, left : x + 30 + reach]
    for value in (0, 1):
        whole = constant_squares(plane, value)[y : y + 30, x : x + 30]
        found = constant_squares(part, value)[y - top :, x - left :][:30, :30]
        np.testing.assert_array_equal(found, whole)
    listed = {v: int(f.sum()) for v, f in find_constant(plane)}
    assert listed == {v: n for v in (0, 1) if (n := int(constant_squares(plane, v).sum()))}


def test_clipped_tissue_is_no_background():
    raw = tissue((1, 200, 200))[0]
    raw[40:60, 40:60] = 255
    raw[np.random.default_rng(1).random(raw.shape) < 0.1] = 255
    areas = count_constant(raw)
    assert choose_background(areas, count_intensities(raw)[0], raw.dtype) == []
    assert choose_background(areas, count_intensities(raw)[0], raw.dtype, 255) == [255.0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_background_of_any_type(dtype):
    raw = np.pad(tissue((1, 90, 90), dtype=dtype)[0], ((0, 0), (20, 0)), constant_values=1)
    areas = count_constant(raw)
    assert areas == {1.0: 20 * 90}
    assert choose_background(areas, count_intensities(raw)[0], raw.dtype) == [1.0]


@given(width=st.integers(0, 9), height=st.integers(0, 9), depth=st.integers(0, 4))
def test_filled_padding_is_what_mirroring_makes(width, height, depth):
    raw = np.random.default_rng(3).integers(1, 99, (5, 12, 11))
    around = [(depth, 0), (height, 2), (1, width)]
    padded = np.pad(raw, around)
    filled = fill_by_reflection(padded, padded == 0)
    np.testing.assert_array_equal(filled, np.pad(raw, around, mode="reflect"))


def test_defects_are_told_by_their_slices():
    raw = tissue((40, 120, 140))
    assert not any(found for _, found in find_defects(columns(raw)))
    raw[5] = 0
    raw[9] = raw[8]
    raw[14] = ndimage.gaussian_filter(raw[14], 1.5)
    raw[20] = np.roll(raw[20], (20, 10), (0, 1))
    raw[26] = raw[26] * 0.6
    raw[30:32] = 255
    found = dict(find_defects(columns(raw)))
    assert found == {
        "missing": (5, 30, 31),
        "repeated": (9,),
        "blurred": (14,),
        "shifted": (20,),
        "jumps": (26,),
    }


def test_slices_next_to_constant_are_missing_too():
    raw = tissue((9, 64, 64))
    raw[4] = np.random.default_rng(0).integers(0, 2, (64, 64))
    assert np.flatnonzero(find_missing(columns(raw))).tolist() == [4]


@pytest.mark.parametrize("shape", [(3, 1000, 2), (3, 2, 1000), (2, 1, 1)])
def test_slices_too_narrow_for_a_thumbnail_have_no_shift(shape):
    raw = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    assert (note_slices(raw).likeness == 0).all()


def test_cells_are_as_bright_as_their_sampled_pixels():
    raw = np.random.default_rng(0).integers(0, 256, (1, 300, 419), np.uint8)
    padded = raw.copy()
    padded[:, :, :40] = 7
    for stack, first in ((raw, 0), (padded, 40)):
        low, high = (note_slices(stack).quantiles[0, k] for k in (1, 5))
        cells = note_slices(stack).cells
        assert cells.shape == (1, 2, 3, 2)
        samples = stack[0, 150::8, 0:139:8][:, -(-first // 8) :].astype(float)
        ordered = np.sort(samples.reshape(-1))
        expected = [ordered[len(ordered) * q // 100] for q in (5, 95)]
        np.testing.assert_allclose(cells[0, 1, 0], (np.array(expected) - low) / (high - low))


@pytest.mark.parametrize("factor", [1.0, 2.0, 3.0, 1.5, 2.25])
def test_slices_of_any_level_have_the_brightness_of_those_that_they_cover(factor):
    raw = tissue((36, 64, 64)) // 2 + np.arange(36, dtype=np.uint8)[:, None, None]
    depth = math.ceil(36 / factor)
    ends = even_out(columns(raw), None, 16, (factor, 1.0, 1.0), (depth, 64, 64)).ends
    middles = np.clip((np.arange(depth) + 0.5) * factor - 0.5, 0, 35)
    single = even_out(columns(raw), None, 16, (1.0, 1.0, 1.0), raw.shape).ends
    expected = np.stack([np.interp(middles, np.arange(36), e) for e in single.T], axis=1)
    assert len(ends) == depth
    assert np.abs(ends - expected).max() < 2


@pytest.mark.parametrize("local", [False, True])
def test_evening_undoes_what_dims_slices(local):
    raw = tissue((32, 600, 560), dtype="float32")
    gain = np.array([0.5, 1, 1.4])[np.arange(32) % 3][:, None, None]
    across = np.linspace(0.7, 1.3, 560) if local else 1.0
    dimmed = (raw * gain * across).astype(np.float32)
    slices = columns(dimmed)
    assert is_uneven(slices)
    assert not is_uneven(columns(raw))
    notes = note_slices(dimmed)
    cells = np.stack([np.median(notes.cells[z : z + 16], axis=0) for z in (0, 16)])
    evening = even_out(slices, cells if local else None, 16, (1.0, 1.0, 1.0), raw.shape)
    box = (slice(3, 9), slice(100, 300), slice(50, 500))
    tone = even_tone(Preprocessing(), slices)
    shown = tone(evening(dimmed[box], box))
    plain = even_tone(Preprocessing(), columns(raw))(raw[box])
    assert np.corrcoef(shown.ravel(), plain.ravel())[0, 1] > (0.95 if local else 0.995)
    assert np.abs(shown - plain).mean() < 0.15
    part = (box[0], slice(150, 200), slice(60, 70))
    inner = evening(dimmed[part], part)
    np.testing.assert_array_equal(inner, evening(dimmed[box], box)[:, 50:100, 10:20])
