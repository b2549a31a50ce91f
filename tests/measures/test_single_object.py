"""Meshes and centerlines of single objects."""

from __future__ import annotations

import math

import numpy as np
import pytest

from volseg.measures.single_object import centerline, mesh_area


def test_the_mesh_of_a_ball_reads_a_little_high():
    points = np.stack(np.meshgrid(*[np.arange(-14, 15)] * 3, indexing="ij"), axis=-1)
    ball = (points**2).sum(axis=-1) < 12.3**2
    ratio = mesh_area(ball, (1.0, 1.0, 1.0)) / (4 * math.pi * 12.3**2)
    assert 1.06 < ratio < 1.11


def test_a_mesh_is_closed_at_the_border_and_has_units():
    flat = np.ones((1, 40, 40), bool)
    assert mesh_area(flat, (1.0, 1.0, 1.0)) == pytest.approx(2 * 40 * 40, rel=0.05)
    one, ten = mesh_area(flat, (2.0, 1.0, 1.0)), mesh_area(flat, (20.0, 10.0, 10.0))
    assert ten == pytest.approx(100 * one, rel=1e-4)


def test_a_rod_is_as_long_as_its_centerline():
    rod = np.zeros((9, 9, 60), bool)
    rod[2:7, 2:7, 5:55] = True
    length, branches = centerline(rod, (50.0, 5.0, 4.0))
    assert 44 * 4 <= length <= 50 * 4
    assert branches == 1


def test_forks_are_counted():
    fork = np.zeros((3, 30, 30), bool)
    fork[1, 15, :16] = True
    k = np.arange(14)
    fork[1, 15 + k, 15 + k] = fork[1, 15 - k, 15 + k] = True
    length, branches = centerline(fork, (1.0, 1.0, 1.0))
    assert branches == 3
    assert length == pytest.approx(15 + 2 * 13 * math.sqrt(2), abs=1.5)


def test_one_voxel_has_no_length():
    assert centerline(np.ones((1, 1, 1), bool), (1.0, 1.0, 1.0)) == (0.0, 0)
