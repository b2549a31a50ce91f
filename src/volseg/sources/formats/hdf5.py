"""HDF5 datasets, as ilastik, ImageJ, Imaris and BigDataViewer write them; by h5py, box by box."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError, list_some
from volseg.sources.axes import FAULTS, choose_axes
from volseg.sources.formats.markup import parse_xml
from volseg.sources.stack import Selection, Stack, check_series
from volseg.sources.voxel_size import (
    AxisSizes,
    StatedSize,
    positive,
    tell_unitless,
    unit_nanometers,
)
from volseg.types import Zyx

SHOWN = 12
"""Datasets of a file that a message lists."""
KINDS = "uifb"
"""Kinds of types that are numbers."""
MICROMETER = 1e3
"""nm."""
VIEWER = re.compile(r"/t\d{5}/s(\d{2,})/(\d+)/cells")
"""Names of BigDataViewer, which stores uint16 as int16: a setup, and a level."""
LARGEST_XML = 1 << 26
"""Bytes of a description."""


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


def open_hdf5(path: Path, selection: Selection, name: str | None = None) -> Stack:
    """Open a dataset of an HDF5 file, or the only one that may be a volume."""
    import h5py

    try:
        file = h5py.File(path, "r")
    except FAULTS as error:
        raise SourceError(
            f"{path} is damaged, truncated, no HDF5 file, or still being written by another "
            f"program; close that, or fetch it again"
        ) from error
    try:
        dataset = _choose(h5py, path, file, name)
        return _as_stack(h5py, path, dataset, selection)
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
    each = [f"{d.name} {' x '.join(map(str, d.shape))} {d.dtype}" for d in volumes]
    listed = f"{len(volumes)} dataset(s) ({list_some(each, SHOWN, '; ')})"
    return f"holds {listed}; name one after a colon, as in {path}:{volumes[0].name}"


def _as_stack(h5py: Any, path: Path, dataset: Any, selection: Selection) -> Stack:
    where, dtype = f"{path}:{dataset.name}", dataset.dtype
    check_series(selection, where)
    told = [*_check_stored(h5py, where, dataset)]
    if dtype.kind == "i" and dtype.itemsize == 2 and VIEWER.fullmatch(dataset.name):
        dtype = np.dtype(np.uint16)
        told.append(f"{where} is read as uint16, which BigDataViewer stores as int16")

    def read(at: tuple[slice | int, ...]) -> NDArray[Any]:
        found = np.asarray(dataset[at])
        # of the same size: another type only for what is stored as though it had a sign
        return found.view(dtype.newbyteorder(found.dtype.byteorder))

    array = choose_axes(
        where, read, count_voxels(dataset), stated_axes(dataset), selection, dataset.chunks
    )
    stated = state_size(dataset, array.shape)
    if not any(stated.axes) and np.shape(given := dataset.attrs.get("resolution")) == (3,):
        told.append(tell_unitless(where, (float(given[0]), float(given[1]), float(given[2]))))
    noted = {"format": "HDF5", "dataset": dataset.name, "bytes": path.stat().st_size}
    known = {"close": dataset.file.close, "metadata": noted, "warnings": tuple(told)}
    return array.stack(path, dtype, stated, None, **known)


def _check_stored(h5py: Any, where: str, dataset: Any) -> Iterator[str]:
    """Check that all voxels are there and can be decoded; say so where some were not written.

    HDF5 itself gives the fill value for what is not there.
    """
    if dataset.dtype.kind not in KINDS:
        raise SourceError(f"{where} holds {dataset.dtype}; expected numbers")
    if math.prod(dataset.shape or (0,)) == 0:
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


def count_voxels(dataset: Any) -> tuple[int, ...]:
    """Count voxels along each axis; Imaris adds more, up to whole chunks."""
    shape, stated = tuple(dataset.shape), dataset.parent.attrs
    if len(shape) == 3 and all(f"ImageSize{axis}" in stated for axis in "ZYX"):
        known = (int(_text(stated[f"ImageSize{axis}"])) for axis in "ZYX")
        return tuple(min(max(a, 1), n) for a, n in zip(known, shape, strict=True))
    return shape


def _text(value: Any) -> str:
    """Read an attribute of text, which Imaris writes letter by letter."""
    if isinstance(value, np.ndarray):
        value = b"".join(value.astype("S1").tolist())
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def stated_axes(dataset: Any) -> str | None:
    """Read names of axes, as vigra and ilastik or HDF5 itself keep them."""
    try:
        tags = json.loads(_text(dataset.attrs["axistags"]))["axes"]
        return "".join(str(tag["key"]) for tag in tags)
    except (KeyError, TypeError, ValueError):
        labels = [str(d.label) for d in dataset.dims]
    return "".join(labels) if all(len(label) == 1 for label in labels) else None


def state_size(dataset: Any, shape: Zyx) -> StatedSize:
    """Read the size of voxels, of ImageJ's plugin and ilastik, or of Imaris."""
    axes: AxisSizes = (None, None, None)
    origin, given = "its element_size_um", dataset.attrs.get("element_size_um")
    extent = dataset.file.get("DataSetInfo/Image")
    if np.shape(given) == (3,):
        z, y, x = (positive(v, MICROMETER) for v in given)
        axes = z, y, x
    elif extent is not None and "ImageSizeX" in dataset.parent.attrs:
        origin, stated = "its DataSetInfo", extent.attrs
        unit = unit_nanometers(_text(stated.get("Unit", "")))
        # Imaris counts axes from x
        ends = [(_text(stated[f"ExtMin{k}"]), _text(stated[f"ExtMax{k}"])) for k in (2, 1, 0)]
        spans = [(float(last) - float(first)) for first, last in ends]
        z, y, x = (positive(s / n, unit) for s, n in zip(spans, shape, strict=True))
        axes = z, y, x
    elif found := VIEWER.fullmatch(dataset.name):
        file = Path(dataset.file.filename).with_suffix(".xml")
        origin, axes = f"{file.name} of BigDataViewer", _size_in_xml(file, int(found[1]))
        factors = dataset.file.get(f"s{found[1]}/resolutions")
        x, y, z = (1, 1, 1) if factors is None else factors[int(found[2])]
        sizes = zip(axes, (z, y, x), strict=True)
        z, y, x = (size and positive(size, float(factor)) for size, factor in sizes)
        axes = z, y, x
    return StatedSize(axes, origin)


def _size_in_xml(file: Path, setup: int) -> AxisSizes:
    """Read the size of voxels in the XML file beside one of BigDataViewer, if there is one."""
    if not file.is_file() or file.stat().st_size > LARGEST_XML:
        return None, None, None
    root = parse_xml(file.read_text(errors="replace"))
    if root is None:
        return None, None, None
    try:
        for described in root.iter("ViewSetup"):
            if described.findtext("id", "").strip() == str(setup):
                unit = unit_nanometers(described.findtext("voxelSize/unit", ""))
                x, y, z = described.findtext("voxelSize/size", "").split()
                return positive(z, unit), positive(y, unit), positive(x, unit)
    except ValueError:
        pass
    return None, None, None
