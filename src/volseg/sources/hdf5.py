"""HDF5 datasets, as ilastik, ImageJ, Imaris and BigDataViewer write them; by h5py, box by box."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError, command
from volseg.sources.hdf5_words import choose_boxes, count_voxels, name_axes, state_size
from volseg.sources.stack import Selection, Stack, check_single, check_type, choose_channel
from volseg.storage.arrays import LONGEST_AXIS
from volseg.types import Roi, Zyx

SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".he5", ".ilp", ".ims"})
SIGNATURE = b"\x89HDF\r\n\x1a\n"
SHOWN = 12
"""Datasets of a file that a message lists."""
FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError)
"""Errors of h5py where a file is damaged."""
KINDS = "uifb"
"""Kinds of types that are numbers."""
VIEWER = re.compile(r"/t\d{5}/s\d{2,}/\d+/cells")
"""Names of BigDataViewer, which stores uint16 as int16."""


def split_dataset(path: Path) -> tuple[Path, str | None]:
    """Part a file from the dataset that follows it, as in ``file.h5:/raw``.

    Examples
    --------
    >>> split_dataset(Path("no-such-file.h5"))[1] is None
    True
    """
    text = str(path)
    if not path.exists():
        for found in re.finditer(":", text):
            if Path(text[: found.start()]).is_file():
                return Path(text[: found.start()]), text[found.end() :]
    return path, None


def is_hdf5(path: Path) -> bool:
    """Tell an HDF5 file by its name or its first bytes."""
    if not path.is_file():
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as opened:
            return opened.read(len(SIGNATURE)) == SIGNATURE
    except OSError:  # which readers of other formats tell of
        return False


@dataclass(frozen=True)
class Dataset:
    """A dataset as boxes of (z, y, x).

    Attributes
    ----------
    where : file and name, for messages.
    stored : dataset of h5py.
    axes : their letters, slowest first; all but Z, Y, X and C are of length one.
    channel : that is read.
    chunk : a shape that is cheap to read, (z, y, x).
    dtype : in this machine's order.
    """

    where: str
    stored: Any
    axes: str
    channel: int
    chunk: Zyx
    dtype: np.dtype[Any]

    def __getitem__(self, roi: Roi) -> NDArray[Any]:
        """Read a box.

        Raises
        ------
        SourceError
            If it is damaged.
        """
        at: dict[str, slice | int] = dict(zip("ZYX", roi, strict=True)) | {"C": self.channel}
        try:
            found = self.stored[tuple(at.get(axis, 0) for axis in self.axes)]
        except FAULTS as error:
            raise SourceError(
                f"{self.where} is damaged or truncated at z {roi[0].start}; fetch or export it "
                f"again, completely"
            ) from error
        kept = [axis for axis in self.axes if axis in "ZYX"]
        read = np.transpose(found, [kept.index(axis) for axis in "ZYX"])
        # of the same size: another type only for what is stored as though it had a sign
        return read.astype(read.dtype.newbyteorder("="), copy=False).view(self.dtype)


def open_hdf5(path: Path, name: str | None, selection: Selection, types: tuple[str, ...]) -> Stack:
    """Open a dataset of an HDF5 file, or the only one that may be a volume.

    Raises
    ------
    SourceError
        If h5py is not installed, the file is damaged, or it is not clear what is meant.
    """
    try:
        import h5py
    except ImportError as error:
        raise SourceError(
            f"{path} is an HDF5 file, which needs h5py: pip install 'volseg[formats]'"
        ) from error
    try:
        file = h5py.File(path, "r")
    except FAULTS as error:
        raise SourceError(
            f"{path} is damaged, truncated, no HDF5 file, or still being written by another "
            f"program; close that, or fetch it again"
        ) from error
    try:
        dataset = _choose(h5py, path, file, name)
        return _as_stack(h5py, path, dataset, selection, types)
    except FAULTS as error:
        file.close()
        raise SourceError(f"{path} is damaged; fetch or export it again, completely") from error
    except BaseException:
        file.close()
        raise


def _choose(h5py: Any, path: Path, file: Any, name: str | None) -> Any:
    """Find the dataset of a name, or the only one of three axes or more."""
    try:
        found = file[name or "/"]
    except KeyError:
        raise SourceError(f"{path} has no {name}; it {_listed(h5py, path, file)}") from None
    if isinstance(found, h5py.Dataset):
        return found
    volumes = _volumes(h5py, found)
    if len(volumes) != 1:
        raise SourceError(f"{path} {_listed(h5py, path, found if volumes else file)}")
    return volumes[0]


def _volumes(h5py: Any, group: Any) -> list[Any]:
    found: list[Any] = []

    def visit(_: str, item: Any) -> None:
        if (
            isinstance(item, h5py.Dataset)
            and len(item.shape or ()) > 2
            and item.dtype.kind in KINDS
        ):
            found.append(item)

    group.visititems(visit)
    return found


def _listed(h5py: Any, path: Path, group: Any) -> str:
    volumes = _volumes(h5py, group)
    if not volumes:
        return "holds no dataset of numbers with three axes or more"
    shown = [f"{d.name} {' x '.join(map(str, d.shape))} {d.dtype}" for d in volumes[:SHOWN]]
    more = f"; and {len(volumes) - SHOWN} more" if len(volumes) > SHOWN else ""
    example = command("convert", f"{path}:{volumes[0].name}", "VOLUME.zarr")
    return f"holds {len(volumes)} dataset(s) ({'; '.join(shown)}{more}); name one: `{example}`"


def _as_stack(
    h5py: Any, path: Path, dataset: Any, selection: Selection, types: tuple[str, ...]
) -> Stack:
    where, dtype = f"{path}:{dataset.name}", dataset.dtype
    check_single(replace(selection, axes=None), where)
    told = [*_check_stored(h5py, where, dataset)]
    if dtype.kind == "i" and dtype.itemsize == 2 and VIEWER.fullmatch(dataset.name):
        dtype = np.dtype(np.uint16)
        told.append(f"{where} is read as uint16, which BigDataViewer stores as int16")
    axes, lengths = name_axes(where, dataset, selection.axes), count_voxels(dataset)
    sizes = dict(zip(axes, lengths, strict=True))
    if sizes.get("T", 1) > 1:
        raise SourceError(f"{where} is a time series of {sizes['T']}; export one time point")
    channel = choose_channel(sizes.get("C", 1), selection.channel, where)
    shape = (sizes["Z"], sizes["Y"], sizes["X"])
    chunk = choose_boxes(axes, dataset.chunks, shape)
    array = Dataset(where, dataset, axes, channel, chunk, check_type(dtype, where, types))

    def read_page(z: int, out: NDArray[Any]) -> None:
        out[...] = array[slice(z, z + 1), slice(0, shape[1]), slice(0, shape[2])][0]

    stated = state_size(dataset, shape)
    if not stated and np.shape(given := dataset.attrs.get("resolution")) == (3,):
        sizes_given = ",".join(f"{float(v):g}" for v in given)
        told.append(
            f"{where} has a resolution of {sizes_given} without a unit; if that is nm along z, y "
            f"and x, as in CREMI's files, give --voxel-size {sizes_given}"
        )
    noted = {"format": "HDF5", "dataset": dataset.name, "bytes": path.stat().st_size}
    return Stack(
        (path,),
        shape,
        array.dtype,
        read_page,
        dataset.file.close,
        stated,
        noted,
        tuple(told),
        array,
    )


def _check_stored(h5py: Any, where: str, dataset: Any) -> Iterator[str]:
    """Check that all voxels are there and can be decoded; say so where some were not written.

    HDF5 itself gives the fill value for what is not there.
    """
    if dataset.dtype.kind not in KINDS:
        raise SourceError(f"{where} holds {dataset.dtype}; expected numbers")
    if math.prod(dataset.shape or (0,)) == 0 or max(dataset.shape, default=0) > LONGEST_AXIS:
        raise SourceError(f"{where} has the shape {dataset.shape}, which no volume has")
    created = dataset.id.get_create_plist()
    for k in range(created.get_nfilters()):
        code, _, _, name = created.get_filter(k)
        if not h5py.h5z.filter_avail(code):
            raise SourceError(
                f"{where} is compressed by HDF5 filter {code} ({name.decode(errors='replace')}), "
                f"which is not installed: set HDF5_PLUGIN_PATH to a folder that holds it, or "
                f"write the file again with `h5repack -f GZIP=1`"
            )
    if dataset.is_virtual:
        folder = Path(dataset.file.filename).parent
        names = {source.file_name for source in dataset.virtual_sources()} - {"."}
        missing = sorted(n for n in names if "%" not in n and not (folder / n).exists())
        if missing:
            raise SourceError(f"{where} is put together from other files; {missing[0]} is missing")
    elif dataset.chunks is not None:
        pairs = zip(dataset.shape, dataset.chunks, strict=True)
        chunks, written = math.prod(-(-n // c) for n, c in pairs), dataset.id.get_num_chunks()
        if written < chunks:
            yield (
                f"{chunks - written} of {chunks} chunks of {where} were never written, and are "
                f"read as {dataset.fillvalue:g}"
            )
    elif not dataset.external and dataset.id.get_storage_size() == 0:
        raise SourceError(f"{where} is empty: its voxels were never written")
