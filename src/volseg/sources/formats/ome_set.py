"""OME-TIFF images whose planes lie in several files, of which each leads to all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import tifffile

from volseg.errors import SourceError
from volseg.sources.formats.ome_xml import OmeImage, Place, name_master
from volseg.sources.formats.tiff_images import TiffImage, content, miscounted, unequal
from volseg.sources.formats.tiff_pages import Plane, scan_pages

LARGEST_XML = 1 << 28
"""Bytes of a file of OME-XML."""


def find_description(path: Path, xml: str) -> str:
    """Find the description of a set of files, which may stand in another of them.

    Raises
    ------
    SourceError
        If that is not there.
    """
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
    """Find a file of the same set.

    Raises
    ------
    SourceError
        If it is not there, or elsewhere.
    """
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
    path : of one of the files
    xml, described : what is said of all

    Raises
    ------
    SourceError
        If one is missing.
    """
    places = [place for image in described for place in image.places]
    own = ET.fromstring(xml).get("UUID") if described else None
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
    path, pages : of one of the files
    described, files : what is said of all, and where they are
    complaints : of tifffile, see `volseg.sources.formats.tiff_pages.complaints_of_tifffile`

    Raises
    ------
    SourceError
        If a file is damaged, or does not hold what is said of it.
    """
    held = {path: [replace(page, path=path) for page in pages]}
    for file in files.values():
        if file not in held:
            with tifffile.TiffFile(file) as tif:
                found = scan_pages(file, tif, complaints, file.stat().st_size)
                held[file] = [replace(page, path=file) for page in found]
                for used in {id(p.form): p.form for p in found}.values():
                    # what decoding needs is read while tifffile has the file open
                    _ = used.decode, used.jpegtables, used.jpegheader
    return [_place(path, image, files, held) for image in described]


def _place(
    path: Path,
    image: OmeImage,
    files: Mapping[Place, Path],
    held: Mapping[Path, Sequence[Plane]],
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
