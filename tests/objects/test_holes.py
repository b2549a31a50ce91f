"""Holes found blockwise are those that scipy finds object by object on the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from volseg.geometry.grid import Grid
from volseg.objects.components import DIFFERING, EARLIER, find_components, render, touching
from volseg.objects.holes import (
    DUAL,
    Touched,
    find_background,
    merge_touched,
    number_holes,
    reaching_border,
    touched_within,
)
from volseg.objects.joining import Candidates, Limits, number_objects


def structure(connectivity):
    found = ndimage.generate_binary_structure(3, DIFFERING[connectivity])
    if connectivity in (4, 8):
        found[[0, 2]] = False
    return found


def fill_whole(labels, connectivity):
    """Fill what scipy fills for each object alone, unless another object lies in it."""
    filled, background = labels.copy(), structure(DUAL[connectivity])
    for number in range(1, labels.max() + 1):
        alone = labels == number
        # scipy fills with what the background may pass through
        holes = ndimage.binary_fill_holes(alone, background) & ~alone
        parts, count = ndimage.label(holes, background)
        for part in range(1, count + 1):
            if not labels[parts == part].any():
                filled[parts == part] = number
    return filled


def fill_blockwise(mask, size, connectivity, min_size=0):
    """Find objects and holes over the blocks of an array; return labels before and after."""
    grid = Grid(mask.shape, size)
    blocks = {b.index: b.core for b in grid.blocks()}
    found = {i: find_components(mask[c], c, mask.shape, connectivity) for i, c in blocks.items()}
    steps = [
        (i, j, step)
        for i in blocks
        for step in EARLIER
        if (j := tuple(np.add(i, step).tolist())) in blocks
    ]
    start = starts(found)
    pairs = [
        touching(found[i].planes, found[j].planes, s, connectivity) + np.array([start[i], start[j]])
        for i, j, s in steps
    ]
    sizes, firsts = (np.concatenate([getattr(c, k) for c in found.values()]) for k in FIELDS)
    numbering = number_objects(Candidates(sizes, firsts), pairs, Limits(min_size))
    number = {i: numbering.numbers[start[i] :][: len(found[i].sizes)] for i in found}
    holes = {
        i: find_background(found[i], number[i], c, mask.shape, connectivity)
        for i, c in blocks.items()
    }
    begin, dual = starts(holes), DUAL[connectivity]
    within = [
        touched_within(holes[i], found[i], number[i], c[1].stop - c[1].start, connectivity)
        for i, c in blocks.items()
    ]
    touched = Touched(*(np.concatenate([getattr(t, k) for t in within]) for k in ("low", "high")))
    for i, core in blocks.items():
        reached = reaching_border(holes[i].planes, core, mask.shape, connectivity)
        touched.low[begin[i] + reached] = 0
    joins = []
    for i, j, step in steps:
        back = tuple(-s for s in step)
        local = touching(holes[i].planes, holes[j].planes, step, dual)
        joins.append(local + np.array([begin[i], begin[j]]))
        for here, there, way in ((i, j, step), (j, i, back)):
            met = touching(holes[here].planes, found[there].planes, way, dual)
            met = np.stack([met[:, 0] + begin[here], number[there][met[:, 1]]], 1)
            merge_touched(touched, met[met[:, 1] > 0])
    filling = number_holes(touched, joins).astype(np.uint32)
    before, after = np.zeros((2, *mask.shape), np.uint32)
    for i, core in blocks.items():
        before[core] = render(found[i], number[i], core)
        after[core] = before[core] + render(
            holes[i], filling[begin[i] : begin[i] + len(holes[i].sizes)], core
        )
    return before, after


FIELDS = ("sizes", "firsts")


def starts(components):
    counts = [len(c.sizes) for c in components.values()]
    return dict(zip(components, np.cumsum([0, *counts]).tolist(), strict=False))


sides = st.tuples(*[st.integers(1, 9)] * 3)


@settings(max_examples=60)
@given(
    shape=sides,
    size=st.tuples(*[st.integers(2, 9)] * 3),
    density=st.floats(0.3, 1),
    min_size=st.integers(0, 6),
    connectivity=st.sampled_from(list(DIFFERING)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_cut_fills_what_scipy_fills(shape, size, density, min_size, connectivity, seed):
    mask = np.random.default_rng(seed).random(shape) < density
    before, after = fill_blockwise(mask, size, connectivity, min_size)
    np.testing.assert_array_equal(after, fill_whole(before, connectivity))


def shells(n=20):
    """A hollow ball, one with a ball in it, and one that the border opens."""
    at = np.indices((n, n, 3 * n))
    mask = np.zeros((n, n, 3 * n), bool)
    for k, inner in enumerate((0, 3, 0)):
        centre = n / 2 if k < 2 else 0
        away = np.sqrt((at[0] - centre) ** 2 + (at[1] - n / 2) ** 2 + (at[2] - (k + 0.5) * n) ** 2)
        mask |= ((away > 5) & (away < 8)) | (away < inner)
    return mask


@pytest.mark.parametrize("size", [(7, 6, 11), (20, 20, 60), (3, 20, 20)])
def test_only_closed_holes_of_one_object_are_filled(size):
    mask = shells()
    before, after = fill_blockwise(mask, size, 26)
    np.testing.assert_array_equal(after, fill_whole(before, 26))
    assert after[10, 10, 10] == before[10, 2 + 2, 10] > 0
    assert after[10, 10, 30 - 4] == 0
    assert after[0, 10, 50] == 0


def test_a_dropped_speck_in_a_hole_is_filled_with_it():
    mask = np.ones((7, 7, 7), bool)
    mask[2:5, 2:5, 2:5] = False
    mask[3, 3, 3] = True
    before, after = fill_blockwise(mask, (4, 4, 4), 26, 2)
    assert before[3, 3, 3] == 0
    assert (after == 1).all()
    assert not fill_blockwise(mask, (4, 4, 4), 26)[1][2, 2, 2]
