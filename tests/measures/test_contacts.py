"""Contacts: the same by any blocks as by looking at every face of the volume."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from volseg.errors import ShapeError
from volseg.measures.contacts import contact_table, count_contacts, merge_contacts

SHAPE = (6, 9, 10)


def objects(seed, count):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(SHAPE) < 0.4, rng.integers(1, count, SHAPE), 0)


def face_by_face(ours, theirs):
    found = {}
    for voxel in np.ndindex(SHAPE):
        if ours[voxel] and theirs[voxel]:
            found.setdefault((ours[voxel], theirs[voxel]), [0] * 4)[3] += 1
        for axis, step in itertools.product(range(3), (-1, 1)):
            near = list(voxel)
            near[axis] += step
            near = tuple(near)
            if not 0 <= near[axis] < SHAPE[axis] or ours[near] == ours[voxel]:
                continue
            if ours[voxel] and theirs[near]:
                found.setdefault((ours[voxel], theirs[near]), [0] * 4)[axis] += 1
    return [[*pair, *counts] for pair, counts in sorted(found.items())]


@pytest.mark.parametrize("block", [(6, 9, 10), (2, 4, 5), (1, 1, 1), (4, 9, 3)])
def test_contacts_add_up_over_any_blocks(block):
    ours, theirs = objects(1, 4), objects(2, 3)
    parts = []
    for corner in itertools.product(*(range(0, n, b) for n, b in zip(SHAPE, block, strict=True))):
        ends = [min(c + b, n) for c, b, n in zip(corner, block, SHAPE, strict=True)]
        box = tuple(slice(c, min(e + 1, n)) for c, e, n in zip(corner, ends, SHAPE, strict=True))
        core = tuple(e - c for c, e in zip(corner, ends, strict=True))
        parts.append(count_contacts(ours[box], theirs[box], core))
    rows = merge_contacts(parts)
    assert rows.tolist() == face_by_face(ours, theirs)
    columns, units = contact_table(rows, (10.0, 2.0, 3.0))
    z, y, x = rows[0, 2:5]
    assert columns["area_nm2"][0] == z * 6 + y * 30 + x * 20
    assert units["area_nm2"] == "nm2"
    assert "area_nm2" not in contact_table(rows, None)[0]


def test_results_of_other_shapes_do_not_touch():
    with pytest.raises(ShapeError, match="both results must match"):
        count_contacts(np.zeros((1, 2, 3), int), np.zeros((1, 2, 2), int), (1, 2, 2))
    assert merge_contacts([]).shape == (0, 6)
