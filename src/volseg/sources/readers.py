"""The readers of files: by which bytes and names each knows its own, and what it takes from them.

`docs/formats.md` shows this table.
"""

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
    forms : rows of the table, between empty lines: what is read | voxel size | limits.
    """

    kind: str
    open: Callable[[Path, Selection], Stack]
    suffixes: tuple[str, ...]
    beginnings: tuple[tuple[int, bytes], ...]
    package: str | None
    forms: str
    marker: str | None = None


READERS = (
    Reader(
        "TIFF",
        open_tiff,
        (".tif", ".tiff", ".stk", ".lsm", ".btf", ".tf8"),
        tuple((0, start) for start in TIFF_BEGINNINGS),
        None,
        """
        TIFF, BigTIFF | resolution tags: y and x only | any compression that tifffile decodes; pages
        may differ in how they are stored, not in size, type or meaning of 0; palettes of greys, and
        colours that are greys (R = G = B, as opaque everywhere), are read as grey

        TIFF of FEI or Thermo Fisher, Zeiss (SmartSEM) and TESCAN microscopes | `PixelWidth` and
        `PixelHeight`, `Image Pixel Size`, `PixelSizeX` and `PixelSizeY`: y and x only |

        TIFF of Gatan's DigitalMicrograph | tags 65009 to 65011, in the units of 65003 to 65005 |

        ImageJ TIFF | `unit`, `spacing`, resolution tags | large stacks, too, which have one page

        OME-TIFF | physical sizes, in any unit of length | planes in the order that `TiffData`
        gives; of a set of files (also with a `.companion.ome`) all are read, whichever is named

        TIFF of tifffile, MetaMorph (STK), Zeiss LSM and others that tifffile describes | resolution
        tags | one page that stands for many planes is read whole
        """,
    ),
    Reader(
        "PNG",
        open_png,
        (".png",),
        ((0, PNG_BEGINNING),),
        None,
        """
        PNG slices | `pHYs`: y and x only | 1 to 16 bits, grey, or colours and palettes that are
        greys
        """,
    ),
    Reader(
        "JPEG",
        open_jpeg,
        (".jpg", ".jpeg"),
        ((0, b"\xff\xd8\xff"),),
        None,
        "JPEG slices | none | 8 bits; told, as they are only about what the microscope saw",
    ),
    Reader(
        "MRC",
        open_mrc,
        (".mrc", ".rec", ".st", ".map", ".mrcs"),
        ((208, b"MAP "), (208, b"MAP\0")),
        "mrcfile",
        """
        MRC | cell and intervals; 1 Å along all axes counts as unknown | IMOD's unsigned bytes are
        read as they are; axes in the order x, y, z only
        """,
    ),
    Reader(
        "HDF5",
        open_hdf5,
        (".h5", ".hdf5", ".hdf", ".he5", ".ilp", ".ims"),
        ((0, b"\x89HDF\r\n\x1a\n"),),
        "h5py",
        """
        HDF5 (`file.h5:/path/to/dataset`, or `file.h5` if it holds one volume) |
        `element_size_um` (ImageJ, ilastik), `DataSetInfo` of Imaris, the XML file beside one of
        BigDataViewer | axes as `axistags` or dimension labels name them, else z, y, x; Imaris
        without its padding; int16 of BigDataViewer is read as uint16, with a warning; a
        `resolution` without unit (CREMI) is told and not taken; chunks that were never written are
        told
        """,
    ),
    Reader(
        "DigitalMicrograph",
        open_dm,
        (".dm3", ".dm4"),
        (),
        None,
        """
        DigitalMicrograph of Gatan, such as 3View's | its calibrations | the small picture in it is
        left out; a folder of files of one slice is a stack
        """,
    ),
    Reader(
        "NIfTI",
        open_nifti,
        (".nii", ".nii.gz"),
        NIFTI_BEGINNINGS,
        None,
        """
        NIfTI-1 and 2, also `.hdr` with `.img` | `pixdim` with `xyzt_units`; without a unit it is
        told and not taken | voxels as they lie in the file, wherever its axes point; values that
        are scaled become float32, with a warning; `.nii.gz` is unpacked to a temporary file first
        """,
    ),
    Reader(
        "NRRD",
        open_nrrd,
        (".nrrd", ".nhdr"),
        ((0, b"NRRD000"),),
        None,
        """
        NRRD, also with one file of voxels beside it; raw or gzip | `space directions` with `space
        units`, or `spacings` with `units`; without a unit it is told and not taken | voxels as they
        lie in the file, wherever its axes point
        """,
    ),
    Reader(
        "N5",
        open_n5,
        (),
        (),
        "tensorstore",
        """
        N5 dataset, or a group of `s0`, `s1` ... | `pixelResolution`, `transform`, `resolution` with
        `units`; a `resolution` without a unit is told and not taken | axes x, y, z, or as `axes`
        names them; blocks that are not there are 0, and counted in a warning
        """,
        "attributes.json",
    ),
    Reader(
        "precomputed",
        open_precomputed,
        (),
        (),
        "tensorstore",
        """
        precomputed volume of neuroglancer, in a folder | `resolution` of its finest scale | with
        its place; chunks that are not there are 0, and counted in a warning
        """,
        "info",
    ),
)
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


def table_of_formats() -> str:
    """Write the table of what is read, for the documents."""
    rows = ["| source | names | voxel size from | notes |", "|---|---|---|---|"]
    for reader in READERS:
        names = ", ".join(f"`{suffix}`" for suffix in reader.suffixes)
        if reader.marker is not None:
            names = f"a folder with `{reader.marker}`"
        for form in reader.forms.strip().split("\n\n"):
            source, size, notes = (" ".join(part.split()) for part in form.split("|"))
            needed = f"{source}; `pip install 'volseg[formats]'`" if reader.package else source
            rows.append(f"| {needed} | {names} | {size} | {notes} |".replace("|  |", "| |"))
            names = ""
    return "\n".join(rows)
