"""Open a source of any form as one stack: a file, files of slices, or Zarr."""

from __future__ import annotations

import glob
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError
from volseg.sources.conversion import as_volume_type
from volseg.sources.formats.hdf5 import split_dataset
from volseg.sources.formats.zarr_source import open_zarr
from volseg.sources.readers import find_folder, open_file
from volseg.sources.slices import list_images, list_sequence, open_sequence
from volseg.sources.stack import ACCEPTED_TYPES, WHOLE, Selection, Stack
from volseg.storage.locations import parse_location
from volseg.storage.remote import as_remote
from volseg.storage.stores import is_zarr


def open_stack(
    source: str | Path, selection: Selection = WHOLE, types: tuple[str, ...] = ACCEPTED_TYPES
) -> Stack:
    """Open a file of any kind, a folder or glob of files that are one stack, or Zarr.

    Parameters
    ----------
    source : str or Path
    selection : of what the source holds
    types : names of types that are taken as they are; others are converted

    Raises
    ------
    SourceError, VolumeError
        If it cannot be read as equal grey pages; names file, page and remedy.
    """
    stack = _open(parse_location(str(source)), selection)
    try:
        if stack.colours:
            stack.read_page(0, _room_for_page(stack))
        return as_volume_type(stack, types)
    except BaseException:
        stack.close()
        raise


def _room_for_page(stack: Stack) -> NDArray[Any]:
    """Allocate a page; its size stands in the file, which may be damaged."""
    _, y, x = stack.shape
    try:
        return np.empty((y, x), stack.dtype)
    except MemoryError as error:
        raise SourceError(
            f"{stack.files[0]}: a page of {x} x {y} {stack.dtype} does not fit in memory; use a "
            f"larger machine, or fetch the file again if it is smaller"
        ) from error


def _open(path: Path, selection: Selection) -> Stack:
    if as_remote(path) is not None or is_zarr(path):
        return open_zarr(path, selection)
    path, dataset = split_dataset(path)
    if path.is_file():
        return open_file(path, selection, dataset)
    if not path.exists() and not glob.has_magic(str(path)):
        raise SourceError(
            f"there is nothing at {path}; expected a stack, a folder or glob of slices (TIFF, PNG, "
            f"JPEG), or a Zarr image"
        )
    if path.is_dir() and not list_images(list(path.iterdir())):
        reader = find_folder(path)
        if reader is not None:
            return reader.open(path, selection)
    return open_sequence(list_sequence(path), selection, chosen=not path.is_dir())


def reopen(path: Path, selection: Selection, types: tuple[str, ...]) -> Stack:
    """Open a stack once per process, and again when the file is another.

    Raises
    ------
    SourceError, VolumeError
        See `open_stack`.
    """
    file, _ = split_dataset(path)
    found = file.stat() if file.exists() else None
    stamp = found and (found.st_ino, found.st_mtime_ns, found.st_size)
    return _open_stamped(path, selection, types, stamp)


@lru_cache(maxsize=4)
def _open_stamped(path: Path, selection: Selection, types: tuple[str, ...], _: Any) -> Stack:
    return open_stack(path, selection, types)
