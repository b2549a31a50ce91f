"""NIfTI-1 and NIfTI-2 volumes (.nii, .nii.gz, .hdr with .img).

Headers as https://nifti.nimh.nih.gov describes them. Voxels are read as they lie in the file: where
their axes point in a body is not.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError
from volseg.sources.conversion import change_values
from volseg.sources.formats.mapped import map_voxels, stack_of_voxels
from volseg.sources.stack import Selection, Stack, check_series
from volseg.sources.voxel_size import StatedSize, positive, read_length, tell_unitless
from volseg.types import zyx

BEGINNINGS = ((344, b"n+1\0"), (344, b"ni1\0"), (4, b"n+2\0\r\n\x1a\n"), (4, b"ni2\0\r\n\x1a\n"))
LONGEST = 540
TYPES = dict(
    zip(
        (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280),
        ("u1", "i2", "i4", "f4", "f8", "i1", "u2", "u4", "i8", "u8"),
        strict=True,
    )
)
UNITS = {1: 1e9, 2: 1e6, 3: 1e3}
"""nm per unit of length."""
AXES = "XYZTC"
FIELDS = (
    (("8h", 40), ("h", 70), ("8f", 76), ("3f", 108), ("B", 123)),
    (("8q", 16), ("h", 12), ("8d", 104), ("q2d", 168), ("i", 500)),
)
"""Sizes, type, spacings, place and scaling, and units: forms and places, of versions 1 and 2."""
DAMAGED = "{} is damaged, or no NIfTI file; fetch it again"


def open_nifti(path: Path, selection: Selection) -> Stack:
    """Open a NIfTI file."""
    check_series(selection, str(path))
    packed = path.name.lower().endswith(".gz")
    header, order, length = _read_header(path, packed=packed)
    second = length == LONGEST
    try:
        dim, (code,), pixdim, (offset, slope, shift), (units,) = (
            struct.unpack_from(order + form, header, at) for form, at in FIELDS[second]
        )
        start = int(offset)
    except (struct.error, ValueError, OverflowError) as error:
        raise SourceError(DAMAGED.format(path)) from error
    if length not in (348, LONGEST) or not 1 <= dim[0] <= 7:
        raise SourceError(f"{path} is damaged, or no NIfTI file: its header has {length} bytes")
    if code not in TYPES:
        raise SourceError(
            f"{path} holds voxels of NIfTI's type {code}, which are no single numbers; save it as "
            f"one of grey values"
        )
    paired = (header[4:6] if second else header[344:346]) == b"ni"
    if not paired:
        start = max(start, length + 4)
    shape = tuple(int(n) for n in dim[1 : dim[0] + 1])
    held = path.with_suffix(".img") if paired else path
    dtype = np.dtype(order + TYPES[code])
    voxels = _map(held, start, dtype, shape[::-1], packed=packed)
    # of four bytes in the first version, so 0.03 is not what it looks like in eight
    written = [abs(size) if second else abs(float(f"{size:.7g}")) for size in pixdim]
    z, y, x = (positive(written[k], UNITS.get(units & 7)) for k in (3, 2, 1))
    axes = AXES[: len(shape)][::-1] if len(shape) <= len(AXES) else None
    stated = StatedSize((z, y, x), "its NIfTI header")
    stack = stack_of_voxels(path, voxels, axes, selection, stated, "NIfTI")
    spacings = zyx(read_length(written[k]) for k in (3, 2, 1))
    if units & 7 not in UNITS and any(v not in (None, 1) for v in spacings):
        stack = replace(stack, warnings=(tell_unitless(path, spacings, "spacings"),))
    if slope == 0 or not np.isfinite(slope) or (slope, shift) == (1, 0):
        return stack  # no scaling, as the standard and nibabel have it
    if not np.isfinite(shift):
        raise SourceError(f"{path} is damaged: it adds {shift:g} to values")

    def scale(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(values * np.float64(slope) + shift, np.float32)

    told = f"{path} says that values are to be multiplied by {slope:g}, and {shift:g} to be added"
    return change_values(stack, np.dtype(np.float32), scale, told)


def _read_header(path: Path, *, packed: bool) -> tuple[bytes, str, int]:
    """Read a header, the order of its bytes, and the length that it says."""
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            header = file.read(LONGEST)
        order = "<" if header[:4] in (b"\x5c\x01\0\0", b"\x1c\x02\0\0") else ">"
        (length,) = struct.unpack_from(f"{order}i", header)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise SourceError(DAMAGED.format(path)) from error
    return header, order, length


def _map(
    path: Path, start: int, dtype: np.dtype[Any], shape: tuple[int, ...], *, packed: bool
) -> NDArray[Any]:
    """Map voxels; what is packed includes the header, which is cut off after unpacking."""
    if not packed:
        return map_voxels(path, start, dtype, shape)
    if start % dtype.itemsize:
        raise SourceError(f"{path} is damaged: its voxels begin at byte {start}")
    count = int(np.prod(shape, dtype=object)) + start // dtype.itemsize
    whole = map_voxels(path, 0, dtype, (count,), packed=True)
    return whole[start // dtype.itemsize :].reshape(shape)
