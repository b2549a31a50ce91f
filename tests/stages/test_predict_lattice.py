"""How tiles are laid over a volume: what is said of voxel sizes that a network does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from volseg.io.volumes import Image
from volseg.io.weights import load_card
from volseg.models.registry import find_architecture
from volseg.stages.predict_lattice import network_scales


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
    _, notes = network_scales(image, card, find_architecture(card.architecture))
    assert any("--model unet2d" in note for note in notes) == thick
