"""Arrays in storage, Zarr v2 and v3: the only code that touches their bytes.

TensorStore does the work: it writes sharded arrays at two to three times the speed of zarr-python,
and it checks the checksum of every chunk that it reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from volseg.errors import ConflictError, ShapeError, StorageError, VolumeError
from volseg.storage.attributes import parse_json
from volseg.storage.codecs import codec_chain, find_compression
from volseg.storage.compression import ZSTD
from volseg.storage.locations import kvstore_spec, reason
from volseg.types import Roi, Zyx

DEFAULT_CHUNK: Zyx = (32, 64, 64)
DEFAULT_SHARD: Zyx = (64, 512, 512)
LONGEST_AXIS = 1 << 26
"""Voxels along an axis: a brain of 30 cm at 4.5 nm. Metadata that claim more are damaged."""
LARGEST_CHUNK = 1 << 31
"""Bytes of a chunk, which is decoded in one piece."""


@dataclass(frozen=True)
class ArraySpec:
    """The form of an array that is to be created; unwritten voxels are 0.

    Attributes
    ----------
    shape, dtype : of the array.
    chunk : the stored, compressed unit.
    shard : the written unit, whole chunks.
    compression : of the chunks, see `volseg.storage.compression`.
    """

    shape: Zyx
    dtype: str
    chunk: Zyx
    shard: Zyx
    compression: str = ZSTD

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or any(s % c for s, c in zip(self.shard, self.chunk, strict=True)):
            raise ShapeError(
                f"shapes must be positive and shards whole chunks: shape {self.shape}, shard "
                f"{self.shard}, chunk {self.chunk}"
            )


@dataclass(frozen=True)
class StoredArray:
    """An array in storage, seen as (z, y, x). Holds no open file, so it travels to any worker.

    Attributes
    ----------
    path : folder of the array.
    shape, dtype, chunk, shard : as seen; without sharding the shard is the chunk.
    leading : number of leading axes of length one that are hidden.
    compression : of the chunks, in an array of the form that `create_array` gives; else None.
    """

    path: Path
    shape: Zyx
    dtype: np.dtype[Any]
    chunk: Zyx
    shard: Zyx
    leading: int = 0
    compression: str | None = None

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a box, given as up to three slices.

        Raises
        ------
        StorageError
            If a chunk is damaged or cannot be read.
        """
        box = _box(key, self.shape)
        try:
            read = _opened(self.path)[(0,) * self.leading + box].read().result()
        except (ValueError, OSError, RuntimeError) as error:
            why = reason(self.path, error)
            raise StorageError(f"cannot read {self.path} at {describe(box)}: {why}") from error
        return np.asarray(read)

    def write(self, roi: Roi, block: NDArray[Any]) -> None:
        """Write a box durably: whole shards, or up to the array's end.

        Raises
        ------
        ShapeError
            If the block's shape is not the box's.
        StorageError
            If it cannot be written: a full disk, no permission.
        """
        box = _box(roi, self.shape)
        if tuple(s.stop - s.start for s in box) != block.shape:
            raise ShapeError(f"a block of shape {block.shape} does not fit {describe(box)}")
        try:
            _opened(self.path)[(0,) * self.leading + box].write(block).result()
        except (ValueError, OSError, RuntimeError) as error:
            why = reason(self.path, error)
            raise StorageError(f"cannot write {self.path} at {describe(box)}: {why}") from error


def describe(box: Sequence[slice]) -> str:
    """Write a box as the command line takes it: ``z0:z1,y0:y1,x0:x1``."""
    return ",".join(f"{s.start}:{s.stop}" for s in box)


def fit_spec(
    shape: Zyx, dtype: str, chunk: Zyx = DEFAULT_CHUNK, shard: Zyx = DEFAULT_SHARD
) -> ArraySpec:
    """Choose chunks and shards for an array, none reaching further beyond it than it must.

    Examples
    --------
    >>> fit_spec((20, 100, 1000), "uint8").shard
    (32, 128, 512)
    """
    fitted = [
        min(-(-s // c) * c, -(-n // c) * c) for n, c, s in zip(shape, chunk, shard, strict=True)
    ]
    return ArraySpec(shape, dtype, chunk, (fitted[0], fitted[1], fitted[2]))


def create_array(path: Path, spec: ArraySpec) -> StoredArray:
    """Create an empty Zarr v3 array: sharded, compressed, a checksum for every chunk.

    Raises
    ------
    ConflictError
        If something is there already.
    StorageError
        If it cannot be created.
    """
    if path.exists():
        raise ConflictError(f"{path} exists already")
    dtype = np.dtype(spec.dtype)
    metadata = {
        "shape": spec.shape,
        "data_type": spec.dtype,
        "fill_value": 0,
        "dimension_names": ["z", "y", "x"],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": spec.shard}},
        "codecs": codec_chain(spec.compression, spec.chunk, dtype.itemsize),
    }
    store = {"driver": "zarr3", "kvstore": kvstore_spec(path)}
    try:
        ts.open({**store, "metadata": metadata}, create=True).result()
        forget_opened()  # another array may have stood at this path before
    except (ValueError, OSError, RuntimeError) as error:
        raise StorageError(f"cannot create {path}: {reason(path, error)}") from error
    return StoredArray(path, spec.shape, dtype, spec.chunk, spec.shard, 0, spec.compression)


def open_array(path: Path) -> StoredArray:
    """Open a Zarr v2 or v3 array of three axes, after any leading axes of length one.

    Raises
    ------
    VolumeError
        If there is none, or it has another number of axes or another type.
    """
    if not is_array(path):
        raise VolumeError(f"there is no Zarr array at {path}")
    try:
        store = _opened(path)
    except (ValueError, OSError, RuntimeError) as error:
        why = reason(path, error)
        raise VolumeError(f"{path} is not a Zarr array that can be read: {why}") from error
    leading = store.rank - 3
    if leading < 0 or any(n != 1 for n in store.shape[:leading]):
        raise VolumeError(
            f"{path} has the shape {tuple(store.shape)}; expected three axes (z, y, x), after any "
            f"axes of length one"
        )
    if store.dtype.numpy_dtype.kind not in "uif":
        raise VolumeError(f"{path} holds {store.dtype.name}; expected numbers")
    chunk = store.chunk_layout.read_chunk.shape or store.shape
    shard = store.chunk_layout.write_chunk.shape or chunk
    if math.prod(store.shape) == 0:
        raise VolumeError(f"{path} is empty: its shape is {tuple(store.shape)}")
    stored = math.prod(n or 1 for n in chunk) * store.dtype.numpy_dtype.itemsize
    if max(store.shape) > LONGEST_AXIS or stored > LARGEST_CHUNK:
        raise VolumeError(
            f"{path} claims the shape {tuple(store.shape)} in chunks of {tuple(chunk)}; expected "
            f"at most {LONGEST_AXIS} voxels along an axis and {LARGEST_CHUNK} bytes in a chunk: "
            f"its metadata are damaged, or it was not made for this"
        )
    return StoredArray(
        path,
        _zyx(store.shape[leading:]),
        np.dtype(store.dtype.numpy_dtype),
        _zyx(chunk[leading:]),
        _zyx(shard[leading:]),
        leading,
        find_compression(store.spec().to_json().get("metadata")),
    )


def is_array(path: Path) -> bool:
    """Tell whether a folder is a Zarr array, not a group."""
    try:
        metadata = parse_json((path / "zarr.json").read_text(encoding="utf-8"))
    except OSError:
        return (path / ".zarray").is_file()
    except ValueError:
        return False
    return isinstance(metadata, dict) and metadata.get("node_type") == "array"


def forget_opened() -> None:
    """Forget what was opened: arrays at known paths have been replaced."""
    _opened.cache_clear()


def _zyx(values: Sequence[int | None]) -> Zyx:
    z, y, x = (int(v or 0) for v in values)
    return z, y, x


def _box(key: Any, shape: Zyx) -> Roi:
    slices = key if isinstance(key, tuple) else (key,)
    full = [*slices, *[slice(None)] * (3 - len(slices))]
    z, y, x = (slice(*s.indices(n)[:2]) for s, n in zip(full, shape, strict=True))
    return z, y, x


@lru_cache(maxsize=64)
def _opened(path: Path) -> ts.TensorStore:
    """Open once per process; masks of type bool as uint8, 0 and 1."""
    driver = "zarr3" if (path / "zarr.json").is_file() else "zarr"
    store = ts.open({"driver": driver, "kvstore": kvstore_spec(path)}, open=True).result()
    return ts.cast(store, ts.uint8) if store.dtype == ts.bool else store
