"""Voxels that lie in a file as in memory, or are compressed by gzip as a whole."""

from __future__ import annotations

import errno
import gzip
import math
import tempfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError, StorageError
from volseg.sources.axes import choose_axes
from volseg.sources.stack import Selection, Stack
from volseg.sources.voxel_size import StatedSize

PIECE = 1 << 20
"""Bytes that are unpacked at a time."""


def map_voxels(
    path: Path, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...], *, packed: bool = False
) -> NDArray[Any]:
    """Map voxels of a file; those that gzip packed are unpacked into a file without a name first.

    Parameters
    ----------
    offset : of the first byte; of what is packed if voxels are packed from there on
    dtype, shape : of all voxels, the slowest axis first

    Raises
    ------
    SourceError
        If they are not all there.
    StorageError
        If there is no room to unpack them.
    """
    size = math.prod(shape) * dtype.itemsize
    if not 0 < size < 1 << 62 or min(shape) < 1:
        raise SourceError(f"{path} has the shape {shape}, which no volume has")
    try:
        with path.open("rb") as file:
            held = file.seek(0, 2) - offset
            file.seek(offset)
            if packed:
                with tempfile.TemporaryFile() as unpacked:
                    held = _unpack(file, unpacked, size)
                    if held >= size:
                        return np.memmap(unpacked, dtype, "r", 0, shape)
            elif offset >= 0 and held >= size:
                return np.memmap(file, dtype, "r", offset, shape)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"{path} needs {size} bytes in {tempfile.gettempdir()} to be unpacked, which are "
                f"not free; set TMPDIR to a larger folder, or unpack it yourself"
            ) from error
        raise SourceError(
            f"{path} is truncated or damaged; fetch or export it again, completely"
        ) from error
    raise SourceError(
        f"{path} is truncated or damaged: {max(held, 0)} of {size} bytes of its voxels are there; "
        f"fetch or export it again, completely"
    )


def _unpack(source: IO[bytes], target: IO[bytes], size: int) -> int:
    """Unpack so many bytes, or all there are; return how many."""
    done = 0
    with gzip.GzipFile(fileobj=source) as packed:
        while done < size and (piece := packed.read(min(PIECE, size - done))):
            done += target.write(piece)
    target.flush()
    return done


def stack_of_voxels(
    path: Path,
    voxels: NDArray[Any],
    axes: str | None,
    selection: Selection,
    stated: StatedSize,
    kind: str,
) -> Stack:
    """Make a stack of mapped voxels.

    Parameters
    ----------
    voxels, axes : and the letters of their axes, slowest first, if they have any
    stated : size of voxels
    """
    array = choose_axes(str(path), voxels.__getitem__, voxels.shape, axes, selection)
    boxes = array if array.chunk[0] > 1 else None
    # what is mapped is let go with it, so there is nothing to close
    return array.stack(path, voxels.dtype, stated, axes, metadata={"format": kind}, array=boxes)
