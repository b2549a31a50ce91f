"""Blockwise components are those of the whole volume, numbered alike, however it is cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from volseg.geometry.grid import Grid
from volseg.objects.components import (
    DIFFERING,
    EARLIER,
    find_components,
    find_seeded,
    measure_sections,
    render,
    sum_levels,
    touching,
)
from volseg.objects.joining import Candidates, Limits, number_objects


def label_blockwise(
    mask, size, min_size=0, connectivity=26, *, level=1, seed_level=None, least=None, section=None
):
    """Run both passes over the blocks of an array in memory."""
    grid = Grid(mask.shape, size)
    found = {
        b.index: find_components(mask[b.core], b.core, mask.shape, connectivity, level=level)
        for b in grid.blocks()
    }
    seeded = totals = None
    if seed_level is not None:
        seeded = np.concatenate(
            [find_seeded(found[b.index], mask[b.core], seed_level) for b in grid.blocks()]
        )
    if least is not None:
        totals = np.concatenate([sum_levels(found[b.index], mask[b.core]) for b in grid.blocks()])
    largest, slices = None, []
    counts = [len(c.sizes) for c in found.values()]
    offsets = dict(zip(found, np.cumsum([0, *counts]), strict=False))
    pairs = [
        touching(found[i].planes, found[j].planes, step, connectivity)
        + np.array([offsets[i], offsets[j]])
        for i in found
        for step in EARLIER
        if (j := tuple(np.add(i, step).tolist())) in found
    ]
    sizes, firsts = (
        np.concatenate([getattr(c, kind) for c in found.values()]) for kind in ("sizes", "firsts")
    )
    if section is not None:
        measured = {i: measure_sections(c, c.planes, grid.block(i).core) for i, c in found.items()}
        largest = np.concatenate([sections for sections, _ in measured.values()])
        slices = [rows + np.array([offsets[i], 0, 0]) for i, (_, rows) in measured.items()]
    candidates = Candidates(sizes, firsts, seeded, totals, largest)
    limits = Limits(min_size, math.inf, section or math.inf, (least or 0) / 255)
    numbering = number_objects(candidates, pairs, limits, slices)
    labels = np.empty(mask.shape, np.uint32)
    for block in grid.blocks():
        start = offsets[block.index]
        numbers = numbering.numbers[start : start + len(found[block.index].sizes)]
        labels[block.core] = render(found[block.index], numbers, block.core)
    return labels, numbering.objects


def label_whole(mask, min_size=0, connectivity=26):
    """Label with scipy, which knows no blocks, and number the rest by first voxel."""
    structure = ndimage.generate_binary_structure(3, DIFFERING[connectivity])
    if connectivity in (4, 8):
        structure[[0, 2]] = False
    labels, _ = ndimage.label(mask, structure)
    found, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    kept = (found > 0) & (sizes >= min_size)
    order = found[kept][np.argsort(first[kept])]
    table = np.zeros(found.max() + 1, np.uint32)
    table[order] = np.arange(1, len(order) + 1)
    return table[labels], len(order)


def spiral(n=33):
    """One thread that winds through a plane, and back through the next but one."""
    mask = np.zeros((5, n, n), bool)
    low, high = 0, n - 1
    while low < high:
        mask[0, low, max(low - 2, 0) : high + 1] = mask[0, low : high + 1, high] = True
        mask[0, high, low : high + 1] = mask[0, low + 2 : high + 1, low] = True
        low, high = low + 2, high - 2
    mask[4], mask[1:4, 0, 0] = mask[0], True
    return mask


def comb(n=32):
    """Teeth that only their back joins, at the far end."""
    mask = np.zeros((9, n, n), bool)
    mask[::2, :, ::2] = True
    mask[:, -1, :] = True
    return mask


def corners(n=24):
    """Cubes that touch only at block corners."""
    mask = np.zeros((n, n, n), bool)
    for k in range(0, n, 8):
        mask[k : k + 8, k : k + 8, k : k + 8] = True
    return mask


def anti_corners(n=24):
    """Cubes that touch only at corners, along the other diagonals."""
    return corners(n)[:, ::-1] | corners(n)[:, :, ::-1]


@pytest.mark.parametrize("shape_of", [spiral, comb, corners, anti_corners])
@pytest.mark.parametrize("size", [(8, 8, 8), (3, 5, 7), (1, 16, 16), (64, 64, 64)])
def test_hard_cases_equal_the_whole(shape_of, size):
    mask = shape_of()
    expected, count = label_whole(mask)
    labels, objects = label_blockwise(mask, size)
    assert objects == count
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("density", [0.03, 0.09, 0.0976, 0.11, 0.3116, 0.6])
def test_random_fields_at_and_around_percolation(density):
    mask = np.random.default_rng(int(density * 1e4)).random((40, 41, 43)) < density
    expected, count = label_whole(mask, 3)
    labels, objects = label_blockwise(mask, (13, 16, 11), 3)
    assert objects == count
    np.testing.assert_array_equal(labels, expected)


sides = st.tuples(*[st.integers(1, 14)] * 3)


@given(
    shape=sides,
    size=sides,
    density=st.floats(0, 1),
    min_size=st.integers(0, 6),
    connectivity=st.sampled_from(list(DIFFERING)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_cut_gives_the_same_labels(shape, size, density, min_size, connectivity, seed):
    mask = np.random.default_rng(seed).random(shape) < density
    expected, count = label_whole(mask, min_size, connectivity)
    labels, objects = label_blockwise(mask, size, min_size, connectivity)
    assert objects == count
    np.testing.assert_array_equal(labels, expected)


def test_thin_blocks_hold_more_components_than_cc3d_makes_room_for():
    mask = np.zeros((1, 1, 7), bool)
    mask[..., ::2] = True
    labels, objects = label_blockwise(mask, (1, 1, 7))
    assert objects == 4
    np.testing.assert_array_equal(labels[0, 0], [1, 0, 2, 0, 3, 0, 4])


def test_a_small_object_is_measured_whole():
    """Four voxels in four blocks are one object of four."""
    mask = np.zeros((2, 8, 8), bool)
    mask[0, 3:5, 3:5] = True
    assert label_blockwise(mask, (2, 4, 4), 4)[1] == 1
    assert label_blockwise(mask, (2, 4, 4), 5)[1] == 0


@given(
    shape=sides,
    size=sides,
    levels=st.tuples(st.integers(1, 9), st.integers(1, 9)).map(sorted),
    min_size=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_objects_without_a_seed_are_dropped_whole(shape, size, levels, min_size, seed):
    volume = np.random.default_rng(seed).integers(0, 10, shape).astype(np.uint8)
    low, high = levels
    labels, _ = label_blockwise(volume, size, min_size, level=low, seed_level=high)
    found, _ = ndimage.label(volume >= low, np.ones((3, 3, 3)))
    sizes = np.bincount(found.ravel())
    seeds = np.unique(found[volume >= high])
    kept = np.isin(found, seeds[sizes[seeds] >= min_size])
    np.testing.assert_array_equal(labels, label_whole(kept)[0])


@given(
    shape=sides,
    size=sides,
    level=st.integers(1, 9),
    min_level=st.sampled_from([0, 3, 4.5, 6, 7.25, 9]),
    seed=st.integers(0, 2**32 - 1),
)
def test_objects_of_a_low_mean_are_dropped_whole(shape, size, level, min_level, seed):
    volume = np.random.default_rng(seed).integers(0, 10, shape).astype(np.uint8)
    labels, _ = label_blockwise(volume, size, level=level, least=min_level)
    found, count = ndimage.label(volume >= level, np.ones((3, 3, 3)))
    # of small whole numbers: rounding moves none of them past a quarter
    means = [float(volume[found == k].astype(float).mean()) for k in range(1, count + 1)]
    kept = np.isin(found, 1 + np.flatnonzero(np.array(means) >= min_level))
    np.testing.assert_array_equal(labels, label_whole(kept)[0])


@given(
    shape=sides,
    size=sides,
    density=st.floats(0, 1),
    connectivity=st.sampled_from(list(DIFFERING)),
    most=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_objects_of_a_large_section_are_dropped_whole(
    shape, size, density, connectivity, most, seed
):
    mask = np.random.default_rng(seed).random(shape) < density
    labels, _ = label_blockwise(mask, size, connectivity=connectivity, section=most)
    found, count = label_whole(mask, connectivity=connectivity)
    sections = [np.bincount(plane.ravel(), minlength=count + 1) for plane in found]
    kept = (np.max(sections, axis=0) <= most)[found] & (found > 0)
    np.testing.assert_array_equal(labels, label_whole(kept, connectivity=connectivity)[0])
