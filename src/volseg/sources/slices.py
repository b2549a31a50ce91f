"""Folders and globs of single slices, TIFF or PNG, in natural order."""

from __future__ import annotations

import glob
import itertools
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError
from volseg.sources.stack import ACCEPTED_TYPES, Stack, check_type, choose_channel
from volseg.sources.tiff import open_tiff
from volseg.sources.voxel_size import StatedSize, find_contradiction

SUFFIXES = frozenset({".tif", ".tiff", ".png"})
SHOWN_GAPS = 5
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}
"""Samples per pixel of each PNG colour type; 3, a palette, is not read."""


@dataclass(frozen=True)
class Slice:
    """Properties of one slice, read from its file."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    samples: int = 1
    stated: tuple[StatedSize, ...] = ()


def natural_key(path: Path) -> list[Any]:
    """Sort names as people number them.

    Examples
    --------
    >>> [p.name for p in sorted([Path("s10.tif"), Path("s2.tif")], key=natural_key)]
    ['s2.tif', 's10.tif']
    """
    return [int(t) if t.isdecimal() else t.lower() for t in re.split(r"(\d+)", str(path))]


def list_sequence(source: str | Path) -> list[Path]:
    """List the slices of a folder, a glob or a single file, in natural order.

    Raises
    ------
    SourceError
        If there are none, or TIFF and PNG are mixed.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [p for p in path.iterdir() if not p.name.startswith(".")]
    else:
        found = [Path(p) for p in glob.glob(str(source))]
    slices = sorted((p for p in found if p.suffix.lower() in SUFFIXES), key=natural_key)
    if not slices:
        what = f"{len(found)} files, none of them TIFF or PNG" if found else "nothing"
        raise SourceError(
            f"{source}: found {what}; expected a TIFF stack, a folder or glob of TIFF or PNG "
            f"slices, or a Zarr image"
        )
    if len({p.suffix.lower() == ".png" for p in slices}) > 1:
        raise SourceError(
            f"{source} mixes TIFF and PNG files: choose with a glob, such as "
            f"'{path if path.is_dir() else path.parent}/*.png'"
        )
    return slices


def find_gaps(names: Sequence[str]) -> list[str]:
    """Find the numbers that a numbered sequence skips.

    Parameters
    ----------
    names : in natural order

    Examples
    --------
    >>> find_gaps(["s1", "s2", "s5", "s7"]), find_gaps(["a00", "a10", "a20"])
    (['3-4', '6'], [])
    """
    split = [re.split(r"(\d+)", n) for n in names]
    if len(names) < 3 or len({tuple(s[::2]) for s in split}) > 1:
        return []
    columns = list(zip(*(s[1::2] for s in split), strict=True))
    varying = [c for c in columns if len({int(v) for v in c}) > 1]
    if len(varying) != 1:
        return []
    numbers = [int(v) for v in varying[0]]
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    step = max(min(steps), 1)
    return [
        f"{a + step}" if b - a == 2 * step else f"{a + step}-{b - step}"
        for a, b in itertools.pairwise(numbers)
        if b - a > step
    ]


def open_sequence(
    files: Sequence[Path], channel: int | None = None, types: tuple[str, ...] = ACCEPTED_TYPES
) -> Stack:
    """Open single slices as one stack.

    Raises
    ------
    SourceError
        If one cannot be read or differs from the first; the message names it.
    """
    first = _inspect(files[0], channel, types)
    stated = first.stated
    for file in files[1:]:
        other = _inspect(file, channel, types)
        if (other.shape, other.dtype, other.samples) != (first.shape, first.dtype, first.samples):
            raise SourceError(
                f"{file} is {_form(other)}, {files[0].name} is {_form(first)}: all slices must be "
                f"equal; remove what does not belong to the stack, or choose with a glob"
            )
        if stated is first.stated and find_contradiction((*stated, *other.stated)) is not None:
            # one slice without a size is enough to ask for it
            stated = (*_found_in(files[0], stated), *_found_in(file, other.stated))
    sample = choose_channel(first.samples, channel, str(files[0]))
    gaps = find_gaps([f.stem for f in files])
    more = f" and {len(gaps) - SHOWN_GAPS} more" if len(gaps) > SHOWN_GAPS else ""
    warning = (
        f"the numbering of {files[0].parent} has gaps: {', '.join(gaps[:SHOWN_GAPS])}{more} "
        f"missing; the slices around them are taken as neighbours"
    )

    def read_page(z: int, out: NDArray[Any]) -> None:
        _read(files[z], out, sample if files[z].suffix.lower() == ".png" else channel)

    metadata = {"format": f"{files[0].suffix[1:].upper()} sequence", "files": len(files)}
    return Stack(
        files=tuple(files),
        shape=(len(files), *first.shape),
        dtype=first.dtype,
        read_page=read_page,
        close=_nothing,
        stated=stated,
        metadata=metadata,
        warnings=(warning,) if gaps else (),
    )


def _found_in(file: Path, stated: Sequence[StatedSize]) -> list[StatedSize]:
    """Name the file that states a size."""
    return [StatedSize(s.axes, f"{s.origin} ({file.name})") for s in stated]


def _nothing() -> None:
    """Close nothing: files are open only while they are read."""


def _form(found: Slice) -> str:
    height, width = found.shape
    return f"{width} x {height} {found.dtype} with {found.samples} channel(s)"


def _inspect(file: Path, channel: int | None, types: tuple[str, ...]) -> Slice:
    if file.suffix.lower() == ".png":
        return _inspect_png(file, types)
    stack = open_tiff(file, channel, types)
    stack.close()
    if stack.shape[0] != 1:
        raise SourceError(
            f"{file} holds {stack.shape[0]} pages; in a sequence each file is one slice: convert "
            f"multi-page files one by one"
        )
    return Slice(stack.shape[1:], stack.dtype, 1, stack.stated)


def _inspect_png(file: Path, types: tuple[str, ...]) -> Slice:
    try:
        with file.open("rb") as stream:
            header = stream.read(26)
    except OSError as error:
        raise SourceError(f"cannot read {file}: {error.strerror}") from error
    if len(header) < 26 or header[:8] != PNG_SIGNATURE:
        raise SourceError(f"{file} is not a PNG file: its first bytes are {header[:8]!r}")
    width, height, bits, colour = struct.unpack(">IIBB", header[16:26])
    if bits not in (8, 16) or colour not in PNG_SAMPLES:
        raise SourceError(
            f"{file} has {bits} bits per sample and colour type {colour}; expected 8 or 16 bits, "
            f"no palette: convert it to grey"
        )
    return Slice((height, width), check_type(f"uint{bits}", str(file), types), PNG_SAMPLES[colour])


def _read(file: Path, out: NDArray[Any], channel: int | None) -> None:
    if file.suffix.lower() != ".png":
        stack = open_tiff(file, channel, (out.dtype.name,))
        try:
            stack.read_page(0, out)
        finally:
            stack.close()
        return
    try:
        decoded = imagecodecs.png_decode(file.read_bytes())
        out[...] = decoded if decoded.ndim == 2 else decoded[..., channel or 0]
    except Exception as error:
        raise SourceError(
            f"{file} is damaged ({error}); fetch the file again: nothing was written"
        ) from error
