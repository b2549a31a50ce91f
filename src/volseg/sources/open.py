"""Open a source of any form as one stack: TIFF, single slices, or Zarr."""

from __future__ import annotations

import glob
from pathlib import Path

from volseg.errors import SourceError
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
    """Open a TIFF stack, a folder or glob of single-slice TIFF or PNG files, or a Zarr image.

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
