"""Which objects to keep: chosen on regions whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from volseg.scores.curves import LEVELS
from volseg.training.selection import Predicted, match_components, select_objects, select_sections
from volseg.training.validation import best_threshold
from volseg.types import level_of


def predicted(*objects, truth):
    """Describe objects by their voxels, mean probability, and whether they are right."""
    voxels, means, right = zip(*objects, strict=True)
    return Predicted(truth, np.array(voxels), np.array(means), np.array(right, bool))


def test_a_size_between_noise_and_objects_is_chosen():
    noise = [(n, 0.9, False) for n in (1, 3, 40)]
    found = predicted((4000, 0.9, True), (2500, 0.9, True), *noise, truth=2)
    chosen = select_objects([found], 0.5)
    # 50 to 2000 do the same: the middle of 50, 100, 200, 500, 1000, 2000
    assert (chosen.min_size, chosen.min_probability) == (200, 0.0)
    assert (chosen.f1, chosen.f1_of_all) == (1.0, 4 / 7)
    assert (chosen.truth, chosen.kept, chosen.right) == (2, 2, 2)


def test_a_mean_probability_is_chosen_where_size_does_not_tell():
    found = predicted((900, 0.93, True), (900, 0.7, False), (950, 0.72, False), truth=1)
    chosen = select_objects([found], 0.6)
    assert (chosen.min_size, chosen.min_probability) == (0, 0.75)
    assert chosen.f1 == 1


def test_regions_count_together():
    first = predicted((900, 0.9, True), truth=1)
    second = predicted((20, 0.9, False), truth=0)
    assert select_objects([first, second], 0.5).f1_of_all == 2 / 3
    assert select_objects([first, second], 0.5).min_size > 20


def test_a_rule_that_improves_nothing_is_not_set():
    found = predicted((900, 0.9, True), (800, 0.6, True), truth=3)
    chosen = select_objects([found], 0.5)
    assert (chosen.min_size, chosen.min_probability, chosen.f1) == (0, 0.0, 0.8)
    assert select_objects([predicted((900, 0.9, False), truth=3)], 0.5) is None


@pytest.mark.parametrize("seed", range(3))
def test_what_is_right_is_what_overlaps_by_more_than_half(seed):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((16, 40, 40)), 2)
    other = smooth + 0.3 * ndimage.gaussian_filter(rng.random((16, 40, 40)), 2)
    levels = np.interp(smooth, [smooth.min(), smooth.max()], [0, 255]).astype(np.uint8)
    truth = other > np.quantile(other, 0.7)
    found = match_components(levels, truth, 160)
    ours, count = ndimage.label(levels >= 160, np.ones((3, 3, 3)))
    theirs, known = ndimage.label(truth, np.ones((3, 3, 3)))
    assert len(found.voxels) == count > 1
    for k in range(count):
        mine = ours == k + 1
        best = max(
            np.count_nonzero(mine & (theirs == t + 1)) / np.count_nonzero(mine | (theirs == t + 1))
            for t in range(known)
        )
        assert found.right[k] == (best > 0.5)
        assert found.voxels[k] == np.count_nonzero(mine)
        assert found.means[k] == pytest.approx(levels[mine].mean() / 255)
    sizes = np.bincount(theirs.ravel())[1:]
    assert found.truth == np.count_nonzero(sizes > 2)


def test_a_validation_takes_no_threshold_of_1():
    """A card's threshold is below 1, even where only the highest level tells both sides apart."""
    histogram = np.zeros((2, LEVELS), np.int64)
    histogram[0, 254], histogram[1, 255] = 9, 3
    best = best_threshold(histogram)
    assert (best.jaccard, best.threshold) == (0.25, 0.5)


@pytest.mark.parametrize("digits", [6, 17])
def test_a_threshold_means_the_level_that_was_best_however_it_is_written(digits):
    for level in range(1, LEVELS - 1):
        histogram = np.zeros((2, LEVELS), np.int64)
        histogram[0, level - 1], histogram[1, level] = 9, 3
        best = best_threshold(histogram)
        assert best.jaccard == 1
        assert level_of(float(f"{best.threshold:.{digits}g}")) == level


def test_of_section_rules_that_do_as_well_the_mildest_is_chosen():
    levels, truth = np.zeros((1, 40, 40), np.uint8), np.zeros((1, 40, 40), bool)
    levels[0, :30, :30], truth[0, :30, :30] = 250, True
    levels[0, 35, 35:38] = 140
    chosen = select_sections([(levels, truth)] * 2, 0.9)  # three pixels are chance
    assert (chosen.threshold, chosen.min_probability) == (0.5, 0.0)
    assert (chosen.jaccard, chosen.jaccard_of_all) == (900 / 903, 1.0)
    levels[0, 33:40, 33:40] = 140  # no mean before a mean, then the threshold nearest to 0.5
    chosen = select_sections([(levels, truth)] * 2, 0.9)
    assert (chosen.threshold, chosen.min_probability) == (0.6, 0.0)
    chosen = select_sections([(levels, truth)] * 2, 0.45, [0.3, 0.5])
    assert (chosen.threshold, chosen.min_probability, chosen.jaccard) == (0.5, 0.55, 1.0)
    # of one slice, no mean is chosen
    chosen = select_sections([(levels, truth)], 0.45, [0.3, 0.5])
    assert (chosen.threshold, chosen.min_probability, chosen.jaccard) == (0.5, 0.0, 900 / 949)
