"""Pixel sizes in the private tags of scanning electron microscopes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import tifffile

from volseg.sources.voxel_size import AxisSizes, StatedSize, positive, unit_nanometers

UNKNOWN: AxisSizes = (None, None, None)
PIXEL_SIZE = re.compile(rb"PixelSize([XY])=([-+.\deE]+)")
METRE = 1e9
"""nm."""
FEI, ZEISS, TESCAN = (34682, 34680), 34118, 50431
GATAN_UNITS, GATAN_SCALES = (65005, 65004, 65003), (65011, 65010, 65009)
"""Tags of DigitalMicrograph along z, y and x."""


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
