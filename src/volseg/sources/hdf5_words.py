"""Words of HDF5 files on their datasets: axes, lengths, and the size of voxels."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from volseg.errors import SourceError
from volseg.sources.voxel_size import AxisSizes, StatedSize, positive, unit_nanometers
from volseg.types import Zyx

MICROMETER = 1e3
"""nm."""
ROWS = 64
"""Rows of voxels that are read at a time, or more."""


def count_voxels(dataset: Any) -> tuple[int, ...]:
    """Count voxels along each axis; Imaris adds more, up to whole chunks."""
    shape, stated = tuple(dataset.shape), dataset.parent.attrs
    if len(shape) == 3 and all(f"ImageSize{axis}" in stated for axis in "ZYX"):
        known = (int(_text(stated[f"ImageSize{axis}"])) for axis in "ZYX")
        return tuple(min(max(a, 1), n) for a, n in zip(known, shape, strict=True))
    return shape


def _text(value: Any) -> str:
    """Read an attribute of text, which Imaris writes letter by letter."""
    if isinstance(value, np.ndarray):
        value = b"".join(value.astype("S1").tolist())
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def name_axes(where: str, dataset: Any, given: str | None) -> str:
    """Name the axes: as the user or the file does, else z, y, x beside axes of length one.

    Raises
    ------
    SourceError
        If nobody says which are z, y and x.
    """
    shape = tuple(dataset.shape)
    named = given or _stated_axes(dataset)
    if named is None:
        before = next((k for k, n in enumerate(shape[:-3]) if n > 1), len(shape) - 3)
        after = len(shape) - 3 - before
        if before < 0 or any(n > 1 for n in shape[len(shape) - after :]):
            raise SourceError(
                f"{where} has the shape {shape}, and does not say which axes are z, y and x: say "
                f"so with --axes, such as CZYX"
            )
        return f"{'1' * before}ZYX{'1' * after}"
    letters = named.upper()
    known = len(letters) == len(shape) and len(set(letters)) == len(letters)
    if not known or not set("ZYX") <= set(letters) <= set("ZYXCT"):
        raise SourceError(
            f"{where} has the shape {shape}, and axes {named}: name each by one of Z, Y, X, C and "
            f"T with --axes, slowest first"
        )
    return letters


def _stated_axes(dataset: Any) -> str | None:
    """Read names of axes, as vigra and ilastik or HDF5 itself keep them."""
    try:
        tags = json.loads(_text(dataset.attrs["axistags"]))["axes"]
        return "".join(str(tag["key"]) for tag in tags)
    except (KeyError, TypeError, ValueError):
        labels = [str(d.label) for d in dataset.dims]
    return "".join(labels) if all(len(label) == 1 for label in labels) else None


def choose_boxes(axes: str, chunks: tuple[int, ...] | None, shape: Zyx) -> Zyx:
    """Choose boxes to read: whole chunks, not too narrow, or pages of what has no chunks."""
    _, y, x = shape
    if chunks is None:
        # slices along a fast axis would be gathered voxel by voxel
        return (1, y, x) if axes.index("Z") < min(axes.index("Y"), axes.index("X")) else shape
    sizes = dict(zip(axes, chunks, strict=True))
    return sizes["Z"], sizes["Y"] * -(-ROWS // sizes["Y"]), sizes["X"]


def state_size(dataset: Any, shape: Zyx) -> tuple[StatedSize, ...]:
    """Read the size of voxels, of ImageJ's plugin and ilastik, or of Imaris."""
    axes: AxisSizes = (None, None, None)
    origin, given = "its element_size_um", dataset.attrs.get("element_size_um")
    extent = dataset.file.get("DataSetInfo/Image")
    if np.shape(given) == (3,):
        z, y, x = (positive(v, MICROMETER) for v in given)
        axes = z, y, x
    elif extent is not None and "ImageSizeX" in dataset.parent.attrs:
        origin, stated = "its DataSetInfo", extent.attrs
        unit = unit_nanometers(_text(stated.get("Unit", "")))
        # Imaris counts axes from x
        ends = [(_text(stated[f"ExtMin{k}"]), _text(stated[f"ExtMax{k}"])) for k in (2, 1, 0)]
        spans = [(float(last) - float(first)) for first, last in ends]
        z, y, x = (positive(s / n, unit) for s, n in zip(spans, shape, strict=True))
        axes = z, y, x
    return (StatedSize(axes, origin),) if any(axes) else ()
