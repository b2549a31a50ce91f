"""Letters of pictures: each is another, and they lie where they are drawn."""

from __future__ import annotations

import itertools
import string

import numpy as np
import pytest

from volseg.voxels.letters import LINE, STEP, count_bar, draw_bar, draw_text, shape_text, shorten

KNOWN = string.ascii_letters + string.digits + ".,:;-_/()+=%<>?!'#&*@[]~|µ "


def test_letters_differ_from_each_other_and_from_what_is_unknown():
    drawn = {letter: shape_text(letter).tobytes() for letter in KNOWN}
    assert len(set(drawn.values())) == len(KNOWN)
    assert shape_text("\x07").tobytes() == shape_text("ü").tobytes()
    assert shape_text("ü").tobytes() not in drawn.values()
    for letter in set(KNOWN) - {" "}:
        rows, _ = np.nonzero(shape_text(letter))
        hangs = letter in "gjpqyµ,;_"
        assert (rows.max() > 6) == hangs, letter


@pytest.mark.parametrize("scale", [1, 3])
def test_text_lies_at_its_corner_and_what_is_beyond_the_picture_is_left_out(scale):
    picture = np.full((40, 60, 3), 255, np.uint8)
    draw_text(picture, (5, 7), "ab", colour=(1, 2, 3), scale=scale)
    rows, columns = np.nonzero((picture == (1, 2, 3)).all(axis=2))
    assert rows.max() < 5 + LINE * scale
    assert columns.min() >= 7
    assert columns.max() < 7 + 2 * STEP * scale
    assert len(rows) == shape_text("ab").sum() * scale**2
    for corner in ((38, 55), (100, 0), (0, 100)):
        draw_text(picture, corner, "ab", scale=scale)


def test_bars_are_as_long_as_they_say():
    for part, width in itertools.product((0.1, 0.2, 0.25), (40, 320)):
        picture = np.full((64, width, 3), 128, np.uint8)
        draw_bar(picture, "1 µm", part)
        assert (picture[-6] == 255).all(axis=1).sum() == round(part * width)
    draw_bar(np.zeros((3, 2, 3), np.uint8), "1 µm", 0.2)
    for voxels in range(1, 999):
        words, part = count_bar(voxels)
        assert part * voxels == pytest.approx(int(words.split()[0]))
        assert part <= 0.25 or words == "1 voxel"


def test_a_name_that_is_too_long_keeps_its_ends():
    for count in range(4, 20):
        assert len(shorten("mitochondria-in-muscle", count)) == count
