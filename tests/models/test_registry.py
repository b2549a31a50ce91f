"""The registry says which tiles a network takes, and what they need around them."""

from __future__ import annotations

import pytest
import torch

from volseg.errors import ModelError, ParameterError, ShapeError
from volseg.models.registry import ARCHITECTURES, axes_of, check_centerline, find_architecture

VARIED = ("unet2d-depth2-filter5", "unet2d-plain-depth5")


@pytest.mark.parametrize("name", [*sorted(ARCHITECTURES), *VARIED])
@pytest.mark.parametrize("size", [(1, 1, 1), (7, 33, 100), (64, 128, 132)])
def test_the_fitted_tile_is_the_smallest_that_holds_a_size(name, size):
    architecture = find_architecture(name)
    tile = architecture.fit(size)
    assert architecture.fit(tile) == tile
    for n, t, m, offset in zip(size, tile, architecture.multiple, architecture.offset, strict=True):
        assert t % m == offset
        assert n <= t < n + m
    larger = architecture.input_shape(tile)
    assert larger == tuple(t + 2 * m for t, m in zip(tile, architecture.margin, strict=True))


def test_tiles_that_a_network_cannot_give_are_named():
    with pytest.raises(ShapeError, match=r"multiples of \(8, 8, 8\), found .*next larger is .*104"):
        find_architecture("unet3d").input_shape((16, 16, 100))
    with pytest.raises(ShapeError, match=r"\(0, 4, 4\) more than .* next larger is \(5, 20, 36\)"):
        find_architecture("unet2d-valid").input_shape((5, 16, 32))


def test_the_rules_of_a_slice_turn_with_it():
    one = find_architecture("unet2d-valid").viewed(2)
    assert (one.stride, one.margin, one.offset) == ((16, 16, 1), (92, 92, 0), (4, 4, 0))
    assert find_architecture("unet3d").viewed(0) == find_architecture("unet3d")
    with pytest.raises(ParameterError, match="for 2D networks"):
        find_architecture("unet3d").viewed(1)
    with pytest.raises(ParameterError, match="found 'zy'"):
        axes_of("zy")
    assert [axes_of(views) for views in ("xy", "xz", "yz")] == [(0,), (1,), (2,)]
    assert axes_of("ortho") == (0, 1, 2)


def test_strides_divide_what_tiles_are_multiples_of():
    for architecture in ARCHITECTURES.values():
        pairs = zip(architecture.multiple, architecture.stride, strict=True)
        assert all(m % s == 0 for m, s in pairs)


@pytest.mark.parametrize("name", [*sorted(ARCHITECTURES), *VARIED])
def test_the_registry_knows_which_networks_give_centerlines(name):
    with torch.device("meta"):
        network = find_architecture(name).build(8)
    gives = getattr(network, "centerline", None) is not None
    assert find_architecture(name).centerline is gives
    if gives:
        check_centerline(name)
        return
    with pytest.raises(ModelError, match=f"networks of {name} give no centerlines"):
        check_centerline(name)
