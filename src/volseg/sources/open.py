"""Open a source of any form as one stack: TIFF, single slices, MRC, HDF5 or Zarr."""

from __future__ import annotations

import glob
from functools import lru_cache
from pathlib import Path
from typing import Any

from volseg.errors import SourceError
from volseg.sources.hdf5 import is_hdf5, open_hdf5, split_dataset
from volseg.sources.mrc import SUFFIXES as MRC_SUFFIXES
from volseg.sources.mrc import open_mrc
from volseg.sources.slices import list_sequence, open_sequence
from volseg.sources.stack import ACCEPTED_TYPES, WHOLE, Selection, Stack
from volseg.sources.tiff import open_tiff
from volseg.sources.zarr_source import open_zarr
from volseg.storage.locations import parse_location
from volseg.storage.remote import as_remote
from volseg.storage.stores import is_zarr


def open_stack(
    source: str | Path, selection: Selection = WHOLE, types: tuple[str, ...] = ACCEPTED_TYPES
) -> Stack:
    """Open a TIFF stack, a folder or glob of TIFF or PNG slices, an MRC or HDF5 file, or Zarr.

    Parameters
    ----------
    source : str or Path
    selection : of what the source holds
    types : names of types that pages may have

    Raises
    ------
    SourceError, VolumeError
        If it cannot be read as equal grey pages; names file, page and remedy.
    """
    path = parse_location(str(source))
    if as_remote(path) is not None or is_zarr(path):
        return open_zarr(path, selection, types)
    path, dataset = split_dataset(path)
    if is_hdf5(path):
        return open_hdf5(path, dataset, selection, types)
    if dataset is not None:
        raise SourceError(f"{path} is no HDF5 file; only there a name follows a colon: {dataset}")
    if not path.exists() and not glob.has_magic(str(path)):
        raise SourceError(
            f"there is nothing at {path}; expected a TIFF stack, a folder or glob of TIFF or PNG "
            f"slices, or a Zarr image"
        )
    if path.is_file() and path.suffix.lower() in MRC_SUFFIXES:
        return open_mrc(path, selection, types)
    if path.is_file() and path.suffix.lower() != ".png":
        return open_tiff(path, selection, types)
    chosen = not path.is_dir()
    return open_sequence(list_sequence(path), selection, types, chosen=chosen)


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
