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
class Place:
    """Planes of an image that follow each other in a file.

    Attributes
    ----------
    file, identity : of a set of files; None if it is the one that is being read.
    page : the first, from 0.
    plane : the first, in the order of the image.
    count : None for all of the file's pages.
    """

    file: str | None
    identity: str | None
    page: int
    plane: int
    count: int | None


@dataclass(frozen=True)
class OmeImage:
    """An image as OME-XML describes it.

    Attributes
    ----------
    name : may be empty.
    order : of the axes of planes, slowest first.
    sizes : along each axis.
    places : what it says of which page is which plane.
    samples : of a pixel.
    stated : voxel size.
    """

    name: str
    order: str
    sizes: Mapping[str, int]
    places: tuple[Place, ...]
    samples: int
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


def name_master(xml: str) -> str | None:
    """Name the file that describes a set, of which others refer to it; None if this is no other.

    Examples
    --------
    >>> name_master('<OME><BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:1"/></OME>')
    'a.companion.ome'
    """
    if "BinaryOnly" not in xml or "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        return None
    try:
        parts = [part for part in ET.fromstring(xml) if _tag(part) == "BinaryOnly"]
    except ET.ParseError:
        return None
    return parts[0].get("MetadataFile") if parts else None


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _read_image(name: str, pixels: ET.Element) -> OmeImage:
    sizes = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in AXES}
    order = pixels.attrib["DimensionOrder"][::-1]
    parts = [part for part in pixels if _tag(part) == "TiffData"]
    numbers = [int(part.get(key, "0")) for part in parts for key in COUNTS]
    channels = [part for part in pixels if _tag(part) == "Channel"]
    samples = int(channels[0].get("SamplesPerPixel", "1")) if channels else 1
    if samples < 1 or sizes["C"] % samples:
        raise ValueError(samples)
    sizes["C"] //= samples
    most = max(math.prod(sizes.values()) // (sizes["Y"] * sizes["X"] or 1), *numbers, 0)
    if sorted(order) != sorted(AXES) or min(sizes.values()) < 1 or min(numbers, default=0) < 0:
        raise ValueError(order)
    if most > MOST_PLANES:
        raise ValueError(most)
    axes = (_size(pixels, "Z"), _size(pixels, "Y"), _size(pixels, "X"))
    places = tuple(_read_place(part, order[:-2], sizes) for part in parts)
    stated = StatedSize(axes, "its OME-XML")
    return OmeImage(name, order[:-2], sizes, places, samples, stated)


def _read_place(part: ET.Element, order: str, sizes: Mapping[str, int]) -> Place:
    plane = 0
    for axis in order:
        plane = plane * sizes[axis] + int(part.get(f"First{axis}", "0"))
    count = part.get("PlaneCount", part.get("NumPlanes", "1" if "IFD" in part.attrib else None))
    named = next((child for child in part if _tag(child) == "UUID"), None)
    file = None if named is None else named.get("FileName")
    identity = None if named is None else (named.text or "").strip()
    return Place(
        file, identity, int(part.get("IFD", "0")), plane, None if count is None else int(count)
    )


def _size(pixels: ET.Element, axis: str) -> float | None:
    """Read a physical size; micrometres where no unit is given."""
    unit = ome_nanometers(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    return positive(pixels.get(f"PhysicalSize{axis}"), unit)
