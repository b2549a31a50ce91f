"""Words of HDF5 files on their datasets: axes, lengths, and the size of voxels."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from volseg.sources.voxel_size import AxisSizes, StatedSize, positive, unit_nanometers
from volseg.types import Zyx

MICROMETER = 1e3
"""nm."""


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


def stated_axes(dataset: Any) -> str | None:
    """Read names of axes, as vigra and ilastik or HDF5 itself keep them."""
    try:
        tags = json.loads(_text(dataset.attrs["axistags"]))["axes"]
        return "".join(str(tag["key"]) for tag in tags)
    except (KeyError, TypeError, ValueError):
        labels = [str(d.label) for d in dataset.dims]
    return "".join(labels) if all(len(label) == 1 for label in labels) else None


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
