"""Who evaluates what for whom: every tile once, every voxel completely."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.geometry.grid import Grid, intersect
from volseg.geometry.handover import Handover
from volseg.geometry.lattice import AxisLattice, Lattice, Tile


@st.composite
def handovers(draw):
    shape = draw(st.tuples(*[st.integers(3, 40)] * 3))
    size = draw(st.tuples(*[st.integers(3, 30)] * 3))
    lattices = []
    for _ in range(draw(st.integers(1, 3))):
        axes = []
        for n in shape:
            overlap = draw(st.sampled_from([0, 2, 4]))
            tile = draw(st.sampled_from([8, 12, 16]))
            scale, edge = draw(st.sampled_from([1.0, 0.5, 1.7])), draw(st.integers(0, overlap))
            axes.append(AxisLattice(n, tile, overlap, scale, edge))
        lattices.append(Lattice(tuple(axes)))
    starts = [draw(st.integers(0, n - 1)) for n in shape]
    stops = [draw(st.integers(a + 1, n)) for a, n in zip(starts, shape, strict=True)]
    roi = tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))
    return Handover(Grid(shape, size), tuple(lattices), roi)


def all_tiles(handover):
    """Yield the tiles that have a share in the region."""
    for n, lattice in enumerate(handover.lattices):
        axes = zip(lattice.axes, handover.roi, strict=True)
        for position in itertools.product(*(a.reaching(s.start, s.stop) for a, s in axes)):
            yield Tile(n, position)


@given(handovers())
@settings(max_examples=60, deadline=None)
def test_sources_and_targets_are_two_views_of_the_same_pairs(handover):
    from_targets = {(s, t) for t in handover.targets() for s in handover.sources(t)}
    from_sources = {(s, t) for s in handover.evaluators() for t in handover.targets_of(s)}
    assert from_targets == from_sources
    for in_order in (list(handover.evaluators()), list(handover.targets())):
        assert in_order == sorted(set(in_order))


@given(handovers())
@settings(max_examples=60, deadline=None)
def test_each_tile_belongs_to_exactly_one_block(handover):
    owned = [
        tile
        for source in handover.evaluators()
        for tile in {k for t in handover.targets_of(source) for k in handover.tiles(source, t)}
    ]
    assert len(owned) == len(set(owned))
    assert set(owned) == set(all_tiles(handover)) == set(handover.reaching())
    assert len(owned) == sum(handover.count_tiles())


@given(handovers())
@settings(max_examples=40, deadline=None)
def test_pieces_hold_every_share_of_every_wanted_voxel(handover):
    shape = handover.grid.shape
    direct, pieced = np.zeros(shape, int), np.zeros(shape, int)
    for tile in all_tiles(handover):
        direct[handover.support(tile)] += 1
    for target in handover.targets():
        for source in handover.sources(target):
            box = handover.region(source, target)
            for tile in handover.tiles(source, target):
                shared = intersect(handover.support(tile), box)
                if shared is not None:
                    pieced[shared] += 1
    assert (pieced[handover.roi] == direct[handover.roi]).all()
    pieced[handover.roi] = 0
    assert not pieced.any()
