"""How tiles are laid over a volume: what is said of voxel sizes that a network does not know."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from volseg.geometry.grid import Grid, full_roi
from volseg.geometry.handover import Handover
from volseg.stages.predict.lattice import build_lattices, network_scales
from volseg.storage.cards import load_card
from volseg.storage.volumes import Image


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


@pytest.mark.parametrize("zoom", [0.5, 1.0, 2.0])
def test_a_preview_is_advised_only_where_nobody_chose_the_model(zoom):
    image, card = Image(Path("vol.zarr"), (), (), (50.0, 4.6, 4.6)), load_card("unet2d-general")
    _, said = network_scales(image, card, zoom=zoom, named=False)
    _, told = network_scales(image, card, zoom=zoom)  # as after a preview, which names it
    advice = "; `volseg preview vol.zarr` tries models and scales"
    assert [f"{note}{advice}" for note in told] == [*said]
    taken = "" if zoom == 1 else f", taken as {zoom:g} times as large,"
    assert told == () or told[0].startswith(f"voxels of 50 x 4.6 x 4.6 nm{taken} are resampled to")
    assert len(told) == (zoom < 2)


@pytest.mark.parametrize("model", ["emnet", "unet2d", "unet2d-general", "unet3d"])
@pytest.mark.parametrize("scale", [1.0, 0.7, 2.3])
def test_tiles_cover_a_volume_and_are_no_larger_than_they_have_to_be(model, scale):
    card = load_card(model)
    form = card.form
    for length in range(1, 1500, 37):
        (lattice,) = build_lattices((length, length, 2 * length), card, (1.0, scale, scale))
        assert form.fit(lattice.tile) == lattice.tile
        sides = zip(lattice.axes, card.tile, card.overlap, form.multiple, strict=True)
        for axis, most, least, multiple in sides:
            last = axis.origin(axis.count - 1) + axis.tile
            assert last >= axis.held + axis.edge
            assert axis.tile <= most
            assert axis.count == 1 or axis.overlap >= least
            assert axis.step % form.stride[lattice.axes.index(axis)] == 0 or axis.count == 1
            needed = axis.held + 2 * axis.edge + (axis.count - 1) * least
            assert axis.tile < needed / axis.count + multiple or axis.tile == 2 * axis.overlap


@pytest.mark.parametrize(
    ("model", "views"), [("emnet", "xy"), ("unet2d", "xy"), ("unet2d", "ortho")]
)
def test_no_volume_takes_much_more_than_its_voxels(model, views):
    card, rng = load_card(model), random.Random(0)
    shapes = [(512, 512, 512)] + [tuple(rng.randint(512, 4096) for _ in "zyx") for _ in range(50)]
    assert max(work(shape, card, views) for shape in shapes) <= 1.6


def test_the_bundled_crop_takes_little():
    assert work((32, 384, 384), load_card("emnet"), "xy") <= 1.5
    assert work((32, 384, 384), load_card("unet2d"), "xy") <= 1.5


def work(shape, card, views):
    lattices = build_lattices(shape, card, (1.0,) * 3, views)
    return Handover(Grid(shape, shape), lattices, full_roi(shape)).count_work()
