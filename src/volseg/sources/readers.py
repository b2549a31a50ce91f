"""The readers of files: by which bytes and names each knows its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from volseg.errors import SourceError, own_words
from volseg.sources.formats.blocks import open_n5, open_precomputed
from volseg.sources.formats.dm import open_dm
from volseg.sources.formats.foreign import name_foreign
from volseg.sources.formats.hdf5 import open_hdf5
from volseg.sources.formats.mrc import open_mrc
from volseg.sources.formats.nifti import BEGINNINGS as NIFTI_BEGINNINGS
from volseg.sources.formats.nifti import open_nifti
from volseg.sources.formats.nrrd import open_nrrd
from volseg.sources.formats.pictures import PNG_BEGINNING, open_jpeg, open_png
from volseg.sources.formats.tiff import BEGINNINGS as TIFF_BEGINNINGS
from volseg.sources.formats.tiff import open_tiff
from volseg.sources.stack import Selection, Stack

HEAD = 512
"""Bytes by which a file is recognised."""


@dataclass(frozen=True)
class Reader:
    """A kind of file.

    Attributes
    ----------
    suffixes : of names, in small letters.
    beginnings : bytes, and where they stand in every file of this kind.
    package : that reads it, if volseg itself does not bring it; of the extra ``formats``.
    marker : a file in each folder of this kind.
    """

    kind: str
    open: Callable[[Path, Selection], Stack]
    suffixes: tuple[str, ...] = ()
    beginnings: tuple[tuple[int, bytes], ...] = ()
    package: str | None = None
    marker: str | None = None


READERS = (
    Reader(
        "TIFF",
        open_tiff,
        (".tif", ".tiff", ".stk", ".lsm", ".btf", ".tf8"),
        tuple((0, start) for start in TIFF_BEGINNINGS),
    ),
    Reader("PNG", open_png, (".png",), ((0, PNG_BEGINNING),)),
    Reader("JPEG", open_jpeg, (".jpg", ".jpeg"), ((0, b"\xff\xd8\xff"),)),
    Reader(
        "MRC",
        open_mrc,
        (".mrc", ".rec", ".st", ".map", ".mrcs"),
        ((208, b"MAP "), (208, b"MAP\0")),
        "mrcfile",
    ),
    Reader(
        "HDF5",
        open_hdf5,
        (".h5", ".hdf5", ".hdf", ".he5", ".ilp", ".ims"),
        ((0, b"\x89HDF\r\n\x1a\n"),),
        "h5py",
    ),
    Reader("DigitalMicrograph", open_dm, (".dm3", ".dm4")),
    Reader("NIfTI", open_nifti, (".nii", ".nii.gz"), NIFTI_BEGINNINGS),
    Reader("NRRD", open_nrrd, (".nrrd", ".nhdr"), ((0, b"NRRD000"),)),
    Reader("N5", open_n5, package="tensorstore", marker="attributes.json"),
    Reader("precomputed", open_precomputed, package="tensorstore", marker="info"),
)
"""As they stand in the table of `docs/formats.md`."""
PICTURES = {"TIFF": 0, "PNG": 0, "DigitalMicrograph": 0, "JPEG": 1}
"""Kinds of slices, by what comes first in a folder that holds several."""


def find_reader(name: str) -> Reader | None:
    """Find the reader of files of such a name, None if there is none.

    Examples
    --------
    >>> [getattr(find_reader(name), "kind", None) for name in ("a.TIF", "b.rec", "c.txt")]
    ['TIFF', 'MRC', None]
    """
    return next((r for r in READERS if name.lower().endswith(r.suffixes)), None)


def find_folder(path: Path) -> Reader | None:
    """Find the reader of a folder that is one volume, None if there is none."""
    found = next((r for r in READERS if r.marker and (path / r.marker).is_file()), None)
    return None if found is None else _check_package(found, path)


def recognise(path: Path) -> Reader:
    """Find the reader of a file, by its first bytes or else by its name."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {own_words(error)}") from error
    for reader in READERS:
        if any(head[at : at + len(start)] == start for at, start in reader.beginnings):
            return _check_package(reader, path)
    found = find_reader(path.name)
    # files of other kinds may begin with anything
    certain = found is None or (found.beginnings and all(at == 0 for at, _ in found.beginnings))
    if certain and (foreign := name_foreign(head, path.name)) is not None:
        raise SourceError(f"{path} is {foreign}")
    if found is None:
        raise SourceError(
            f"{path} is of no kind that is known by its name or its first bytes; docs/formats.md "
            f"lists what is read"
        )
    return _check_package(found, path)


def _check_package(reader: Reader, path: Path) -> Reader:
    if reader.package is not None and find_spec(reader.package) is None:
        raise SourceError(
            f"{path} is of the kind {reader.kind}, which needs {reader.package}: pip install "
            f"'volseg[formats]'"
        )
    return reader


def open_file(path: Path, selection: Selection, dataset: str | None = None) -> Stack:
    """Open a file, or an HDF5 dataset in it, by the reader that knows it."""
    reader = recognise(path)
    if dataset is None:
        return reader.open(path, selection)
    if reader.kind != "HDF5":
        raise SourceError(f"{path} is no HDF5 file; only there a name follows a colon: {dataset}")
    return open_hdf5(path, selection, dataset)
