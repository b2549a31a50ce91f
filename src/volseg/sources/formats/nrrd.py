"""NRRD volumes (.nrrd, .nhdr): a header of text, and voxels after it or in another file.

The header as https://teem.sourceforge.net/nrrd/format.html describes it. Voxels are read as they
lie in the file: where their axes point in space is not.
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np

from volseg.errors import SourceError
from volseg.sources.formats.mapped import map_voxels, stack_of_voxels
from volseg.sources.stack import Selection, Stack, check_series
from volseg.sources.voxel_size import (
    AxisSizes,
    StatedSize,
    positive,
    tell_unitless,
    unit_nanometers,
)
from volseg.types import zyx

LONGEST = 1 << 20
"""Bytes of a header."""
TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
ORDERS = {"little": "<", "big": ">"}
PACKED = {"raw": False, "gzip": True, "gz": True}
Fields = dict[str, str]


def open_nrrd(path: Path, selection: Selection) -> Stack:
    """Open a NRRD file."""
    check_series(selection, str(path))
    fields, end = _read_header(path)
    encoding = fields.get("encoding", "raw").lower()
    if encoding not in PACKED:
        raise SourceError(
            f"{path} is encoded as {encoding}; expected raw or gzip: save it again as one of them"
        )
    try:
        sizes = [int(n) for n in fields["sizes"].split()]
        kind = TYPES[fields["type"]]
        order = ORDERS[fields["endian"].lower()] if kind[1:] != "1" else ""
        dtype = np.dtype(order + kind)
        skipped = int(fields.get("byteskip", "0"))
        lines = int(fields.get("lineskip", "0"))
        fits = len(sizes) == int(fields["dimension"])
    except (KeyError, ValueError) as error:
        raise SourceError(
            f"{path} is damaged, or of a kind that is not read: its header does not say of which "
            f"type, order of bytes and size its voxels are"
        ) from error
    if not fits or not sizes or lines or skipped < -1 or (skipped and PACKED[encoding]):
        raise SourceError(f"{path} is damaged, or of a form that is not read; save it again")
    held, start = (
        (path, end) if "datafile" not in fields else (_beside(path, fields["datafile"]), 0)
    )
    if skipped == -1:
        start = held.stat().st_size - math.prod(sizes) * dtype.itemsize
    voxels = map_voxels(
        held, start + max(skipped, 0), dtype, tuple(sizes[::-1]), packed=PACKED[encoding]
    )
    axes = _name_axes(fields, len(sizes))
    sizes_stated, told = _state_size(path, fields, axes)
    named, stated = (
        None if axes is None else axes[::-1],
        StatedSize(sizes_stated, "its NRRD header"),
    )
    stack = stack_of_voxels(path, voxels, named, selection, stated, "NRRD")
    return replace(stack, warnings=told)


def _read_header(path: Path) -> tuple[Fields, int]:
    """Read the fields of a header, and where it ends."""
    with path.open("rb") as file:
        head = file.read(LONGEST)
    found = re.match(rb"NRRD000\d\r?\n", head)
    end = re.search(rb"\r?\n\r?\n", head)
    if found is None or (end is None and b"data file" not in head and b"datafile" not in head):
        raise SourceError(f"{path} is no NRRD file, or damaged: its header does not end")
    text = head[found.end() : len(head) if end is None else end.start()].decode(errors="replace")
    fields = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if value and not line.startswith("#") and not value.startswith("="):
            fields[name.strip().lower().replace(" ", "")] = value.strip()
    return fields, 0 if end is None else end.end()


def _beside(path: Path, name: str) -> Path:
    file = path.parent / name
    if "/" in name or not file.is_file():
        raise SourceError(
            f"{path} names {name} as the file of its voxels, which is not one file beside it; put "
            f"it there, or save both as one file"
        )
    return file


def _name_axes(fields: Fields, count: int) -> str | None:
    """Name axes by their kinds, fastest first; None where there are none, or they do not say."""
    kinds = fields.get("kinds", "").lower().split()
    if len(kinds) != count:
        return "XYZ" if count == 3 else None
    space = iter("XYZ???")
    named = [
        next(space) if kind in ("domain", "space") else "T" if kind == "time" else "C"
        for kind in kinds
    ]
    return "".join(named) if len(set(named)) == count else "XYZ" if count == 3 else None


def _state_size(path: Path, fields: Fields, axes: str | None) -> tuple[AxisSizes, tuple[str, ...]]:
    """Read the size of voxels along (z, y, x), and say so where it has no unit."""
    units = [unit_nanometers(unit) for unit in _words(fields.get("units", ""))]
    if "spacedirections" in fields:
        vectors = re.findall(r"none|\([^)]*\)", fields["spacedirections"].lower())
        spacings = [_length(vector) for vector in vectors]
        common = {unit_nanometers(unit) for unit in _words(fields.get("spaceunits", ""))}
        units = [common.pop() if len(common) == 1 else None] * len(spacings)
    else:
        spacings = [_number(word) for word in fields.get("spacings", "").split()]
    if axes is None or len(spacings) != len(axes):
        return (None, None, None), ()
    units = units if len(units) == len(spacings) else [None] * len(spacings)
    at = [axes.find(axis) for axis in "ZYX"]
    found = [None if k < 0 else spacings[k] for k in at]
    z, y, x = (None if k < 0 else positive(spacings[k], units[k]) for k in at)
    if any(found) and not any((z, y, x)):
        return (z, y, x), (tell_unitless(path, zyx(found), "spacings"),)
    return (z, y, x), ()


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return abs(value) if math.isfinite(value) and value else None


def _length(vector: str) -> float | None:
    """Find the length of a vector such as (0,0,5)."""
    parts = [_number(word) or 0.0 for word in vector.strip("()").split(",")]
    return math.hypot(*parts) or None
