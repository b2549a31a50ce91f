"""Volumes in the formats of other programs, written byte by byte as their specifications say."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np

DM_TYPES = {
    "int16": (1, 2),
    "uint16": (10, 4),
    "float32": (2, 6),
    "uint8": (6, 10),
    "int32": (7, 3),
}
"""By type of voxels: the number of DigitalMicrograph, and that of its values in the tree."""


def write_dm(
    path: Path, raw: np.ndarray, version: int, sizes=(30.0, 4.0, 5.0), unit="nm", order="<"
) -> Path:
    """Write a dm3 or dm4 file of a small picture and a volume of (z, y, x) or (y, x)."""
    wide = ">q" if version == 4 else ">i"

    def number(value):
        return struct.pack(wide, value)

    def tag(kind, name, content):
        length = number(len(content)) if version == 4 else b""
        return struct.pack(">BH", kind, len(name)) + name.encode() + length + content

    def group(name, *inner):
        return tag(20, name, b"\1\0" + number(len(inner)) + b"".join(inner))

    def value(name, code, form, found):
        return tag(21, name, b"%%%%" + number(1) + number(code) + struct.pack(order + form, found))

    def array(name, code, content, count):
        kinds = number(3) + number(20) + number(code) + number(count)
        return tag(21, name, b"%%%%" + kinds + content)

    def text(name, words):
        return array(
            name, 4, words.encode("utf-16-le" if order == "<" else "utf-16-be"), len(words)
        )

    def image(voxels, kind, code, scales):
        calibrated = [
            group("", value("Origin", 6, "f", 0), value("Scale", 6, "f", s), text("Units", unit))
            for s in scales
        ]
        return group(
            "",
            group(
                "ImageData",
                group("Calibrations", group("Dimension", *calibrated)),
                array("Data", code, voxels.tobytes(), voxels.size),
                value("DataType", 5, "I", kind),
                group("Dimensions", *[value("", 5, "I", n) for n in voxels.shape[::-1]]),
                value("PixelDepth", 5, "I", voxels.itemsize),
            ),
            text("Name", "stack"),
        )

    kind, code = DM_TYPES[raw.dtype.name]
    small = image(np.zeros((4, 5), f"{order}u4"), 23, 5, (1, 1))
    volume = image(raw.astype(raw.dtype.newbyteorder(order)), kind, code, sizes[::-1][: raw.ndim])
    # a structure, as a window's place is kept
    place = [15, 0, 2, 0, 2, 0, 2]
    packed = (
        b"%%%%"
        + number(len(place))
        + b"".join(map(number, place))
        + struct.pack(order + "hh", 1, 2)
    )
    inner = (tag(21, "Place", packed), group("ImageList", small, volume))
    root = b"\1\0" + number(len(inner)) + b"".join(inner)
    path.write_bytes(
        struct.pack(">i", version) + number(len(root)) + struct.pack(">i", order == "<") + root
    )
    return path


NIFTI_TYPES = {"uint8": 2, "int16": 4, "int32": 8, "float32": 16, "uint16": 512, "float64": 64}


def write_nifti(
    path: Path, raw: np.ndarray, sizes=(30.0, 4.0, 5.0), *, order="<", second=False, **more
) -> Path:
    """Write a volume of slowest axis first; sizes in µm / 1000."""
    voxels = raw.astype(raw.dtype.newbyteorder(order))
    dim = [raw.ndim, *raw.shape[::-1], *[1] * (7 - raw.ndim)]
    pixdim = [1.0, *[v / 1000 for v in sizes[::-1]], 1, 1, 1, 1]
    slope, shift, units = more.get("slope", 0.0), more.get("shift", 0.0), more.get("units", 3)
    code, bits = NIFTI_TYPES[raw.dtype.name], 8 * raw.itemsize
    if second:
        start, parts = 544, [("i", 0, [540]), ("8s", 4, [b"n+2\0\r\n\x1a\n"])]
        parts += [("hh", 12, [code, bits]), ("8q", 16, dim), ("8d", 104, pixdim)]
        parts += [("qdd", 168, [start, slope, shift]), ("i", 500, [units])]
    else:
        start, parts = 352, [("i", 0, [348]), ("8h", 40, dim), ("hh", 70, [code, bits])]
        parts += [("8f", 76, pixdim), ("3f", 108, [start, slope, shift])]
        parts += [("B", 123, [units]), ("4s", 344, [b"n+1\0"])]
    header = bytearray(start)
    for form, at, values in parts:
        struct.pack_into(order + form, header, at, *values)
    content = bytes(header) + voxels.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


NRRD_TYPES = {"uint8": "uchar", "int16": "short", "uint16": "ushort", "float32": "float"}


def write_nrrd(path: Path, raw: np.ndarray, *more: str, packed=False, data: str = "") -> Path:
    """Write a volume of slowest axis first, with lines that are added to its header."""
    lines = [
        "NRRD0005",
        "# made by hand",
        f"type: {NRRD_TYPES[raw.dtype.name]}",
        f"dimension: {raw.ndim}",
        f"sizes: {' '.join(map(str, raw.shape[::-1]))}",
        f"encoding: {'gzip' if packed else 'raw'}",
        f"endian: {'big' if raw.dtype.byteorder == '>' else 'little'}",
        "note:=with a value",
        *more,
        *([f"data file: {data}"] if data else []),
    ]
    voxels = gzip.compress(raw.tobytes()) if packed else raw.tobytes()
    header = ("\n".join(lines) + "\n\n").encode()
    path.write_bytes(header if data else header + voxels)
    if data:
        (path.parent / data).write_bytes(voxels)
    return path


def write_n5(path: Path, raw: np.ndarray, *, block=(8, 8, 4), compress=True, **noted) -> Path:
    """Write an N5 dataset of (z, y, x): blocks of x, y, z, big-endian, each with its header."""
    path.mkdir(parents=True)
    sizes = raw.shape[::-1]
    described = {
        "dimensions": list(sizes),
        "blockSize": list(block),
        "dataType": raw.dtype.name,
        "compression": {"type": "gzip", "level": -1} if compress else {"type": "raw"},
        **noted,
    }
    (path / "attributes.json").write_text(json.dumps(described))
    for at in np.ndindex(*[-(-n // b) for n, b in zip(sizes, block, strict=True)]):
        box = tuple(
            slice(k * b, min((k + 1) * b, n)) for k, b, n in zip(at, block, sizes, strict=True)
        )
        part = raw[box[::-1]]
        head = struct.pack(">HH3I", 0, 3, *part.shape[::-1])
        body = part.astype(part.dtype.newbyteorder(">")).tobytes()
        file = path.joinpath(*map(str, at))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(head + (gzip.compress(body) if compress else body))
    return path


def write_precomputed(path: Path, raw: np.ndarray, offset=(0, 0, 0), chunk=(8, 8, 4)) -> Path:
    """Write a precomputed volume of (z, y, x): chunks of x, y, z, x the fastest."""
    (path / "4_5_30").mkdir(parents=True)
    sizes = raw.shape[::-1]
    scale = {
        "key": "4_5_30",
        "size": list(sizes),
        "resolution": [5, 4, 30],
        "voxel_offset": list(offset),
        "chunk_sizes": [list(chunk)],
        "encoding": "raw",
    }
    described = {"@type": "neuroglancer_multiscale_volume", "type": "image", "num_channels": 1}
    described |= {"data_type": raw.dtype.name, "scales": [scale]}
    (path / "info").write_text(json.dumps(described))
    for at in np.ndindex(*[-(-n // b) for n, b in zip(sizes, chunk, strict=True)]):
        box = [(k * b, min((k + 1) * b, n)) for k, b, n in zip(at, chunk, sizes, strict=True)]
        name = "_".join(f"{a + o}-{b + o}" for (a, b), o in zip(box, offset, strict=True))
        part = raw[tuple(slice(*ends) for ends in box[::-1])]
        (path / "4_5_30" / name).write_bytes(part.tobytes())
    return path
