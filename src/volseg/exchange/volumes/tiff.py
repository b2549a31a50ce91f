"""TIFF stacks: as ImageJ writes them where its form can hold them, else OME-TIFF."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import ENOSPC
from typing import Any

import numpy as np
import tifffile

from volseg.engine.progress import Progress
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.plan import ExportPlan
from volseg.storage.files import drafting

CLASSIC = (1 << 32) - (1 << 26)
"""Bytes of voxels up to which offsets of 32 bits reach, with room for what describes them."""
IMAGEJ_TYPES = ("uint8", "uint16", "int16", "float32")
AXES = (("Z", 0), ("Y", 1), ("X", 2))


def is_imagej(cut: Cut, form: str) -> bool:
    """Tell whether voxels are written in ImageJ's form, which its own reader opens."""
    return form == "tiff" and cut.nbytes <= CLASSIC and cut.dtype.name in IMAGEJ_TYPES


def write_tiff(plan: ExportPlan, cut: Cut, progress: Progress) -> None:
    """Write a stack plane by plane; a file that is there stands until this one is complete.

    Raises
    ------
    StorageError
        If it cannot be written, or voxels cannot be read.
    """
    imagej, options = is_imagej(cut, plan.form), plan.options
    depth, height, width = cut.shape
    settings: dict[str, Any] = {}
    if (size := cut.space.voxel_size) is not None:
        per_unit, unit = (1.0, "NONE") if imagej else (1e7, "CENTIMETER")
        settings = {"resolution": (per_unit / size[2], per_unit / size[1]), "resolutionunit": unit}
    large = cut.nbytes > CLASSIC
    with (
        drafting(options.output, parents=False) as draft,
        tifffile.TiffWriter(draft, imagej=imagej, ome=not imagej, bigtiff=large) as writer,
    ):
        try:
            writer.write(
                _contiguous(cut, progress),
                # all of ImageJ's axes, else tifffile takes one of a single voxel for samples
                shape=(1, depth, 1, height, width, 1) if imagej else cut.shape,
                dtype=cut.dtype,
                photometric="minisblack",
                # packing saves little of raw voxels, and delays who leafs through them
                compression=None if options.what == "raw" else "zlib",
                metadata=_imagej_words(cut) if imagej else _ome_words(cut, options.output.name),
                **settings,
            )
        except OSError as error:
            # NumPy counts bytes where it could not write all
            raise error if error.errno else OSError(ENOSPC, os.strerror(ENOSPC)) from error


def _contiguous(cut: Cut, progress: Progress) -> Iterator[Any]:
    for plane in cut.planes(progress, "writing TIFF"):
        yield np.ascontiguousarray(plane)


def _imagej_words(cut: Cut) -> dict[str, Any]:
    """Describe a stack to ImageJ; its origin is the place of zero, in voxels."""
    words: dict[str, Any] = {"axes": "TZCYXS"}
    if cut.space.voxel_size is None:
        return words
    words |= {"unit": "nm", "spacing": cut.space.voxel_size[0]}
    places = zip("zyx", cut.space.origin, cut.space.scale, strict=True)
    return words | {f"{axis}origin": -place / size for axis, place, size in places if place}


def _ome_words(cut: Cut, name: str) -> dict[str, Any]:
    words: dict[str, Any] = {"axes": "ZYX", "Name": name}
    size = cut.space.voxel_size
    if size is None:
        return words
    for axis, k in AXES:
        words |= {f"PhysicalSize{axis}": size[k], f"PhysicalSize{axis}Unit": "nm"}
    places, depth = cut.origin_nm, cut.shape[0]
    if any(places):
        planes: dict[str, Any] = {}
        for axis, k in AXES:
            step = size[0] if axis == "Z" else 0.0
            planes[f"Position{axis}"] = [places[k] + step * n for n in range(depth)]
            planes[f"Position{axis}Unit"] = ["nm"] * depth
        words["Plane"] = planes
    return words
