"""Points that somebody set in Neuroglancer, in a state that was saved or copied as JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from volseg.errors import ParameterError, SourceError, own_words
from volseg.sources.points import WORDS, Point
from volseg.storage.stores import parse_json
from volseg.types import VoxelSize

Point3 = tuple[float, float, float]
OME = re.compile(r"(?:^zarr[23]?://|.*\|zarr[23]?:).*")
"""Addresses of volumes that Neuroglancer reads itself, with the place that their metadata state."""
LEVEL = re.compile(r".*/[0-9]+/?(?:\|.*)?")
"""Addresses of single arrays, of which it knows no place."""
NM = {"m": 1e9, "": 0.0}
"""Nanometres of a unit; of none, lengths are voxels."""


def read_annotations(
    path: Path, yes: bool | None, voxel_size: VoxelSize | None, corner: Point3 = (-0.5, -0.5, -0.5)
) -> list[Point]:
    """Read the points of all annotation layers.

    The description of a point says yes or no; or the name of its layer; or else ``yes`` does.
    `volseg view` counts voxels from the corner of the first one. Where Neuroglancer reads an
    OME-Zarr image itself, the middle of that lies where the image says.

    Parameters
    ----------
    path : of a state, as Neuroglancer's button {} shows it
    yes : what points mean that do not say so
    voxel_size : nm (z, y, x) of the volume
    corner : of its first voxel, (z, y, x) in voxels, where it says where it lies
    """
    try:
        state = parse_json(path.read_text(encoding="utf-8"))
        first = corner if _reads_itself(state) else (0.0, 0.0, 0.0)
        points = [*_points(path, state, yes, voxel_size, first)]
    except (OSError, UnicodeDecodeError) as error:
        why = own_words(error, "it is no text in UTF-8")
        raise SourceError(f"cannot read points of {path}: {why}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise SourceError(f"{path} is no state of Neuroglancer with points") from error
    if not points:
        raise SourceError(f"{path} holds no points in layers of annotations")
    return points


def _reads_itself(state: Mapping[str, Any]) -> bool:
    """Tell whether Neuroglancer reads an OME-Zarr image that is shown by itself."""
    for layer in state["layers"]:
        given = layer.get("source") or ()
        for source in given if isinstance(given, list) else [given]:
            url = str(source.get("url", "") if isinstance(source, Mapping) else source)
            if OME.fullmatch(url) and not LEVEL.fullmatch(url):
                return True
    return False


def _points(
    path: Path, state: Mapping[str, Any], yes: bool | None, size: VoxelSize | None, corner: Point3
) -> Iterator[Point]:
    for layer in state["layers"]:
        if layer.get("type") != "annotation":
            continue
        source = layer.get("source", {})
        transform = source.get("transform", {}) if isinstance(source, Mapping) else {}
        axes = transform.get("outputDimensions", state["dimensions"])
        for k, found in enumerate(layer.get("annotations", ()), 1):
            if found["type"] != "point":
                continue
            name = f"{path.name}, layer {layer['name']}, point {k}"
            words = (found.get("description") or "", layer["name"])
            said = next((WORDS[w] for t in words if (w := t.strip().lower()) in WORDS), yes)
            if said is None:
                raise ParameterError(
                    f"{name} says neither yes nor no: name the layer so, or give "
                    f"--points yes={path} or --points no={path}"
                )
            at = (_length(found["point"], axes, k, size, name) - corner[k] for k in range(3))
            # a voxel begins at a whole number; the rest undoes rounding of the scale
            z, y, x = (math.floor(length + 1e-6) for length in at)
            yield Point((z, y, x), said, name)


def _length(
    point: list[float],
    axes: Mapping[str, tuple[float, str]],
    axis: int,
    size: VoxelSize | None,
    name: str,
) -> float:
    """Find a coordinate in voxels."""
    at = [*axes].index("zyx"[axis])
    scale, unit = axes["zyx"[axis]]
    if NM[unit] and size is None:
        raise ParameterError(
            f"{name} is in nm and the voxel size is unknown; convert again with --voxel-size"
        )
    side = size[axis] if NM[unit] and size is not None else 1.0
    length = float(point[at]) * float(scale) * (NM[unit] or 1.0)
    return length / side
