"""TIFF stacks: as ImageJ writes them where its form can hold them, else OME-TIFF."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO

import imagecodecs
import tifffile

from volseg.engine.progress import Progress
from volseg.errors import StorageError
from volseg.exchange.volumes.cut import Cut
from volseg.exchange.volumes.plan import ExportPlan
from volseg.exchange.volumes.resumed import DONE, FLUSH_SECONDS, beginning, keeping
from volseg.storage.files import drafting, make_durable, put_in_place
from volseg.storage.ledger import Ledger
from volseg.storage.remote import as_remote
from volseg.storage.targets import BEGUN

CLASSIC = (1 << 32) - (1 << 26)
"""Bytes of voxels up to which offsets of 32 bits reach, with room for what describes them."""
STRIP = 1 << 18
"""Bytes of a strip that is packed."""
TITLE = "writing TIFF"
IMAGEJ_TYPES = ("uint8", "uint16", "int16", "float32")
NO_IMAGEJ = (
    "it is more than ImageJ's own form holds, so it is OME-TIFF, in the form of BigTIFF beyond 4 "
    "GB; Fiji opens it by Bio-Formats"
)
"""Said of a stack that is too large, or of a type that ImageJ has not."""
Form = dict[str, Any]
AXES = (("Z", 0), ("Y", 1), ("X", 2))


def is_imagej(cut: Cut, form: str) -> bool:
    """Tell whether voxels are written in ImageJ's form, which its own reader opens."""
    return form == "tiff" and cut.nbytes <= CLASSIC and cut.dtype.name in IMAGEJ_TYPES


def write_tiff(plan: ExportPlan, cut: Cut, progress: Progress) -> tuple[str, ...]:
    """Write a stack plane by plane; a file that is there stands until this one is complete."""
    imagej, options = is_imagej(cut, plan.form), plan.options
    depth, height, width = cut.shape
    settings: Form = {
        # all of ImageJ's axes, else tifffile takes one of a single voxel for samples
        "shape": (1, depth, 1, height, width, 1) if imagej else cut.shape,
        "dtype": cut.dtype,
        "photometric": "minisblack",
        "metadata": _imagej_words(cut) if imagej else _ome_words(cut, options.output.name),
    }
    if (size := cut.space.voxel_size) is not None:
        per_unit, unit = (1.0, "NONE") if imagej else (1e7, "CENTIMETER")
        settings["resolution"] = (per_unit / size[2], per_unit / size[1])
        settings["resolutionunit"] = unit
    large = cut.nbytes > CLASSIC
    form: Form = {"imagej": imagej, "ome": not imagej, "bigtiff": large, "byteorder": "<"}
    # packing saves little of raw voxels, and delays who leafs through them
    write = _write_plain if options.what == "raw" else _write_packed
    write(plan, cut, progress, form, settings)
    return (NO_IMAGEJ,) if plan.form == "tiff" and not imagej else ()


def _write_packed(
    plan: ExportPlan, cut: Cut, progress: Progress, form: Form, settings: Form
) -> None:
    """Keep packed strips beside the file until all are there."""
    _, height, width = cut.shape
    rows = min(max(STRIP // (width * cut.dtype.itemsize), 1), height)
    dtype = cut.dtype.newbyteorder("<")

    def pack(plane: Any, row: int) -> bytes:
        return bytes(imagecodecs.zlib_encode(plane[row : row + rows].astype(dtype).tobytes()))

    with keeping(plan) as pieces, ThreadPoolExecutor(plan.options.engine.workers) as pool:
        for plane in cut.planes(progress, TITLE, pieces.count):
            pieces.add(list(pool.map(partial(pack, plane), range(0, height, rows))))
        with (
            drafting(plan.options.output, parents=False) as draft,
            tifffile.TiffWriter(draft, **form) as writer,
        ):
            writer.write(iter(pieces), compression="zlib", rowsperstrip=rows, **settings)


def _write_plain(
    plan: ExportPlan, cut: Cut, progress: Progress, form: Form, settings: Form
) -> None:
    """Fill a file that has all its pages, beside where it will stand, plane by plane."""
    dtype = cut.dtype.newbyteorder("<")
    output = plan.options.output
    with beginning(plan) as (ledger, kept):
        if BEGUN not in ledger.records or not kept.is_file():
            ledger.restart()
            with tifffile.TiffWriter(kept, **form) as writer:
                begin = writer.write(None, returnoffset=True, **settings)
            ledger.record(BEGUN, begin)
        (offset, _), done = ledger.records[BEGUN], ledger.records.get(DONE, 0)
        with kept.open("rb+") as file:
            file.seek(offset + done * cut.nbytes // cut.shape[0])
            flushed = time.monotonic()
            try:
                for plane in cut.planes(progress, TITLE, done):
                    file.write(plane.astype(dtype, copy=False).tobytes())
                    done += 1
                    if time.monotonic() - flushed > FLUSH_SECONDS:
                        _note(file, ledger, done)
                        flushed = time.monotonic()
            finally:
                with suppress(OSError, StorageError):  # the reason why it failed says more
                    _note(file, ledger, done)
        if (remote := as_remote(output)) is not None:
            remote.upload(kept)
        else:
            put_in_place(kept, output.resolve())


def _note(file: BinaryIO, ledger: Ledger, done: int) -> None:
    make_durable(file)
    ledger.record(DONE, done)


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
