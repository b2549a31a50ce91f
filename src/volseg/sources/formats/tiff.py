"""TIFF in all the forms that microscopes, ImageJ and Bio-Formats write."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import tifffile
from numpy.typing import NDArray

from volseg.errors import SourceError, own_words
from volseg.sources.formats.ome_tiff import (
    OmeImage,
    find_description,
    find_files,
    list_set,
    read_ome,
)
from volseg.sources.formats.tiff_images import (
    UNDESCRIBED,
    TiffImage,
    left_over,
    list_images,
    miscounted,
)
from volseg.sources.formats.tiff_pages import (
    TiffPlanes,
    complaints_of_tifffile,
    keep_decoders,
    scan_pages,
    truncated,
)
from volseg.sources.formats.tiff_selection import choose_image, select_planes
from volseg.sources.stack import WHOLE, Selection, Stack, close_nothing
from volseg.sources.voxel_size import (
    AxisSizes,
    StatedSize,
    positive,
    said,
    size_from_imagej,
    size_from_resolution,
    unit_nanometers,
)

WHITE_IS_ZERO, PALETTE = 0, 3
BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF, little and big endian."""
DAMAGED_XML = (
    "the OME-XML of {} describes no image, or is damaged: its pages are taken as slices in the "
    "order of the file, and its voxel size is unknown"
)
UNKNOWN: AxisSizes = (None, None, None)
PIXEL_SIZE = re.compile(rb"PixelSize([XY])=([-+.\deE]+)")
METRE = 1e9
"""nm."""
FEI, ZEISS, TESCAN = (34682, 34680), 34118, 50431
GATAN_UNITS, GATAN_SCALES = (65005, 65004, 65003), (65011, 65010, 65009)
"""Tags of DigitalMicrograph along z, y and x."""


def open_tiff(path: Path, selection: Selection = WHOLE) -> Stack:
    """Open a multi-page TIFF: plain, BigTIFF, OME-TIFF, ImageJ, or what else tifffile knows."""
    try:
        with complaints_of_tifffile() as complaints, tifffile.TiffFile(path) as tif:
            return _open(path, tif, selection, complaints)
    except tifffile.TiffFileError as error:
        with path.open("rb") as file:
            if file.read(4) in BEGINNINGS:
                raise truncated(path, "it begins as a TIFF file, but holds no page list") from error
        raise SourceError(
            f"{path} is not a TIFF file, nor of another kind that is known by its first bytes; "
            f"docs/formats.md lists what is read"
        ) from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {own_words(error)}") from error
    except SourceError:
        raise
    except Exception as error:  # its description is free text: tags, XML and numbers of any kind
        raise SourceError(
            f"{path} is damaged: what it says about itself cannot be read; export the file again, "
            f"for example from ImageJ"
        ) from error


def _mixes(image: TiffImage, selection: Selection) -> bool:
    """Tell whether colours become greys; tifffile calls three or four images that it writes so."""
    images = bool(selection.images) and image.kind == "shaped" and image.planes[0].separate
    return bool(selection.grey) and not images


def _open(path: Path, tif: tifffile.TiffFile, selection: Selection, complaints: list[str]) -> Stack:
    pages = scan_pages(path, tif, complaints, path.stat().st_size)
    xml = find_description(path, tif.ome_metadata or "") if tif.is_ome else ""
    described = read_ome(xml)
    files = find_files(path, xml, described)
    damaged, several = tif.is_ome and not described, bool(files)
    if damaged:
        tif.is_ome = False
    if several:
        images = list_set(path, pages, described, files, complaints)
    else:
        images = list_images(path, tif, pages)
    if described and images[0].kind in UNDESCRIBED:
        images = [_place_planes(path, described, images[0], len(pages))]
    image, warnings = choose_image(path, images, selection.series)
    form = image.form
    shown = form.photometric == PALETTE and not selection.numbers
    greys = _greys_of_palette(path, image.page) if shown else None
    planes, hint = select_planes(path, image, selection)
    keep_decoders(planes)
    stated = said(
        *_stated_in_ome(image, images, described),
        *(() if several else (size_from_sem(image.page), _stated_size(tif, image.page))),
    )
    if damaged:
        warnings += (DAMAGED_XML.format(path),)
    warnings += tuple(_told(path, tif, image, selection, mapped=greys is not None))
    warnings += () if several else left_over(path, pages)
    # last, since it would stay open if something above failed
    descriptor = None if several else os.open(path, os.O_RDONLY)
    reader = TiffPlanes(path, descriptor, planes, greys, hint, mixed=_mixes(image, selection))
    # a stack that is kept, and then forgotten, is closed by nobody
    close = close_nothing if descriptor is None else finalize(reader, os.close, descriptor)
    return Stack(
        # those of the planes first
        tuple(dict.fromkeys([*(p.path or path for p in planes), *files.values()])),
        (len(planes), form.imagelength, form.imagewidth),
        np.dtype(form.dtype).newbyteorder("="),
        reader.read,
        close,
        stated,
        _first_page(tif, tif.pages.first if several else image.page),
        warnings,
        colours=hint is not None,
    )


def _told(
    path: Path, tif: tifffile.TiffFile, image: TiffImage, selection: Selection, *, mapped: bool
) -> Iterator[str]:
    """Say what is taken otherwise than the file, or a viewer, has it."""
    if selection.axes is None and "T" in image.axes and "Z" not in image.axes:
        yield f"{path} calls its planes times: they are taken as slices along z"
    noted = (not tif.is_ome and tif.imagej_metadata) or {}
    if "cf" in noted and not selection.numbers:
        yield f"{path} has ImageJ's calibration of grey values: they are taken as they are stored"
    if mapped:
        yield f"{path} has a palette: the greys that it shows are taken, not their numbers"
    if image.form.photometric == WHITE_IS_ZERO:
        yield f"{path} says that 0 is white; values are kept as they are, so bright stays dark"


def _greys_of_palette(path: Path, page: tifffile.TiffPage) -> NDArray[np.uint8] | None:
    """Find the grey of each value of a palette; None where it is the value itself."""
    colours = np.asarray(page.tags.valueof("ColorMap"))
    if colours.shape != (3, 256) or (colours != colours[0]).any():
        raise SourceError(f"{path} has palette colours; convert it to grey, for example in ImageJ")
    greys = (colours[0] >> 8).astype(np.uint8)
    return None if np.array_equal(greys, np.arange(256)) else greys


def _place_planes(path: Path, described: list[OmeImage], image: TiffImage, held: int) -> TiffImage:
    """Name the axes of pages that OME-XML describes without saying which page is which plane."""
    only = described[0]
    axes = "".join(a for a in only.order if only.sizes[a] > 1)
    shape = tuple(only.sizes[a] for a in axes)
    if len(described) > 1 or only.places or not (math.prod(shape) == len(image.planes) == held):
        planes = sum(math.prod(d.sizes[a] for a in d.order) for d in described)
        raise miscounted(path, planes, held)
    return replace(image, kind="ome", axes=axes, shape=shape)


def _stated_in_ome(
    image: TiffImage, images: list[TiffImage], described: list[OmeImage]
) -> list[StatedSize]:
    """Find the voxel size of an image in OME-XML, which may describe others that are not here."""
    if len(images) == len(described):
        return [d.stated for i, d in zip(images, described, strict=True) if i is image]
    size = image.form.imagelength, image.form.imagewidth
    same = [d.stated for d in described if (d.sizes["Y"], d.sizes["X"]) == size]
    return same[:1] if len({s.axes for s in same}) == 1 else []


def _stated_size(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> StatedSize:
    """Read the voxel size that tags state; ImageJ's own is in its resolution tags."""
    ratios = [page.tags.valueof(name) for name in ("YResolution", "XResolution")]
    pairs = [r[0] / r[1] if r and r[1] else 0.0 for r in ratios]
    resolution = (pairs[0], pairs[1]) if all(pairs) else None
    if tif.imagej_metadata and not tif.is_ome:
        return size_from_imagej(tif.imagej_metadata, resolution)
    return size_from_resolution(int(page.tags.valueof("ResolutionUnit") or 2), resolution)


def _first_page(tif: tifffile.TiffFile, form: tifffile.TiffPage) -> Mapping[str, Any]:
    """Read the properties of the first page."""
    texts = {
        name: str(form.tags.valueof(tag))[:4000]
        for name, tag in (
            ("description", "ImageDescription"),
            ("software", "Software"),
            ("date", "DateTime"),
        )
        if form.tags.valueof(tag)
    }
    kind = "OME-TIFF" if tif.is_ome else "ImageJ" if tif.is_imagej else "TIFF"
    return {
        "format": kind,
        "photometric": tifffile.PHOTOMETRIC(form.photometric).name,
        "compression": tifffile.COMPRESSION(form.compression).name.lower(),
        **texts,
    }


def size_from_sem(page: tifffile.TiffPage) -> StatedSize:
    """Read the size that FEI, Thermo Fisher, Zeiss, TESCAN or Gatan note; z only by the last."""
    for read, codes in ((_fei, FEI), (_zeiss, (ZEISS,)), (_tescan, (TESCAN,))):
        for code in codes:
            if any(axes := read(page.tags.valueof(code))):
                return StatedSize(axes, "its microscope's metadata")
    pairs = zip(GATAN_SCALES, GATAN_UNITS, strict=True)
    z, y, x = (_calibrated(page.tags.valueof(s), page.tags.valueof(u)) for s, u in pairs)
    return StatedSize((z, y, x), "its tags of DigitalMicrograph")


def _calibrated(scale: Any, unit: Any) -> float | None:
    return positive(scale, unit_nanometers(unit if isinstance(unit, str) else None))


def _fei(noted: Any) -> AxisSizes:
    for name in ("Scan", "EScan", "IScan") if isinstance(noted, Mapping) else ():
        scan = noted.get(name)
        if isinstance(scan, Mapping) and "PixelWidth" in scan:
            y, x = (positive(scan.get(f"Pixel{side}"), METRE) for side in ("Height", "Width"))
            return None, y, x
    return UNKNOWN


def _zeiss(noted: Any) -> AxisSizes:
    for name in ("ap_image_pixel_size", "ap_pixel_size") if isinstance(noted, Mapping) else ():
        entry = noted.get(name)
        if isinstance(entry, tuple) and len(entry) == 3:
            size = positive(entry[1], unit_nanometers(str(entry[2])))
            return None, size, size
    return UNKNOWN


def _tescan(noted: Any) -> AxisSizes:
    """Read lines of text among other bytes, which tifffile leaves as they are."""
    found = dict(PIXEL_SIZE.findall(noted)) if isinstance(noted, bytes) else {}
    return None, positive(found.get(b"Y"), METRE), positive(found.get(b"X"), METRE)
