"""Pages of a TIFF file: positions, checks that all are equal, and contents."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from volseg.errors import SourceError


@dataclass(frozen=True)
class Segments:
    """Offsets and lengths of a page's strips or tiles in the file."""

    offsets: tuple[int, ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class TiffPages:
    """The pages of one open file; reads by position, so threads need no lock.

    Attributes
    ----------
    path, descriptor : the file.
    form : the first page, which all others are like.
    pages : where each lies.
    sample : which sample of colour pages.
    plain : whether a page lies there as it is in memory, apart from byte order.
    """

    path: Path
    descriptor: int
    form: tifffile.TiffPage
    pages: tuple[Segments, ...]
    sample: int
    plain: bool

    def read(self, z: int, out: NDArray[Any]) -> None:
        """Decode a page into an array of shape (y, x)."""
        try:
            if self.plain:
                self._copy(self.pages[z], out)
            else:
                self._decode(self.pages[z], out)
        except Exception as error:
            raise SourceError(
                f"page {z + 1} of {len(self.pages)} in {self.path} is damaged ({error}); fetch the "
                f"file again, or repair that page: nothing was written"
            ) from error

    def _copy(self, page: Segments, out: NDArray[Any]) -> None:
        start, done = page.offsets[0], 0
        view = out.reshape(-1).view(np.uint8).data
        while done < len(view):
            count = os.preadv(self.descriptor, [view[done:]], start + done)
            if count == 0:
                raise ValueError(f"{done} of {len(view)} bytes are there")
            done += count
        if self.form.parent.byteorder != _NATIVE and out.itemsize > 1:
            out.byteswap(inplace=True)

    def _decode(self, page: Segments, out: NDArray[Any]) -> None:
        form = self.form
        single = form.samplesperpixel == 1
        target = out.reshape(form.shaped) if single else np.empty(form.shaped, out.dtype)
        for index, (offset, length) in enumerate(zip(page.offsets, page.lengths, strict=True)):
            encoded = os.pread(self.descriptor, length, offset) if length else None
            decoded, (s, _, y, x, _), shape = form.decode(
                encoded, index, jpegtables=form.jpegtables, jpegheader=form.jpegheader
            )
            height, width = min(shape[1], form.imagelength - y), min(shape[2], form.imagewidth - x)
            box = target[s, 0, y : y + height, x : x + width]
            box[...] = 0 if decoded is None else decoded[0, :height, :width]
        if not single:
            planar = form.planarconfig == tifffile.PLANARCONFIG.SEPARATE
            out[...] = (
                target[self.sample, 0, :, :, 0] if planar else target[0, 0, :, :, self.sample]
            )

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


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


def lies_plain(form: tifffile.TiffPage) -> bool:
    """Tell whether pages lie in the file as in memory, apart from byte order."""
    whole = form.bitspersample == 8 * np.dtype(form.dtype).itemsize
    return bool(
        form.compression == 1 and form.predictor == 1 and form.fillorder == 1 and whole
    ) and (not form.is_tiled)


def is_contiguous(page: Segments, nbytes: int) -> bool:
    """Tell whether a page's strips follow each other and hold so many bytes."""
    at = page.offsets[0] if page.offsets else 0
    for offset, length in zip(page.offsets, page.lengths, strict=True):
        if offset != at:
            return False
        at += length
    return bool(page.offsets) and at - page.offsets[0] >= nbytes


def scan_pages(
    path: Path, tif: tifffile.TiffFile, complaints: list[str], size: int
) -> tuple[list[Segments], tifffile.TiffPage]:
    """Read where all pages lie, and check that they are equal and within the file.

    Raises
    ------
    SourceError
        If they are not.
    """
    pages: list[Segments] = []
    seen: set[int] = set()
    parts = 0
    form: tifffile.TiffPage | None = None
    try:
        for number, page in enumerate(tif.pages, 1):
            # frames are pages without tags of their own; volseg asks tifffile for none
            if not isinstance(page, tifffile.TiffPage):
                raise SourceError(f"page {number} of {path} has no description of its own")
            form = form or page
            _check_equal(path, number, page, form)
            parts += len(page.dataoffsets)
            if page.offset in seen or parts > size:
                # pages that follow each other in a circle, or share one endless list, never end
                raise _truncated(path, f"page {number} repeats what came before")
            seen.add(page.offset)
            where = Segments(tuple(page.dataoffsets), tuple(page.databytecounts))
            end = max((a + b for a, b in zip(where.offsets, where.lengths, strict=True)), default=0)
            if end > size or not where.offsets:
                raise _truncated(path, f"page {number} ends at byte {end}, the file at {size}")
            pages.append(where)
    except SourceError:
        raise
    except Exception as error:  # tifffile raises many kinds
        raise _truncated(path, f"page {len(pages) + 1} is unreadable: {error}") from error
    broken = [c for c in complaints if "offset" in c or "corrupt" in c]
    if broken:
        raise _truncated(path, f"{len(pages)} pages are readable, then: {broken[0]}")
    if form is None or not pages:
        raise SourceError(f"{path} has no pages; expected at least one")
    if math.prod(form.shaped) == 0:
        raise SourceError(f"the pages of {path} are empty: {form.shape}; export the file again")
    return _expand(path, tif, pages, form, size), form


def _truncated(path: Path, what: str) -> SourceError:
    return SourceError(
        f"{path} is truncated or damaged: {what}; fetch or export the file again, completely"
    )


def _check_equal(path: Path, number: int, page: tifffile.TiffPage, form: tifffile.TiffPage) -> None:
    if page.hash == form.hash:
        return
    if page.dtype is None:
        raise _truncated(path, f"the tags of page {number} say neither its size nor its type")
    ours, theirs = (page.shape, page.dtype), (form.shape, form.dtype)
    found = f"{page.shape} {page.dtype}" if ours != theirs else f"stored as {page.compression!r}"
    expected = f"{form.shape} {form.dtype}" if ours != theirs else f"{form.compression!r}"
    raise SourceError(
        f"page {number} of {path} is {found}, page 1 is {expected}: all pages must be equal; "
        f"remove or split off what does not belong to the stack"
    )


def _expand(
    path: Path,
    tif: tifffile.TiffFile,
    pages: list[Segments],
    form: tifffile.TiffPage,
    size: int,
) -> list[Segments]:
    """List the pages that ImageJ stores one after the other, without their positions."""
    imagej = tif.imagej_metadata or {}
    count = int(imagej.get("images", 1))
    if len(pages) > 1 or count <= 1:
        if imagej and len(pages) < count:
            raise _truncated(path, f"ImageJ announces {count} images, {len(pages)} are there")
        return pages
    nbytes = math.prod(form.shaped) * np.dtype(form.dtype).itemsize
    first = pages[0].offsets[0]
    if first + count * nbytes > size:
        raise _truncated(
            path,
            f"ImageJ announces {count} images, {max(size - first, 0) // nbytes} are complete",
        )
    return [Segments((first + k * nbytes,), (nbytes,)) for k in range(count)]
