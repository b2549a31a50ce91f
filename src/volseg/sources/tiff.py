"""TIFF in all the forms that microscopes, ImageJ and Bio-Formats write."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import tifffile

from volseg.errors import SourceError
from volseg.sources.stack import ACCEPTED_TYPES, Stack, check_type, choose_channel
from volseg.sources.tiff_pages import (
    TiffPages,
    complaints_of_tifffile,
    is_contiguous,
    lies_plain,
    scan_pages,
)
from volseg.sources.voxel_size import (
    StatedSize,
    size_from_imagej,
    size_from_ome,
    size_from_resolution,
)

WHITE_IS_ZERO, PALETTE = 0, 3


def open_tiff(
    path: Path, channel: int | None = None, types: tuple[str, ...] = ACCEPTED_TYPES
) -> Stack:
    """Open a multi-page TIFF: plain, BigTIFF, OME-TIFF or ImageJ.

    Raises
    ------
    SourceError
        If it is no TIFF, truncated, damaged, or its pages are not equal and grey.
    """
    try:
        with complaints_of_tifffile() as complaints, tifffile.TiffFile(path) as tif:
            return _open(path, tif, channel, types, complaints)
    except tifffile.TiffFileError as error:
        raise SourceError(
            f"{path} is not a TIFF file ({error}); expected a TIFF stack, or a folder or glob of "
            f"TIFF or PNG slices"
        ) from error
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
    except SourceError:
        raise
    except Exception as error:  # its description is free text: tags, XML and numbers of any kind
        raise SourceError(
            f"{path} is damaged: what it says about itself cannot be read ({error}); export the "
            f"file again, for example from ImageJ"
        ) from error


def _open(
    path: Path,
    tif: tifffile.TiffFile,
    channel: int | None,
    types: tuple[str, ...],
    complaints: list[str],
) -> Stack:
    size = path.stat().st_size
    pages, form = scan_pages(path, tif, complaints, size)
    if form.photometric == PALETTE:
        raise SourceError(f"{path} has palette colours; convert it to grey, for example in ImageJ")
    if form.shaped[1] > 1:
        raise SourceError(f"{path} stores volumes in its pages; save it as a stack of slices")
    dtype = check_type(form.dtype, str(path), types)
    samples = form.samplesperpixel
    order, described = _describe_planes(tif)
    planes, channel_left = _select_planes(path, len(pages), described, order, channel, samples)
    sample = choose_channel(samples, channel_left, f"each page of {path}")
    nbytes = form.imagelength * form.imagewidth * dtype.itemsize
    segments = tuple(pages[p] for p in planes)
    plain = samples == 1 and lies_plain(form) and all(is_contiguous(s, nbytes) for s in segments)
    if not plain:
        _ = form.decode, form.jpegtables, form.jpegheader
    shape = (len(segments), form.imagelength, form.imagewidth)
    stated, noted = _stated_sizes(tif), _first_page(tif, form)
    # last, since it would stay open if something above failed
    reader = TiffPages(path, os.open(path, os.O_RDONLY), form, segments, sample, plain)
    warnings = (
        (f"{path} says that 0 is white; values are kept as they are, so bright stays dark",)
        if form.photometric == WHITE_IS_ZERO
        else ()
    )
    return Stack((path,), shape, dtype, reader.read, reader.close, stated, noted, warnings)


def _describe_planes(tif: tifffile.TiffFile) -> tuple[str, tuple[int, ...]]:
    """Read the order of planes that OME-XML or ImageJ describe: axes, slowest first, and sizes."""
    if tif.is_ome and tif.ome_metadata and "<!DOCTYPE" not in tif.ome_metadata:
        root = ET.fromstring(tif.ome_metadata)
        pixels = next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), None)
        if pixels is not None:
            order = pixels.get("DimensionOrder", "XYZCT")[2:][::-1]
            return order, tuple(int(pixels.get(f"Size{a}", "1")) for a in order)
    imagej = tif.imagej_metadata
    if imagej:
        sizes = [int(imagej.get(k, 1)) for k in ("frames", "slices", "channels")]
        return "TZC", tuple(sizes)
    return "", ()


def _select_planes(
    path: Path,
    count: int,
    sizes: tuple[int, ...],
    order: str,
    channel: int | None,
    samples: int,
) -> tuple[list[int], int | None]:
    """Choose the pages of the volume; return the channel if it is still to be chosen.

    Some programs call z "t" or "frames", which is clear if only one of them is long.
    """
    named = dict(zip(order, sizes, strict=True))
    if samples > 1 and "C" in named:
        named["C"] = 1
    planes = math.prod(named.values())
    if not named or (planes != count and planes == 1):
        return list(range(count)), channel
    if planes != count:
        raise SourceError(
            f"{path} describes {planes} planes but holds {count}: it is truncated, or part of a "
            f"set of files; export it as one stack"
        )
    if named.get("T", 1) > 1 and named.get("Z", 1) > 1:
        raise SourceError(
            f"{path} is a time series of {named['T']} volumes; export one time point as a stack"
        )
    if named.get("C", 1) == 1:
        return list(range(count)), channel
    chosen = choose_channel(named["C"], channel, str(path))
    index = np.arange(count).reshape(tuple(named.values()))
    return np.take(index, chosen, axis=list(named).index("C")).ravel().tolist(), None


def _stated_sizes(tif: tifffile.TiffFile) -> tuple[StatedSize, ...]:
    """Read the voxel size wherever the file states one; ImageJ's own is in its resolution tags."""
    page = tif.pages.first
    ratios = [page.tags.valueof(name) for name in ("YResolution", "XResolution")]
    pairs = [r[0] / r[1] if r and r[1] else 0.0 for r in ratios]
    resolution = (pairs[0], pairs[1]) if all(pairs) else None
    if tif.imagej_metadata and not tif.is_ome:
        found = [size_from_imagej(tif.imagej_metadata, resolution)]
    else:
        unit = int(page.tags.valueof("ResolutionUnit") or 2)
        found = [size_from_resolution(unit, resolution)]
    if tif.is_ome and tif.ome_metadata:
        found.insert(0, size_from_ome(tif.ome_metadata))
    return tuple(s for s in found if any(s.axes))


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
        "compression": tifffile.COMPRESSION(form.compression).name.lower(),
        **texts,
    }
