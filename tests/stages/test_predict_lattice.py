"""How tiles are laid over a volume: what is said of voxel sizes that a network does not know."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from volseg.models.registry import find_architecture
from volseg.stages.predict.lattice import EDGE, build_lattices, network_scales
from volseg.storage.volumes import Image
from volseg.storage.weights import load_card


@pytest.mark.parametrize(
    ("model", "size", "thick"),
    [
        ("emnet", (50.0, 4.6, 4.6), True),
        ("emnet", (35.0, 8.0, 8.0), True),
        ("emnet", (30.0, 8.0, 8.0), False),
        ("emnet", (50.0, 50.0, 50.0), False),
        ("emnet", (15.0, 15.0, 15.0), False),
        ("emnet", (5.0, 5.0, 5.0), False),
        ("unet2d", (50.0, 4.6, 4.6), False),
    ],
)
def test_thick_sections_are_said_to_be_for_networks_of_slices(model, size, thick):
    card = load_card(model)
    image = Image(Path("vol.zarr"), (), (), size)
    _, notes = network_scales(image, card)
    assert any("--model unet2d" in note for note in notes) == thick


@pytest.mark.parametrize(("name", "overlap"), [("unet2d", 64), ("unet2d-valid", 68)])
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_what_one_tile_holds_whole_has_less_context(name, overlap, scale):
    form = find_architecture(name).viewed(2)
    card = dataclasses.replace(
        load_card("unet2d"),
        architecture=name,
        tile=find_architecture(name).fit((8, 512, 512)),
        overlap=(0, overlap, overlap),
    )
    for depth in range(1, 300, 7):
        shape = (depth, 500, 200)
        z, y, _ = build_lattices(shape, card, (scale, 1.0, 1.0), "ortho")[2].axes
        held = math.ceil(depth / scale)
        if z.overlap == y.overlap:
            assert held + 2 * EDGE > z.tile - form.stride[0]
            continue
        assert (z.count, z.origin(0)) == (1, -z.overlap)
        assert EDGE <= z.overlap < y.overlap
        # on both sides, and no more than that rounded up
        assert held + 2 * z.overlap <= z.tile < held + 2 * z.overlap + form.multiple[0]
        assert y.count > 1
        assert y.overlap == overlap


def test_networks_of_one_view_have_their_cards_context():
    for name in ("emnet", "unet2d"):
        card = load_card(name)
        axes = build_lattices((20, 40, 500), card, (1.0,) * 3)[0].axes
        assert tuple(a.overlap for a in axes) == card.overlap
