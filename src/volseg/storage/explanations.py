"""Explanations in a volume: a group of images of one region, a layer each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.errors import VolumeError
from volseg.geometry.grid import intersect
from volseg.storage.attributes import read_attributes, uncorrected
from volseg.storage.volumes import Image, check_name, open_image
from volseg.types import Roi


@dataclass(frozen=True)
class Layer:
    """One layer: an image, uint8, and what its values mean.

    Attributes
    ----------
    name : of the layer.
    image : of the region.
    full : what the value 255 stands for.
    words : what it shows.
    """

    name: str
    image: Image
    full: float
    words: str


@dataclass(frozen=True)
class Explanation:
    """The group ``explanations/<name>`` of a volume.

    Attributes
    ----------
    path : of the group.
    roi : region of the volume, in voxels.
    layers : in the order in which they are shown.
    notes : attributes of the group: the run, the model, the strongest filters.
    """

    path: Path
    roi: Roi
    layers: tuple[Layer, ...]
    notes: Mapping[str, Any]


def explanations_path(volume: Path, name: str) -> Path:
    """Say where a volume keeps the explanation of a result; of a corrected one, that of its own."""
    return volume / "explanations" / check_name(uncorrected(volume, name))


def read_explanation(volume: Path, name: str) -> Explanation | None:
    """Open the explanation of a result, if there is one.

    Raises
    ------
    VolumeError
        If it is damaged, or not of this volume.
    """
    path = explanations_path(volume, name)
    notes = read_attributes(path).get("volseg")
    if notes is None:
        return None
    try:
        z, y, x = (slice(int(start), int(stop)) for start, stop in notes["roi"])
        layers = tuple(
            Layer(key, open_image(path / check_name(key)), float(of["full"]), str(of["words"]))
            for key, of in notes["layers"].items()
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VolumeError(f"the attributes of {path} cannot be used: they are damaged") from error
    _check_place(path, (z, y, x), layers, open_image(volume).levels[0].shape)
    return Explanation(path, (z, y, x), layers, notes)


def _check_place(path: Path, roi: Roi, layers: Sequence[Layer], shape: Sequence[int]) -> None:
    z, y, x = (slice(0, n) for n in shape)
    sizes = tuple(s.stop - s.start for s in roi)
    if intersect(roi, (z, y, x)) != roi or any(
        layer.image.levels[0].shape != sizes for layer in layers
    ):
        raise VolumeError(f"{path} is of another volume, or damaged; remove it and explain again")
