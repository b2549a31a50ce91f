"""N5 datasets and precomputed volumes of neuroglancer: folders of blocks; by tensorstore."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import SourceError, VolumeError, list_some
from volseg.sources.axes import choose_axes
from volseg.sources.stack import Selection, Stack, check_series
from volseg.sources.voxel_size import (
    AxisSizes,
    StatedSize,
    positive,
    read_length,
    tell_unitless,
    unit_nanometers,
)
from volseg.storage.ome import NANOMETER, Space
from volseg.storage.stores import read_json
from volseg.types import zyx

N5, PRECOMPUTED = "attributes.json", "info"
SHOWN = 12
"""Datasets of a container that a message lists."""
LARGEST = 1 << 31
"""Voxels of a block, which is decoded in one piece."""


def open_n5(path: Path, selection: Selection) -> Stack:
    """Open a dataset of N5, or the finest of a group that holds levels s0, s1 and so on."""
    noted, above = _read(path / N5), {}
    if "dimensions" not in noted and (path / "s0" / N5).is_file():
        path, above, noted = path / "s0", noted, _read(path / "s0" / N5)
    if "dimensions" not in noted:
        inner = sorted(p.parent for p in path.glob("**/" + N5) if "dimensions" in _read(p))
        if not inner:
            raise SourceError(f"{path} is a group of N5 without datasets")
        named = list_some(inner, SHOWN)
        raise SourceError(f"{path} is a group of N5; name a dataset in it: {named}")
    names, sizes, told = _state_n5(path, noted, above)
    block = noted.get("blockSize")
    stored = _open(path, {"driver": "n5"}, block if isinstance(block, list) else [])
    stated = StatedSize(sizes, "its N5 attributes")
    told += _tell_missing(path, path, stored, str.isdigit)
    return _as_stack(path, stored, names, selection, stated, "N5", warnings=told)


def open_precomputed(path: Path, selection: Selection) -> Stack:
    """Open the finest scale of a precomputed volume."""
    try:
        first = _read(path / PRECOMPUTED)["scales"][0]
        chunk = first["chunk_sizes"][0]
        x, y, z = (positive(v, 1.0) for v in first["resolution"])
        offset = [float(v) for v in first.get("voxel_offset", (0, 0, 0))]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SourceError(f"{path / PRECOMPUTED} is damaged: it describes no scale") from error
    stored = _open(path, {"driver": "neuroglancer_precomputed", "scale_index": 0}, chunk)
    stated = StatedSize((z, y, x), "its info file")
    space = Space()
    if x and y and z and len(offset) == 3 and selection.axes is None:
        moved = (offset[2] * z, offset[1] * y, offset[0] * x)
        space = Space((z, y, x), moved, (NANOMETER,) * 3)
    told = (
        ()
        if "sharding" in first
        else _tell_missing(path, path / str(first["key"]), stored, _is_chunk)
    )
    return _as_stack(
        path, stored, "XYZC", selection, stated, "precomputed", warnings=told, space=space
    )


def _is_chunk(name: str) -> bool:
    return name.removesuffix(".gz").replace("-", "").replace("_", "").isdigit()


def _tell_missing(
    path: Path, folder: Path, stored: Any, is_block: Callable[[str], bool]
) -> tuple[str, ...]:
    """Say how many blocks are not there, which some programs leave out where all is 0."""
    pairs = zip(stored.shape, stored.chunk_layout.read_chunk.shape, strict=True)
    blocks = math.prod(-(-n // b) for n, b in pairs)
    held = sum(is_block(name) for _, _, names in os.walk(folder) for name in names)
    if held >= blocks:
        return ()
    return (f"{blocks - held} of {blocks} blocks of {path} are not there, and are read as 0",)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = read_json(file)
    except VolumeError as error:
        raise SourceError(f"{file} is damaged: it is not JSON") from error
    if found is None or not isinstance(found[0], dict):
        raise SourceError(f"{file} is damaged, or not there: it describes nothing")
    return found[0]


def _open(path: Path, driver: Mapping[str, Any], block: Any) -> Any:
    import tensorstore

    sizes = [n for n in block if type(n) is int] if isinstance(block, list) else []
    if not sizes or min(sizes) < 1 or np.prod(sizes, dtype=object) > LARGEST:
        raise SourceError(f"{path} is damaged: its blocks are said to measure {block}")
    spec = {**driver, "kvstore": {"driver": "file", "path": f"{path.resolve()}/"}}
    try:
        return tensorstore.open(spec, read=True, write=False).result()
    except (ValueError, OSError, RuntimeError, TypeError, NotImplementedError) as error:
        raise SourceError(
            f"{path} is damaged, or of a kind that tensorstore does not read; write it again, for "
            f"example as OME-Zarr"
        ) from error


def _as_stack(
    path: Path,
    stored: Any,
    axes: str | None,
    selection: Selection,
    stated: StatedSize,
    kind: str,
    **known: Any,
) -> Stack:
    check_series(selection, str(path))
    shape, first = tuple(stored.shape), stored.domain.inclusive_min

    def read(at: tuple[slice | int, ...]) -> NDArray[Any]:
        moved = tuple(
            slice(k.start + low, k.stop + low) if isinstance(k, slice) else k + low
            for k, low in zip(at, first, strict=True)
        )
        return np.asarray(stored[moved].read().result())

    chunks = stored.chunk_layout.read_chunk.shape
    array = choose_axes(str(path), read, shape, axes, selection, chunks)
    dtype = np.dtype(stored.dtype.numpy_dtype)
    return array.stack(path, dtype, stated, axes, metadata={"format": kind}, **known)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _multiplied(sizes: list[Any], factors: list[Any]) -> list[Any]:
    numbers = all(isinstance(n, int | float) for n in (*sizes, *factors))
    return [a * b for a, b in zip(sizes, factors, strict=True)] if numbers else []


def _state_n5(
    path: Path, noted: Mapping[str, Any], above: Mapping[str, Any]
) -> tuple[str | None, AxisSizes, tuple[str, ...]]:
    """Read the letters of axes, the size of voxels along (z, y, x), and what is to be told.

    Programs note it as ``pixelResolution`` (N5 of Fiji), ``transform`` (CellMap) or ``resolution``
    with ``units``; a ``resolution`` alone has no unit.
    """
    count = len(noted["dimensions"]) if isinstance(noted["dimensions"], list) else 0
    named = noted.get("axes") or above.get("axes")
    axes = "".join(map(str, named)).upper() if isinstance(named, list) else None
    axes = axes if axes and len(axes) == count else "XYZ" if count == 3 else None
    known = {**above, **noted}
    pixels, transform = known.get("pixelResolution"), known.get("transform")
    sizes: list[Any] = []
    units: list[Any] = []
    order = axes or ""
    if isinstance(transform, dict):
        sizes, units = _listed(transform.get("scale")), _listed(transform.get("units"))
        order = "".join(map(str, _listed(transform.get("axes")))).upper()
    elif isinstance(pixels, dict):
        sizes = _listed(pixels.get("dimensions"))
        units = [pixels.get("unit")] * len(sizes)
        factors = _listed(noted.get("downsamplingFactors"))
        if "pixelResolution" in noted and len(factors) == len(sizes):
            # of a level, beside the size of the finest level's voxels, as n5-viewer takes them
            sizes = _multiplied(sizes, factors)
    elif isinstance(known.get("resolution"), list):
        sizes, units = known["resolution"], _listed(known.get("units"))
        order = axes or "XYZ"
    if len(sizes) != len(order):
        return axes, (None, None, None), ()
    units = units if len(units) == len(sizes) else [None] * len(sizes)
    at = [order.find(axis) for axis in "ZYX"]
    nm = [unit_nanometers(str(unit)) if unit else None for unit in units]
    z, y, x = (None if k < 0 else positive(sizes[k], nm[k]) for k in at)
    if sizes and not any((z, y, x)) and not any(units):
        found = [None if k < 0 else read_length(sizes[k]) for k in at]
        return axes, (z, y, x), (tell_unitless(path, zyx(found)),)
    return axes, (z, y, x), ()
