"""Stamps of sources: what tells their files from others that stood, or will stand, there."""

from __future__ import annotations

import glob
import hashlib
from pathlib import Path

from volseg.sources.formats.hdf5 import split_dataset
from volseg.storage.remote import as_remote
from volseg.storage.stores import file_of, is_zarr

DESCRIBED = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
"""Files that describe an array in Zarr, or an image."""


def find_stamp(path: Path) -> str:
    """Find what changes when one of the files that a stack is read from does; empty if unknown."""
    if as_remote(path) is not None:
        return ""
    file = file_of(split_dataset(path)[0])
    if file.is_dir() and is_zarr(file):
        # each chunk may be a file beside them, and is read anew in any case
        files = [file / name for name in DESCRIBED]
        if not (file / ".zarray").exists():  # an image's arrays are described in their own folders
            files += (found for name in DESCRIBED for found in file.glob(f"*/{name}"))
    elif file.is_dir():
        files = [file, *file.iterdir()]
    else:
        files = [file] if file.exists() else list(map(Path, glob.glob(str(file))))
    states = [(str(f), f.stat()) for f in sorted(files) if f.exists()]
    told = [(name, s.st_ino, s.st_mtime_ns, s.st_size) for name, s in states]
    return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()
