"""The architectures by name, and what inference must know about each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from volseg.errors import ModelError
from volseg.models import emnet
from volseg.types import Zyx


@dataclass(frozen=True)
class Architecture:
    """How to build a network and how it may be tiled.

    Attributes
    ----------
    build : width -> network
    stride : tile origins are multiples of it.
    multiple : tile sizes are multiples of it.
    """

    build: Callable[[int], emnet.EMNet]
    stride: Zyx
    multiple: Zyx


ARCHITECTURES: dict[str, Architecture] = {
    "emnet": Architecture(emnet.EMNet, emnet.STRIDE, emnet.MULTIPLE),
    "emnet-paper": Architecture(
        lambda width: emnet.EMNet(width, norm="instance", align_corners=True),
        emnet.STRIDE,
        emnet.MULTIPLE,
    ),
    "emnet-single": Architecture(
        lambda width: emnet.EMNet(width, centerline=False), emnet.STRIDE, emnet.MULTIPLE
    ),
}


def find_architecture(name: str) -> Architecture:
    """Look an architecture up.

    Raises
    ------
    ModelError
        If there is none of that name.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ModelError(f"no architecture is called {name!r}; there are: {known}") from None


def count_parameters(network: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
