"""Planes of a TIFF file: where they lie, whether they are complete, and what they hold."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from volseg.errors import SourceError
from volseg.sources.stack import pick_grey


@dataclass(frozen=True)
class Plane:
    """Place of a plane in the file, and the way it is stored.

    Attributes
    ----------
    offsets, lengths : of its strips or tiles.
    form : a page that is stored in the same way.
    sample : which sample of the pixels.
    plain : whether it lies there as it is in memory, apart from byte order.
    path : of the file, in a set of several.
    """

    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    form: tifffile.TiffPage
    sample: int = 0
    plain: bool = False
    path: Path | None = None

    @property
    def separate(self) -> bool:
        """Tell whether the samples are stored one after the other, and not pixel by pixel."""
        return self.form.shaped[0] > 1

    @property
    def nbytes(self) -> int:
        """Number of bytes of all samples, decoded."""
        return math.prod(self.form.shaped) * np.dtype(self.form.dtype).itemsize


@dataclass(frozen=True)
class TiffPlanes:
    """Planes of one open file, or of several; reads by position, so threads need no lock.

    Attributes
    ----------
    path, descriptor : the file; None for a set of files, each of which is open while it is read.
    planes : from the top.
    greys : what values of a palette stand for, if not for themselves.
    hint : what to do if colours that are to be greys are none; None where a channel is chosen.
    mixed : whether greys are made of colours.
    """

    path: Path
    descriptor: int | None
    planes: tuple[Plane, ...]
    greys: NDArray[np.uint8] | None = None
    hint: str | None = None
    mixed: bool = False

    def read(self, z: int, out: NDArray[Any]) -> None:
        """Decode a plane into an array of shape (y, x)."""
        plane = self.planes[z]
        count = plane.form.samplesperpixel
        try:
            if self.hint is not None and plane.separate:
                parts = [np.empty(out.shape, out.dtype) for _ in range(count)]
                for sample, part in enumerate(parts):
                    self._fill(select_sample(plane, sample), part[..., None])
                samples = np.stack(parts, axis=2)
            elif plane.separate or count == 1:
                samples = out[..., None]
                self._fill(plane, samples)
            else:
                samples = np.empty((*out.shape, count), out.dtype)
                self._fill(plane, samples)
        except Exception as error:
            raise SourceError(
                f"page {z + 1} of {len(self.planes)} in {self.path} is damaged; fetch the file "
                f"again, or repair that page: nothing was written"
            ) from error
        if self.hint is not None:
            out[...] = pick_grey(samples, None, str(self.path), self.hint, grey=self.mixed)
        elif samples.shape[2] > 1:
            out[...] = samples[..., plane.sample]
        if self.greys is not None:
            out[...] = self.greys[out]

    def _fill(self, plane: Plane, samples: NDArray[Any]) -> None:
        descriptor = self.descriptor
        if descriptor is None:
            descriptor = os.open(plane.path or self.path, os.O_RDONLY)
        try:
            (self._copy if plane.plain else self._decode)(descriptor, plane, samples)
        finally:
            if self.descriptor is None:
                os.close(descriptor)

    def _copy(self, descriptor: int, plane: Plane, out: NDArray[Any]) -> None:
        start, done = plane.offsets[0], 0
        view = out.reshape(-1).view(np.uint8).data
        while done < len(view):
            count = os.preadv(descriptor, [view[done:]], start + done)
            if count == 0:
                raise ValueError(f"{done} of {len(view)} bytes are there")
            done += count
        if plane.form.parent.byteorder != _NATIVE and out.itemsize > 1:
            out.byteswap(inplace=True)

    def _decode(self, descriptor: int, plane: Plane, out: NDArray[Any]) -> None:
        form, first = plane.form, 0
        if plane.separate:
            first = plane.sample * len(plane.offsets)
        for index, (offset, length) in enumerate(
            zip(plane.offsets, plane.lengths, strict=True), first
        ):
            encoded = os.pread(descriptor, length, offset) if length else None
            decoded, (_, _, y, x, _), shape = form.decode(
                encoded, index, jpegtables=form.jpegtables, jpegheader=form.jpegheader
            )
            height, width = min(shape[1], form.imagelength - y), min(shape[2], form.imagewidth - x)
            box = out[y : y + height, x : x + width]
            box[...] = 0 if decoded is None else decoded[0, :height, :width]


_NATIVE = "<" if np.little_endian else ">"

# There is one logger for all files: without it, threads would collect each other's complaints and
# blame a sound slice for what is wrong with another.
_LISTENING = threading.Lock()


@contextmanager
def complaints_of_tifffile() -> Iterator[list[str]]:
    """Collect what tifffile only logs: it drops damaged pages without an error.

    One file at a time; not to be entered again within itself.
    """
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    logger, handler = logging.getLogger("tifffile"), Collect(logging.WARNING)
    with _LISTENING:
        logger.addHandler(handler)
        propagate, logger.propagate = logger.propagate, False
        try:
            yield found
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate


def keep_decoders(planes: Sequence[Plane]) -> None:
    """Read what decoding needs, while tifffile has the file of these planes open."""
    for used in {id(p.form): p.form for p in planes}.values():
        _ = used.decode, used.jpegtables, used.jpegheader


def select_sample(plane: Plane, sample: int) -> Plane:
    """Select one sample of a page, and note whether it can be read without decoding."""
    offsets, lengths = plane.offsets, plane.lengths
    if plane.separate:
        count = len(offsets) // plane.form.samplesperpixel
        of_sample = slice(sample * count, (sample + 1) * count)
        offsets, lengths = offsets[of_sample], lengths[of_sample]
    size = plane.nbytes // (plane.form.samplesperpixel if plane.separate else 1)
    plain = _lies_plain(plane.form) and _is_contiguous(offsets, lengths, size)
    return replace(plane, offsets=offsets, lengths=lengths, sample=sample, plain=plain)


def _lies_plain(form: tifffile.TiffPage) -> bool:
    """Tell whether pages lie in the file as in memory, apart from byte order."""
    whole = form.bitspersample == 8 * np.dtype(form.dtype).itemsize
    return bool(
        form.compression == 1 and form.predictor == 1 and form.fillorder == 1 and whole
    ) and (not form.is_tiled)


def _is_contiguous(offsets: tuple[int, ...], lengths: tuple[int, ...], nbytes: int) -> bool:
    """Tell whether a page's strips follow each other and hold so many bytes."""
    at = offsets[0] if offsets else 0
    for offset, length in zip(offsets, lengths, strict=True):
        if offset != at:
            return False
        at += length
    return bool(offsets) and at - offsets[0] >= nbytes


def scan_pages(path: Path, tif: tifffile.TiffFile, complaints: list[str], size: int) -> list[Plane]:
    """Read where all pages lie, and check that they are within the file."""
    pages: list[Plane] = []
    seen: set[int] = set()
    parts = 0
    forms: dict[tuple[Any, ...], tifffile.TiffPage] = {}
    try:
        for number, page in enumerate(tif.pages, 1):
            # frames are pages that are stored as another one, such as those of LSM files
            form: Any = page if isinstance(page, tifffile.TiffPage) else page.keyframe
            parts += len(page.dataoffsets)
            if page.offset in seen or parts > size:
                # pages that follow each other in a circle, or share one endless list, never end
                raise truncated(path, f"page {number} repeats what came before")
            seen.add(page.offset)
            offsets, lengths = tuple(page.dataoffsets), tuple(page.databytecounts)
            end = max((a + b for a, b in zip(offsets, lengths, strict=True)), default=0)
            if end > size or not offsets:
                raise truncated(path, f"page {number} ends at byte {end}, the file at {size}")
            form = forms.setdefault((form.hash, form.jpegtables), form)
            pages.append(Plane(offsets, lengths, form))
    except SourceError:
        raise
    except Exception as error:  # tifffile raises many kinds
        raise truncated(path, f"the tags of page {len(pages) + 1} cannot be read") from error
    broken = [c for c in complaints if "offset" in c or "corrupt" in c]
    if broken:
        few = {0: "none of its pages", 1: "only its first page"}
        found = few.get(len(pages), f"only its first {len(pages)} pages")
        raise truncated(path, f"{found} can be found")
    if not pages:
        raise SourceError(f"{path} has no pages; expected at least one")
    return pages


def truncated(path: Path, what: str) -> SourceError:
    """Make the error of a file that is not complete."""
    return SourceError(
        f"{path} is truncated or damaged: {what}; fetch or export the file again, completely"
    )
