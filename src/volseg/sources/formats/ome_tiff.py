"""OME-TIFF: the images that OME-XML describes, and those whose planes lie in several files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

import tifffile

from volseg.errors import SourceError
from volseg.sources.formats.markup import parse_xml
from volseg.sources.formats.tiff_images import TiffImage, content, miscounted, unequal
from volseg.sources.formats.tiff_pages import Plane, keep_decoders, scan_pages
from volseg.sources.voxel_size import StatedSize, ome_nanometers, positive

LARGEST_XML = 1 << 28
"""Bytes of a file of OME-XML."""
AXES = "TCZYX"
MOST_PLANES = 10_000_000
"""Planes that a description may speak of: readers list them one by one."""
COUNTS = ("PlaneCount", "NumPlanes", "IFD", "FirstZ", "FirstC", "FirstT")


def find_description(path: Path, xml: str) -> str:
    """Find the description of a set of files, which may stand in another of them."""
    master = name_master(xml)
    if master is None:
        return xml
    file = _beside(path, master)
    if not file.name.endswith(".ome") and file.suffix != ".xml":
        with tifffile.TiffFile(file) as tif:
            return tif.ome_metadata or ""
    if file.stat().st_size > LARGEST_XML:
        raise SourceError(f"{file} has more than {LARGEST_XML} bytes: this is no OME-XML")
    return file.read_text(errors="replace")


def _beside(path: Path, name: str) -> Path:
    """Find a file of the same set."""
    file = path.parent / Path(name).name
    if not file.is_file():
        raise SourceError(
            f"{path} is part of a set of files, of which {file.name} is missing: put it into the "
            f"same folder"
        )
    return file


def find_files(path: Path, xml: str, described: Sequence[OmeImage]) -> dict[Place, Path]:
    """Find the file of each part of the images; none if tifffile finds that all are this one.

    Parameters
    ----------
    xml, described : what is said of all
    """
    places = [place for image in described for place in image.places]
    root = parse_xml(xml)
    own = None if root is None else root.get("UUID")
    names = {place.file for place in places}
    # a file that was renamed still says what it was called
    renamed = len(names) == 1 and not any(name and (path.parent / name).is_file() for name in names)
    others = {
        place: path if renamed else _beside(path, place.file or "")
        for place in places
        if place.file not in (None, path.name) and (own is None or place.identity != own)
    }
    return dict.fromkeys(places, path) | others if others else {}


def list_set(
    path: Path,
    pages: list[Plane],
    described: Sequence[OmeImage],
    files: Mapping[Place, Path],
    complaints: list[str],
) -> list[TiffImage]:
    """List the images of a set of files.

    Parameters
    ----------
    complaints : of tifffile, see `volseg.sources.formats.tiff_pages.complaints_of_tifffile`
    """
    held = {path: [replace(page, path=path) for page in pages]}
    for file in files.values():
        if file not in held:
            with tifffile.TiffFile(file) as tif:
                found = scan_pages(file, tif, complaints, file.stat().st_size)
                held[file] = [replace(page, path=file) for page in found]
                keep_decoders(found)
    return [_place(path, image, files, held) for image in described]


def _place(
    path: Path, image: OmeImage, files: Mapping[Place, Path], held: Mapping[Path, Sequence[Plane]]
) -> TiffImage:
    """Put the planes of an image into its order."""
    count = math.prod(image.sizes[axis] for axis in image.order)
    planes: dict[int, Plane] = {}
    for place in image.places:
        pages = held[files[place]]
        last = len(pages) if place.count is None else place.page + place.count
        if last > len(pages):
            raise miscounted(files[place], last, len(pages))
        planes.update(enumerate(pages[place.page : last], place.plane))
    if sorted(planes) != list(range(count)):
        raise miscounted(path, count, len(planes))
    ordered = tuple(planes[k] for k in range(count))
    first = ordered[0]
    size = (first.form.imagelength, first.form.imagewidth, first.form.samplesperpixel)
    expected = (image.sizes["Y"], image.sizes["X"], image.samples)
    if size != expected:
        raise SourceError(
            f"{first.path} has pages of {size} (y, x, samples), described as {expected}"
        )
    for number, plane in enumerate(ordered):
        if content(plane.form) != content(first.form):
            what = unequal(path, number, content(plane.form), 0, content(first.form))
            raise SourceError(f"{what}: it is in {plane.path}")
    axes = "".join(axis for axis in image.order if image.sizes[axis] > 1)
    shape = tuple(image.sizes[axis] for axis in axes)
    return TiffImage("ome", image.name, axes, shape, ordered, tuple(range(count)), first.form)


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
    root = parse_xml(xml)
    try:
        return [
            _read_image(image.get("Name", ""), pixels)
            for image in (() if root is None else root)
            if _tag(image) == "Image"
            for pixels in image
            if _tag(pixels) == "Pixels"
        ]
    except (ValueError, KeyError):
        return []


def name_master(xml: str) -> str | None:
    """Name the file that describes a set, of which others refer to it; None if this is no other.

    Examples
    --------
    >>> name_master('<OME><BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:1"/></OME>')
    'a.companion.ome'
    """
    root = parse_xml(xml) if "BinaryOnly" in xml else None
    parts = [] if root is None else [part for part in root if _tag(part) == "BinaryOnly"]
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
