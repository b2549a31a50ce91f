"""What an import is told, and what it is about to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from volseg.types import VoxelSize, Zyx


@dataclass(frozen=True)
class ImportOptions:
    """What overrides a package, and what of it is trusted.

    Attributes
    ----------
    voxel_size : nm, (z, y, x); None takes the package's.
    tile, overlap : network voxels, (z, y, x); None takes the package's.
    trust_torchscript : whether a program in the package may be run.
    channel : of a program's output, counted from 0.
    overwrite : replace a model that is already there.
    """

    voxel_size: VoxelSize | None = None
    tile: Zyx | None = None
    overlap: Zyx | None = None
    trust_torchscript: bool = False
    channel: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Draft:
    """What is going to be written: tensors, and all of a card but the hash."""

    tensors: Mapping[str, Tensor]
    card: Mapping[str, Any]
    notes: tuple[str, ...] = ()
