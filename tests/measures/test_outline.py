"""Hulls and outlines of single objects, by scikit-image and by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import pdist
from skimage.measure import perimeter_crofton, regionprops

from volseg.measures.outline import (
    FACES,
    count_hull_voxels,
    feret_diameter,
    hull_points,
    section_measures,
)

seeds = st.integers(0, 2**32 - 1)


def blob(seed, shape=(9, 14, 12)):
    """Draw an object of any form that touches all sides of its box, often in pieces."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random(shape), rng.random() * 2)
    mask = smooth > np.quantile(smooth, rng.uniform(0.3, 0.97))
    return mask[ndimage.find_objects(mask.astype(int))[0]]


@settings(max_examples=40)
@given(seeds)
def test_solidity_is_that_of_scikit_image(seed):
    mask = blob(seed)
    (expected,) = regionprops(mask.astype(np.uint8))
    assert count_hull_voxels(hull_points(mask)) == expected.area_convex
    np.testing.assert_allclose(mask.sum() / count_hull_voxels(hull_points(mask)), expected.solidity)


@settings(max_examples=40)
@given(seeds)
def test_feret_diameter_by_definition(seed):
    mask, size = blob(seed, (6, 8, 7)), (3.0, 1.0, 1.2)
    everything = (np.argwhere(mask)[:, None] + FACES).reshape(-1, 3)
    found = feret_diameter(hull_points(mask), size)
    assert found == pytest.approx(pdist(everything * size).max())
    (other,) = regionprops(mask.astype(np.uint8), spacing=size)
    step = math.hypot(*size)
    assert found - 1e-6 <= other.feret_diameter_max <= found + step


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (1, 9, 1), (7, 1, 1), (1, 6, 5)])
def test_what_is_thin_has_a_hull(shape):
    mask = np.ones(shape, bool)
    points = hull_points(mask)
    assert count_hull_voxels(points) == mask.size
    assert feret_diameter(points, (1.0, 1.0, 1.0)) >= max(shape)


@settings(max_examples=40)
@given(seeds)
def test_perimeters_are_those_of_scikit_image(seed):
    mask = blob(seed)
    area, perimeter, _, largest = section_measures(mask, (5.0, 2.0, 2.0))
    sections = [s for s in mask if s.any()]
    assert area == pytest.approx(np.mean([s.sum() for s in sections]) * 4)
    assert largest == max(s.sum() for s in sections) * 4
    expected = np.mean([perimeter_crofton(s, directions=4) for s in sections]) * 2
    assert perimeter == pytest.approx(expected)


@pytest.mark.parametrize("stretch", [1, 2, 3])
def test_circles_are_round_whatever_the_pixels(stretch):
    y, x = np.indices((201, 200 * stretch + 1)) - np.array([100, 100 * stretch])[:, None, None]
    disc = (y**2 + (x / stretch) ** 2 <= 90**2)[None]
    area, perimeter, circularity, _ = section_measures(disc, (1.0, 1.0, 1 / stretch))
    assert area == pytest.approx(math.pi * 90**2, rel=2e-3)
    assert perimeter == pytest.approx(2 * math.pi * 90, rel=0.03)
    assert circularity == pytest.approx(1, abs=0.06)


def test_sections_of_few_pixels_have_no_circularity():
    area, perimeter, circularity, _ = section_measures(np.ones((2, 1, 1), bool), (1.0, 1.0, 1.0))
    assert area == 1
    assert perimeter > 0
    assert math.isnan(circularity)
