"""Initial weights of a network: random, or trained before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from volseg.errors import ParameterError
from volseg.stages.train.data import SAME_SIZE
from volseg.storage.weights import Card, load_card, load_weights
from volseg.training.config import TrainConfig
from volseg.types import VoxelSize

FLAGS = {
    "architecture": "--architecture",
    "width": "--width",
    "preprocessing": "--gamma, --equalise and [recipe.preprocessing]",
}
"""Settings that weights decide, and where a user may have set them differently."""


@dataclass(frozen=True)
class Start:
    """Initial weights of a run, and their origin.

    Attributes
    ----------
    card : of the weights; None for random weights.
    tensors : the weights.
    """

    card: Card | None = None
    tensors: Mapping[str, Tensor] | None = None

    @property
    def origin(self) -> dict[str, Any] | None:
        """Return the record of the weights' origin."""
        if self.card is None:
            return None
        return {
            "name": self.card.name,
            "sha256": self.card.sha256,
            "voxel_size": list(self.card.voxel_size),
            "preprocessing": asdict(self.card.preprocessing),
        }

    def compare(self, size: VoxelSize) -> tuple[str, ...]:
        """List notes for the user on starting the weights on voxels of this size, in nm."""
        if self.card is None:
            return ()
        theirs = self.card.voxel_size
        if all(abs(a / b - 1) <= SAME_SIZE for a, b in zip(size, theirs, strict=True)):
            return ()
        note = (
            f"{self.card.name} was trained on voxels of {theirs} nm, the data have {size} nm: the "
            f"weights have to learn the difference, and will be for {size} nm"
        )
        return (note,)


def find_start(model: str | None, config: TrainConfig) -> Start:
    """Load the weights to start from, if any.

    Raises
    ------
    ModelError
        If they cannot be read.
    ParameterError
        If they are of another architecture, width or preprocessing than the recipe's.
    """
    if model is None:
        return Start()
    card = load_card(model)
    for name, flags in FLAGS.items():
        found, wanted = getattr(card, name), getattr(config, name)
        if found != wanted:
            raise ParameterError(
                f"{card.name} has the {name} {found}, the recipe says {wanted}; leave {flags} "
                f"out to take the weights', or start from others"
            )
    return Start(card, load_weights(model, card))
