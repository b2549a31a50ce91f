"""Meshes of a report enclose their objects, in the right place and of the right size."""

from __future__ import annotations

import numpy as np
import pytest

from volseg.stages.report.drawing import outlines
from volseg.stages.report.surfaces import _mesh_all, mesh

pytest.importorskip("skimage")


def volume_of(vertices, faces):
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def test_the_mesh_of_a_ball():
    grid = np.indices((31, 31, 31)) - 15
    vertices, faces = mesh((grid**2).sum(0) <= 10**2)
    assert volume_of(vertices, faces) == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.05)
    assert vertices.mean(0) == pytest.approx([15, 15, 15], abs=0.05)


def test_thin_and_tiny_objects_have_a_mesh_too():
    for inside in (np.ones((1, 1, 1), bool), np.ones((1, 9, 9), bool)):
        vertices, faces = mesh(inside)
        assert volume_of(vertices, faces) > 0


def test_the_largest_objects_come_first_and_triangles_are_limited():
    labels = np.zeros((12, 20, 40), np.uint32)
    labels[2:5, 2:5, 2:5] = 900_000
    labels[2:10, 2:18, 20:38] = 3
    every = _mesh_all(labels, 10_000)
    assert [label for label, _, _ in every] == [3, 900_000]
    assert every[1][1].mean(0) == pytest.approx([3, 3, 3], abs=0.1)
    few = _mesh_all(labels, len(every[0][2]))
    assert [label for label, _, _ in few] == [3]
    assert np.count_nonzero(outlines(labels)) == 27 - 1 + 8 * 16 * 18 - 6 * 14 * 16


def test_a_volume_full_of_one_object_has_no_background():
    assert [label for label, _, _ in _mesh_all(np.full((4, 4, 4), 7, np.uint32), 1000)] == [7]
