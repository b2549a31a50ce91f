"""Zarr images of any axes: channels, times, and x, y and z in any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zarr

from volseg.errors import VolumeError
from volseg.storage.arrays import open_axes
from volseg.storage.attributes import check_notes, read_node
from volseg.storage.ome import AXES, IMAGES, NANOMETERS, Space, damaged, read_levels

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
    """Open an image or an array of any axes; None where there is no image.

    Raises
    ------
    VolumeError
        If it cannot be read.
    """
    found, attributes = read_node(path)
    if found:
        array, _ = open_axes(path)
        return NamedImage(array, _letters(_dimensions(array)))
    ome = attributes.get("ome", attributes)
    multiscales = ome.get("multiscales") if isinstance(ome, dict) else None
    if not multiscales:
        return None
    try:
        return _finest(path, multiscales[0], check_notes(path, attributes.get("volseg", {})))
    except (KeyError, TypeError, IndexError, AttributeError, ArithmeticError, ValueError) as error:
        raise damaged(path, error) from error


def _finest(path: Path, multiscale: Mapping[str, Any], notes: Mapping[str, Any]) -> NamedImage:
    levels, described = read_levels(multiscale)
    first, location = levels[0], (path / levels[0].path).resolve()
    if not location.is_relative_to(path.resolve()):
        raise VolumeError(f"{path} names a level outside itself: {first.path!r}")
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
    return NamedImage(array, _letters(described), space, (sizes[0], sizes[1], sizes[2]), notes)


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
