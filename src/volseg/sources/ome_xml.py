"""OME-XML: the images that it describes, read with care, for it is free text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from volseg.sources.voxel_size import StatedSize, ome_nanometers, positive

AXES = "TCZYX"
MOST_PLANES = 10_000_000
"""Planes that a description may speak of: readers list them one by one."""
COUNTS = ("PlaneCount", "NumPlanes", "IFD", "FirstZ", "FirstC", "FirstT")


@dataclass(frozen=True)
class OmeImage:
    """An image as OME-XML describes it.

    Attributes
    ----------
    name : may be empty.
    order : of the axes of planes, slowest first.
    sizes : along each axis.
    placed : whether it says which page is which plane.
    stated : voxel size.
    """

    name: str
    order: str
    sizes: Mapping[str, int]
    placed: bool
    stated: StatedSize


def read_ome(xml: str) -> list[OmeImage]:
    """Read the images of a file; none where they are not described, or the XML is broken.

    Examples
    --------
    >>> read_ome("<OME><Image><Pixels SizeX=1></Image></OME>")
    []
    """
    # a document type could define entities that expand without bound: OME-XML has none
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        return []
    try:
        root = ET.fromstring(xml)
        return [
            _read_image(image.get("Name", ""), pixels)
            for image in root
            if _tag(image) == "Image"
            for pixels in image
            if _tag(pixels) == "Pixels"
        ]
    except (ET.ParseError, ValueError, KeyError):
        return []


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _read_image(name: str, pixels: ET.Element) -> OmeImage:
    sizes = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in AXES}
    order = pixels.attrib["DimensionOrder"][::-1]
    places = [part for part in pixels if _tag(part) == "TiffData"]
    numbers = [int(part.get(key, "0")) for part in places for key in COUNTS]
    most = max(math.prod(sizes.values()) // (sizes["Y"] * sizes["X"] or 1), *numbers, 0)
    if sorted(order) != sorted(AXES) or min(sizes.values()) < 1 or min(numbers, default=0) < 0:
        raise ValueError(order)
    if most > MOST_PLANES:
        raise ValueError(most)
    axes = (_size(pixels, "Z"), _size(pixels, "Y"), _size(pixels, "X"))
    return OmeImage(name, order[:-2], sizes, bool(places), StatedSize(axes, "its OME-XML"))


def _size(pixels: ET.Element, axis: str) -> float | None:
    """Read a physical size; micrometres where no unit is given."""
    unit = ome_nanometers(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    return positive(pixels.get(f"PhysicalSize{axis}"), unit)
