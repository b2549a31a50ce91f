"""PNG and JPEG files, one slice each; by imagecodecs."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError
from volseg.sources.stack import (
    GREY,
    NO_COLOURS,
    Selection,
    Stack,
    check_single,
    choose_channel,
    close_nothing,
    pick_grey,
)
from volseg.sources.voxel_size import AxisSizes, StatedSize, said, unprinted

PNG_BEGINNING = b"\x89PNG\r\n\x1a\n"
METRE = 1e9
"""nm."""
PALETTE, FULL = 3, 255
PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
"""Samples per pixel of each PNG colour type; 3, a palette, is decoded to its colours."""
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG that say how large the picture is."""
LOSSY = "{} is a JPEG file, which keeps pixels about as they were: what it was made from is better"


def open_png(path: Path, selection: Selection) -> Stack:
    """Open a PNG file as a stack of one page."""
    header = _begin(path, 26)
    if len(header) < 26 or header[:8] != PNG_BEGINNING:
        raise SourceError(f"{path} is not a PNG file: its first bytes are {header[:8]!r}")
    width, height, bits, colour = struct.unpack(">IIBB", header[16:26])
    if bits not in (1, 2, 4, 8, 16) or colour not in PNG_SAMPLES:
        raise SourceError(f"{path} is damaged: no PNG file has colour type {colour} of {bits} bits")
    dtype = np.dtype(np.uint16 if bits == 16 else np.uint8)
    numbers = colour == PALETTE and selection.numbers
    decode = _decode_numbers if numbers else imagecodecs.png_decode
    form = (height, width, 1 if numbers else PNG_SAMPLES[colour])
    stack = _as_stack(path, selection, decode, form, dtype)
    return replace(stack, stated=said(StatedSize(_pixel_size(path), "its pHYs chunk")))


def _decode_numbers(content: bytes) -> NDArray[np.uint8]:
    """Decode the numbers of a palette: those of a picture without one, which is grey."""
    header = content[12:25] + b"\0" + content[26:29]
    kept, at = [content[:12], header, zlib.crc32(header).to_bytes(4)], 33
    while length := content[at : at + 4]:
        end = at + 12 + int.from_bytes(length)
        if content[at + 4 : at + 8] in (b"IDAT", b"IEND"):
            kept.append(content[at:end])
        at = end
    decoded = np.asarray(imagecodecs.png_decode(b"".join(kept)))
    # greys of few bits are spread over eight
    return decoded // (FULL // ((1 << min(content[24], 8)) - 1))


def _pixel_size(path: Path) -> AxisSizes:
    """Read how many pixels there are to a metre, which stands before the first of them."""
    with path.open("rb") as file:
        file.seek(len(PNG_BEGINNING))
        while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            length = int.from_bytes(head[:4])
            if head[4:] == b"pHYs" and len(found := file.read(9)) == length == 9:
                x, y, metres = struct.unpack(">IIB", found)
                unit = METRE if metres == 1 else None
                y, x = (unprinted(1 / n if n else 0, unit) for n in (y, x))
                return None, y, x
            file.seek(length + 4, 1)
    return None, None, None


def open_jpeg(path: Path, selection: Selection) -> Stack:
    """Open a JPEG file as a stack of one page."""
    _begin(path, 1)
    with path.open("rb") as file:
        found = _find_frame(file)
    if found is None:
        raise SourceError(f"{path} is no JPEG file, or damaged: it does not say how large it is")
    bits, height, width, samples = found
    if bits != 8 or samples not in (1, 3):
        raise SourceError(
            f"{path} has {bits} bits per sample and {samples} colours; expected 8, and 1 or 3: "
            f"convert it to grey"
        )
    form, dtype = (height, width, samples), np.dtype(np.uint8)
    stack = _as_stack(path, selection, imagecodecs.jpeg8_decode, form, dtype)
    return replace(stack, warnings=(LOSSY.format(path),))


def _begin(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error


def _find_frame(file: BinaryIO) -> tuple[int, int, int, int] | None:
    """Find bits, height, width and samples in the segments of a JPEG file."""
    if file.read(2) != b"\xff\xd8":
        return None
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        length = int.from_bytes(head[2:])
        if head[1] in JPEG_FRAMES:
            frame = file.read(6)
            return struct.unpack(">BHHB", frame) if len(frame) == 6 else None
        file.seek(length - 2, 1)
    return None


def _as_stack(
    path: Path,
    selection: Selection,
    decode: Callable[[bytes], Any],
    form: tuple[int, int, int],
    dtype: np.dtype[Any],
) -> Stack:
    shape, samples = form[:2], form[2]
    check_single(selection, str(path))
    if selection.channel is not None:
        choose_channel(samples, selection.channel, str(path))
    if min(shape) < 1:
        raise SourceError(f"{path} is damaged: it measures {shape[1]} x {shape[0]} pixels")

    def read_page(_: int, out: NDArray[Any]) -> None:
        try:
            decoded = np.asarray(decode(path.read_bytes()))
        except Exception as error:
            raise _damaged(path) from error
        if decoded.shape[:2] != shape or decoded.ndim > 3 or decoded.dtype != dtype:
            raise _damaged(path)
        samples = decoded.reshape(*shape, -1)
        hint = NO_COLOURS if selection.numbers else GREY
        out[...] = pick_grey(samples, selection.channel, str(path), hint, grey=bool(selection.grey))

    return Stack(
        (path,),
        (1, *shape),
        dtype,
        read_page,
        close_nothing,
        metadata={"format": path.suffix[1:].upper()},
        colours=samples > 1,
    )


def _damaged(path: Path) -> SourceError:
    return SourceError(f"{path} is damaged; fetch the file again: nothing was written")
