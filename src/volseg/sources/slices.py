"""Folders and globs of single slices, TIFF or PNG, in natural order."""

from __future__ import annotations

import glob
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError
from volseg.sources.names import find_gaps, find_sequences, natural_key
from volseg.sources.stack import (
    ACCEPTED_TYPES,
    WHOLE,
    Selection,
    Stack,
    check_single,
    check_type,
    choose_channel,
)
from volseg.sources.tiff import open_tiff
from volseg.sources.voxel_size import StatedSize, find_contradiction

SUFFIXES = frozenset({".tif", ".tiff", ".png"})
SHOWN = 5
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}
"""Samples per pixel of each PNG colour type; 3, a palette, is not read."""


@dataclass(frozen=True)
class Slice:
    """Properties of one slice, read from its file."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    samples: int = 1
    photometric: str = "MINISBLACK"
    stated: tuple[StatedSize, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def form(self) -> tuple[Any, ...]:
        """Properties that all slices have in common."""
        return self.shape, self.dtype, self.samples, self.photometric


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


def open_sequence(
    files: Sequence[Path],
    selection: Selection = WHOLE,
    types: tuple[str, ...] = ACCEPTED_TYPES,
    *,
    chosen: bool = False,
) -> Stack:
    """Open single slices as one stack.

    Parameters
    ----------
    files, selection, types : see `volseg.sources.open.open_stack`
    chosen : whether the user chose the files, so that names of several sequences are no error

    Raises
    ------
    SourceError
        If one cannot be read or differs from the first; the message names it.
    """
    warnings = _check_names(files, chosen=chosen)
    first = _inspect(files[0], selection, types)
    stated = first.stated
    for file in files[1:]:
        other = _inspect(file, selection, types)
        if other.form != first.form:
            raise SourceError(
                f"{file} is {_form(other)}, {files[0].name} is {_form(first)}: all slices must be "
                f"equal; remove what does not belong to the stack, or choose with a glob"
            )
        if stated is first.stated and find_contradiction((*stated, *other.stated)) is not None:
            # one slice without a size is enough to ask for it
            stated = (*_found_in(files[0], stated), *_found_in(file, other.stated))
    sample = choose_channel(first.samples, selection.channel, str(files[0]))

    def read_page(z: int, out: NDArray[Any]) -> None:
        _read(files[z], out, selection, sample)

    metadata = {"format": f"{files[0].suffix[1:].upper()} sequence", "files": len(files)}
    return Stack(
        files=tuple(files),
        shape=(len(files), *first.shape),
        dtype=first.dtype,
        read_page=read_page,
        close=_nothing,
        stated=stated,
        metadata=metadata,
        warnings=(*first.warnings, *warnings),
    )


def _check_names(files: Sequence[Path], *, chosen: bool) -> list[str]:
    """Check that names are those of one sequence; return what the user should know."""
    folder = files[0].parent
    sequences = find_sequences([f.name for f in files])
    if len(sequences) > 1:
        more = f" and {len(sequences) - SHOWN} more" if len(sequences) > SHOWN else ""
        found = f"{folder} holds slices of several sequences: {', '.join(sequences[:SHOWN])}{more}"
        if not chosen:
            raise SourceError(f"{found}; choose with a glob, such as '{folder / sequences[0]}'")
        return [f"{found}; all are taken, one after the other in the order of their names"]
    gaps = find_gaps([f.stem for f in files])
    if not gaps:
        return []
    more = f" and {len(gaps) - SHOWN} more" if len(gaps) > SHOWN else ""
    told = f"the numbering of {folder} has gaps: {', '.join(gaps[:SHOWN])}{more} missing"
    return [f"{told}; the slices around them are taken as neighbours"]


def _found_in(file: Path, stated: Sequence[StatedSize]) -> list[StatedSize]:
    """Name the file that states a size."""
    return [StatedSize(s.axes, f"{s.origin} ({file.name})") for s in stated]


def _nothing() -> None:
    """Close nothing: files are open only while they are read."""


def _form(found: Slice) -> str:
    height, width = found.shape
    inverted = ", 0 as white" if found.photometric == "MINISWHITE" else ""
    return f"{width} x {height} {found.dtype} with {found.samples} channel(s){inverted}"


def _inspect(file: Path, selection: Selection, types: tuple[str, ...]) -> Slice:
    if file.suffix.lower() == ".png":
        check_single(selection, str(file))
        return _inspect_png(file, types)
    stack = open_tiff(file, selection, types)
    stack.close()
    if stack.shape[0] != 1:
        raise SourceError(
            f"{file} holds {stack.shape[0]} pages; in a sequence each file is one slice: convert "
            f"multi-page files one by one"
        )
    photometric = stack.metadata["photometric"]
    return Slice(stack.shape[1:], stack.dtype, 1, photometric, stack.stated, stack.warnings)


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


def _read(file: Path, out: NDArray[Any], selection: Selection, sample: int) -> None:
    if file.suffix.lower() != ".png":
        stack = open_tiff(file, selection, (out.dtype.name,))
        try:
            stack.read_page(0, out)
        finally:
            stack.close()
        return
    try:
        decoded = imagecodecs.png_decode(file.read_bytes())
        out[...] = decoded if decoded.ndim == 2 else decoded[..., sample]
    except Exception as error:
        raise SourceError(
            f"{file} is damaged ({error}); fetch the file again: nothing was written"
        ) from error
