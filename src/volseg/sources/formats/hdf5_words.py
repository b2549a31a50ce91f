"""Words of HDF5 files on their datasets: axes, lengths, and the size of voxels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from volseg.sources.voxel_size import AxisSizes, StatedSize, positive, unit_nanometers
from volseg.types import Zyx

MICROMETER = 1e3
"""nm."""
VIEWER = re.compile(r"/t\d{5}/s(\d{2,})/(\d+)/cells")
"""Names of BigDataViewer, which stores uint16 as int16: a setup, and a level."""
LARGEST_XML = 1 << 26
"""Bytes of a description."""


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
    elif found := VIEWER.fullmatch(dataset.name):
        file = Path(dataset.file.filename).with_suffix(".xml")
        origin, axes = f"{file.name} of BigDataViewer", _size_in_xml(file, int(found[1]))
        factors = dataset.file.get(f"s{found[1]}/resolutions")
        x, y, z = (1, 1, 1) if factors is None else factors[int(found[2])]
        sizes = zip(axes, (z, y, x), strict=True)
        z, y, x = (size and positive(size, float(factor)) for size, factor in sizes)
        axes = z, y, x
    return (StatedSize(axes, origin),) if any(axes) else ()


def _size_in_xml(file: Path, setup: int) -> AxisSizes:
    """Read the size of voxels in the XML file beside one of BigDataViewer, if there is one."""
    if not file.is_file() or file.stat().st_size > LARGEST_XML:
        return None, None, None
    text = file.read_text(errors="replace")
    # a document type could define entities that expand without bound
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return None, None, None
    try:
        for described in ET.fromstring(text).iter("ViewSetup"):
            if described.findtext("id", "").strip() == str(setup):
                unit = unit_nanometers(described.findtext("voxelSize/unit", ""))
                x, y, z = described.findtext("voxelSize/size", "").split()
                return positive(z, unit), positive(y, unit), positive(x, unit)
    except (ET.ParseError, ValueError):
        pass
    return None, None, None
