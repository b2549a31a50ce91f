"""Distances of surfaces are those of the whole volume, however it is cut."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from volseg.geometry.grid import Grid, cut_blocks
from volseg.scores.boundary import BEYOND, PARTS, score_boundary
from volseg.stages.evaluate.boundary import MeasureBoundary

SHAPE = (9, 24, 26)


def blobs(seed, quantile=0.7):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(SHAPE), 1.5)
    return (smooth > np.quantile(smooth, quantile)).astype(np.uint8)


def oracle(mask, other, region, spacing, reach):
    """Erode, and transform distances, of the whole region at once."""
    cross = ndimage.generate_binary_structure(3, 1)
    if math.isinf(spacing[0]):
        cross[[0, 2]] = False
    sides = [m[region] > 0 for m in (mask, other)]
    here, there = (m & ~ndimage.binary_erosion(m, cross, border_value=1) for m in sides)
    if math.isinf(spacing[0]):
        near = np.full(here.shape, np.inf)
        for z, plane in enumerate(there):
            if plane.any():
                near[z] = ndimage.distance_transform_edt(~plane, sampling=spacing[1:])
    else:
        near = ndimage.distance_transform_edt(~there, sampling=spacing)
    distances = near[here]
    parts = np.where(distances <= reach, np.rint(np.minimum(distances, 1e6) * PARTS), BEYOND)
    return Counter(parts.astype(int).tolist())


@settings(max_examples=15)
@given(
    size=st.tuples(st.integers(2, 9), st.integers(5, 24), st.integers(5, 26)),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), (3.0, 0.7, 0.7), (math.inf, 1.0, 2.0)]),
    cut=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_cut_gives_the_distances_of_the_whole(size, spacing, cut, seed):
    truth, predicted = blobs(seed), np.roll(blobs(seed), seed % 4, 2) | blobs(seed + 50, 0.97)
    region = (
        (slice(1, 8), slice(2, 20), slice(0, 25)) if cut else tuple(map(slice, (0, 0, 0), SHAPE))
    )
    task = MeasureBoundary(truth, predicted, None, region, spacing, 4.0)
    found = Counter(), Counter()
    for block in cut_blocks(Grid(SHAPE, size), region):
        for total, part in zip(found, task(block), strict=True):
            total.update(part)
    assert found[0] == oracle(truth, predicted, region, spacing, 4.0)
    assert found[1] == oracle(predicted, truth, region, spacing, 4.0)


def test_scores_of_known_distances():
    truth, predicted = Counter({0: 90, 2000: 10}), Counter({0: 95, 5000: 3, BEYOND: 2})
    scores = score_boundary(truth, predicted, "nm", 2.0, 8.0)
    assert (scores.recall, scores.precision) == (1.0, 0.95)
    assert scores.f1 == pytest.approx(2 * 0.95 / 1.95)
    assert scores.mean == pytest.approx((10 * 2 + 3 * 5) / 198)
    assert scores.hausdorff95 == 2.0
    assert scores.beyond == 0.01
