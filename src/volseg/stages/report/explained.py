"""Draw an explanation: one plane of its region, each layer as heat over raw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import roi_shape, shift
from volseg.stages.report.drawing import ORANGE, Picture, grey, outlines, window_of
from volseg.stages.report.planes import Frame, frame_of, read_image
from volseg.storage.images import Explanation
from volseg.storage.stores import is_zarr
from volseg.storage.volumes import Image, labels_path, open_image, probabilities_path
from volseg.types import FULL_PROBABILITY

SIDE = 480
"""Most pixels of a panel."""
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Colours from 0 to 1, of which each is lighter than the one before, so that all eyes rank them."""
PALEST, STRONGEST = 0.15, 0.85
"""Opacity of the heat where a layer is 0, and where it is highest."""


@dataclass(frozen=True)
class Panel:
    """One picture: raw with the objects, or a layer over raw."""

    name: str
    words: str
    pixels: Picture


@dataclass(frozen=True)
class Sheet:
    """The panels of an explanation, and which plane they show.

    Attributes
    ----------
    axis, position : across which axis, and where, in voxels.
    extent : size of the plane (down, across), in µm, or in voxels where ``unit`` says so.
    network : the name of what was explained, and whether it made the probabilities.
    """

    axis: int
    position: int
    extent: tuple[float, float]
    unit: str
    panels: tuple[Panel, ...]
    network: str

    @property
    def title(self) -> str:
        """Name the plane."""
        return f"{'zyx'[self.axis]} = {self.position}"

    @property
    def size(self) -> str:
        """Describe how large it is."""
        return f"{self.extent[0]:.3g} x {self.extent[1]:.3g} {self.unit}"

    @property
    def aspect(self) -> float:
        """Width over height, in space."""
        return self.extent[1] / self.extent[0]


def draw_panels(image: Image, name: str, explanation: Explanation, side: int = SIDE) -> Sheet:
    """Draw the plane through the middle of a region, across its shortest side."""
    roi, size = explanation.roi, image.voxel_size
    lengths = [n * v for n, v in zip(roi_shape(roi), size or (1, 1, 1), strict=True)]
    axis = int(np.argmin(lengths))
    frame = frame_of(image, roi, side, (1, 1, 1))
    raw = _plane(image, frame, axis)
    shades = np.repeat(grey(raw, window_of([raw]))[..., None], 3, axis=2)
    first, path = shades.copy(), labels_path(explanation.path.parents[1], name)
    if is_zarr(path):
        first[outlines(_plane(open_image(path), frame, axis))] = ORANGE
    panels = [Panel("raw", "raw, objects outlined", first)]
    own = _within(frame)
    for layer in explanation.layers:
        heat = tint(shades, _plane(layer.image, own, axis))
        panels.append(Panel(layer.name, layer.words, heat))
    down, across = (lengths[a] for a in range(3) if a != axis)
    scale = 1 if size is None else 1000
    unit = "voxels" if size is None else "µm"
    extent = down / scale, across / scale
    network = _name_network(explanation, name)
    return Sheet(axis, int(frame.picks[axis][0]), extent, unit, tuple(panels), network)


def _name_network(explanation: Explanation, name: str) -> str:
    """Name the network that was explained, and say if another one made the probabilities."""
    explained = explanation.notes["model"]
    path = probabilities_path(explanation.path.parents[1], name)
    made = open_image(path).attributes.get("model") if is_zarr(path) else None
    own = isinstance(made, dict) and made.get("sha256") == explained.get("sha256")
    return f"{explained['name']}{'' if own else ', another network than that of the result,'}"


def tint(shades: Picture, values: Picture) -> Picture:
    """Lay heat over grey: the higher a value, the lighter and the more opaque.

    Examples
    --------
    >>> tint(np.full((1, 2, 3), 100, np.uint8), np.array([[0, 255]], np.uint8)).tolist()
    [[[85, 85, 85], [229, 231, 154]]]
    """
    share = values / FULL_PROBABILITY
    stops = np.linspace(0, 1, len(HEAT))
    heat = np.stack([np.interp(share, stops, band) for band in zip(*HEAT, strict=True)], axis=2)
    opacity = (PALEST + (STRONGEST - PALEST) * share)[..., None]
    mixed: Picture = (shades * (1 - opacity) + heat * opacity).astype(np.uint8)
    return mixed


def _plane(image: Image, frame: Frame, axis: int) -> NDArray[Any]:
    plane: NDArray[Any] = read_image(image, frame)[axis][0]
    return plane


def _within(frame: Frame) -> Frame:
    """Express a frame relative to its region."""
    corner = [s.start for s in frame.region]
    pixels, picks = (
        tuple(values - start for values, start in zip(of, corner, strict=True))
        for of in (frame.pixels, frame.picks)
    )
    return replace(frame, region=shift(frame.region, corner), pixels=pixels, picks=picks)
