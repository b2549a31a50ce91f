"""MRC volumes, as tomography writes them (.mrc, .rec, .st, .map); by mrcfile, page by page."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError
from volseg.sources.stack import Selection, Stack, check_single, choose_channel, close_nothing
from volseg.sources.voxel_size import StatedSize, positive, said
from volseg.types import zyx

ANGSTROM = 0.1
"""nm."""
NO_SIZE = (1.0, 1.0, 1.0)
"""Angstrom that programs write when they know nothing."""
IMOD = 1146047817
"""Stamp of IMOD's programs, after which flags say whether bytes are signed."""


def open_mrc(path: Path, selection: Selection) -> Stack:
    """Open an MRC file; its pages are read from where they lie."""
    import mrcfile

    choose_channel(1, selection.channel, str(path))
    check_single(selection, str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong shows in what follows
        try:
            with mrcfile.mmap(path, mode="r", permissive=True) as opened:
                header, pages = opened.header, opened.data
        except (OSError, ValueError) as error:
            raise SourceError(f"{path} is damaged, or no MRC file; fetch it again") from error
    if pages is None or pages.size == 0:
        raise SourceError(f"{path} is truncated or damaged; fetch or export it again, completely")
    order = int(header.maps), int(header.mapr), int(header.mapc)
    if pages.ndim not in (2, 3) or order not in ((3, 2, 1), (0, 0, 0)):
        raise SourceError(
            f"{path} holds an array of the shape {pages.shape} whose axes are {order}, expected "
            f"one volume, and 3, 2, 1 for z, y, x"
        )
    pages = pages.reshape(-1, *pages.shape[-2:])
    if pages.dtype == np.int8 and _has_unsigned_bytes(header):
        pages = pages.view(np.uint8)

    def read_page(z: int, out: NDArray[Any]) -> None:
        out[...] = pages[z]

    shape = zyx(pages.shape)
    stated = _stated_size(header, shape[0])
    noted = {"format": "MRC", "mode": int(header.mode)}
    dtype = pages.dtype.newbyteorder("=")
    # pages are mapped, and let go with them
    return Stack((path,), shape, dtype, read_page, close_nothing, stated, noted)


def _has_unsigned_bytes(header: Any) -> bool:
    words = np.frombuffer(header.extra2.tobytes()[40:48], np.dtype("i4"))
    native = words if words[0] == IMOD else words.byteswap()
    return bool(native[0] == IMOD and not native[1] & 1)


def _stated_size(header: Any, planes: int) -> tuple[StatedSize, ...]:
    """Read the size of voxels: that of a cell, by the number of intervals along each axis."""
    cell = [float(header.cella[axis]) for axis in "zyx"]
    counts = [int(header[f"m{axis}"]) for axis in "zyx"]
    sizes = [c / n if n > 0 else 0.0 for c, n in zip(cell, counts, strict=True)]
    if np.allclose(sizes, NO_SIZE):
        return ()
    if counts[0] != planes:
        sizes[0] = 0.0
    # of four bytes, so 45.6 is not what it looks like in eight
    z, y, x = (positive(f"{size:.7g}", ANGSTROM) for size in sizes)
    return said(StatedSize((z, y, x), "its MRC header"))
