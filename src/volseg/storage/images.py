"""Images that are not one volume: of any axes, unrelated images as slices, explanations.

The first have channels, times, and x, y and z in any order; the second are what ``volseg convert
--images`` noted; the last are a group of images of one region, a layer each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import zarr
from numpy.typing import NDArray

from volseg.errors import VolumeError
from volseg.geometry.grid import intersect
from volseg.storage.arrays import open_axes
from volseg.storage.attributes import check_notes, read_attributes, read_node, section, uncorrected
from volseg.storage.ome import (
    AXES,
    IMAGES,
    NANOMETERS,
    Space,
    multiscales_of,
    read_levels,
    telling_damage,
)
from volseg.storage.volumes import Image, check_name, open_image
from volseg.types import Roi, zyx

KINDS = {"channel": "C", "time": "T"}
"""Letters of axes that are none of space."""


@dataclass(frozen=True)
class NamedImage:
    """The finest level of an image, or an array.

    Attributes
    ----------
    array : with all of its axes.
    axes : their letters, slowest first; None if they have no names.
    space : along (z, y, x), as far as it is stated.
    sizes : nm along (z, y, x); None where it is unknown.
    attributes : what volseg noted, as of `volseg.storage.volumes.Image`.
    """

    array: zarr.Array[Any]
    axes: str | None
    space: Space = field(default_factory=Space)
    sizes: tuple[float | None, float | None, float | None] = (None, None, None)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Tell whether it is one volume, of the axes z, y and x."""
        named = self.axes is None or self.axes.endswith("ZYX")
        return named and len(self.array.shape) > 2 and set(self.array.shape[:-3]) <= {1}


def open_named(path: Path) -> NamedImage | None:
    """Open an image or an array of any axes; None where there is no image."""
    found, attributes = read_node(path)
    if found:
        array, _ = open_axes(path)
        return NamedImage(array, _letters(_dimensions(array)))
    multiscales = multiscales_of(attributes)
    if multiscales is None:
        return None
    with telling_damage(path):
        return _finest(path, multiscales[0], check_notes(path, attributes.get("volseg", {})))


def _finest(path: Path, multiscale: Mapping[str, Any], notes: Mapping[str, Any]) -> NamedImage:
    levels, described = read_levels(multiscale)
    first, location = levels[0], levels[0].within(path)
    array, _ = open_axes(location)
    if described and len(described) != len(array.shape):
        raise VolumeError(
            f"{path} names {len(described)} axes, but {location} has {len(array.shape)}"
        )
    units = {str(a["name"]): str(a.get("unit") or "") for a in described}
    z, y, x = (units.get(axis, "") if first.stated else "" for axis in AXES)
    known = [NANOMETERS.get(unit.lower()) for unit in (z, y, x)]
    sizes = [v and s * v for s, v in zip(first.scale, known, strict=True)]
    unit = (z, y, x) if z and y and x else None
    space = Space(first.scale, first.origin, unit, planar=bool(notes.get(IMAGES)))
    return NamedImage(array, _letters(described), space, zyx(sizes), notes)


def _dimensions(array: zarr.Array[Any]) -> list[dict[str, Any]]:
    """List the names of an array's dimensions, of Zarr v3 or as xarray writes them in v2."""
    noted: Any = array.metadata.attributes.get("_ARRAY_DIMENSIONS")
    names = getattr(array.metadata, "dimension_names", None) or noted
    return [{"name": str(name)} for name in names] if isinstance(names, tuple | list) else []


def _letters(axes: Sequence[Mapping[str, Any]]) -> str | None:
    """Write axes as letters, ? for what is not z, y, x, a channel or a time; None if all are ?."""
    known = [KINDS.get(str(a.get("type")), str(a["name"]).upper()) for a in axes]
    known = [{"CHANNEL": "C", "TIME": "T"}.get(name, name) for name in known]
    letters = "".join(name if name in tuple("ZYXCT") else "?" for name in known)
    return letters if letters.strip("?") else None


def as_images(image: Image, *, asked: bool = True) -> Image:
    """Take slices as unrelated images; levels that average several of them are left out."""
    if not asked or image.space.planar:
        return image
    kept = [k for k, factor in enumerate(image.factors) if factor[0] == 1]
    return replace(
        image,
        levels=tuple(image.levels[k] for k in kept),
        factors=tuple(image.factors[k] for k in kept),
        space=replace(image.space, planar=True),
    )


def images_in(image: Image) -> tuple[tuple[int, int], ...] | None:
    """List the (y, x) of the unrelated images that slices are; None of a volume."""
    depth, height, width = image.levels[0].shape
    return (sizes_of(image) or ((height, width),) * depth) if image.space.planar else None


def names_of(image: Image | NamedImage) -> tuple[str, ...]:
    """List the names of the unrelated images that slices are; empty where they have none."""
    return tuple(map(str, section(image.attributes, IMAGES).get("names", ())))


def sizes_of(image: Image | NamedImage) -> tuple[tuple[int, int], ...]:
    """List the (y, x) that each unrelated image has of its slice; empty where all have it whole."""
    return tuple((int(y), int(x)) for y, x in section(image.attributes, IMAGES).get("sizes", ()))


def clear_padding(box: NDArray[Any], roi: Roi, sizes: Sequence[tuple[int, int]]) -> None:
    """Set to 0 what lies beyond the (y, x) of its image, in a box that was read.

    Examples
    --------
    >>> import numpy as np
    >>> box = np.ones((2, 1, 3), int)
    >>> clear_padding(box, (slice(1, 3), slice(0, 1), slice(2, 5)), [(1, 5), (1, 4), (0, 5)])
    >>> box.tolist()
    [[[1, 1, 0]], [[0, 0, 0]]]
    """
    z, y, x = roi
    # of a volume there are no sizes
    for plane, (height, width) in zip(box, sizes[z], strict=False):
        plane[max(height - y.start, 0) :] = 0
        plane[:, max(width - x.start, 0) :] = 0


@dataclass(frozen=True)
class Layer:
    """One layer: an image, uint8, and what its values mean.

    Attributes
    ----------
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
    """Open the explanation of a result, if there is one."""
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
