"""Arrays in storage, Zarr v2 and v3: opened, created and described by zarr-python.

Voxels of arrays that volseg created go through `volseg.storage.shards` and
`volseg.storage.shard_reading`, those of all others through zarr-python and numcodecs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from volseg.errors import ConflictError, ShapeError, StorageError, VolsegError, VolumeError
from volseg.geometry.grid import describe
from volseg.storage.bounded import check_codecs, hold_codecs
from volseg.storage.chunks import ZSTD
from volseg.storage.files import make_folder, write_file
from volseg.storage.locations import reason
from volseg.storage.remote import as_remote
from volseg.storage.shard_reading import read_box
from volseg.storage.shards import ArrayForm, codecs_of, find_compression, write_box
from volseg.storage.stores import (
    HeldZipStore,
    describe_array,
    find_stamp,
    open_store,
    read_array_metadata,
)
from volseg.types import Roi, Zyx, zyx

DEFAULT_CHUNK: Zyx = (32, 64, 64)
DEFAULT_SHARD: Zyx = (64, 512, 512)
LONGEST_AXIS = 1 << 26
"""Voxels along an axis: a brain of 30 cm at 4.5 nm. Metadata that claim more are damaged."""
LARGEST_CHUNK = 1 << 31
"""Bytes of a chunk, which is decoded in one piece."""
MOST_CHUNKS = 1 << 24
"""Chunks of a shard, of which the index is read in one piece."""
UNREADABLE = "what describes it is damaged, or of a kind that zarr-python does not read"


@dataclass(frozen=True)
class ArraySpec:
    """The form of an array that is to be created; unwritten voxels are 0.

    Attributes
    ----------
    chunk : the stored, compressed unit.
    shard : the written unit, whole chunks.
    compression : of the chunks, see `volseg.storage.chunks`.
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
class StoredArray(ArrayForm):
    """An array that is read and written. Holds no open file, so it travels to any worker."""

    @property
    def zarr(self) -> zarr.Array[Any]:
        """The same array as zarr-python has it, to read, with all of its axes."""
        return _opened(self.path, find_stamp(self.path))[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a box, given as up to three slices."""
        box = _box(key, self.shape)
        try:
            if self.compression is not None:
                return read_box(self, box)
            read = np.asarray(self.zarr[(0,) * self.leading + box])
        except Exception as error:
            why = reason(self.path, error)
            raise StorageError(f"cannot read {self.path} at {describe(box)}: {why}") from error
        return read.astype(self.dtype, copy=False)

    def write(self, roi: Roi, block: NDArray[Any]) -> None:
        """Write whole shards, or up to the array's end, durably.

        Raises
        ------
        ShapeError
            If the block's shape is not the box's, or it holds only a part of a shard: who writes
            the other part would lose one of both.
        """
        box = _box(roi, self.shape)
        if tuple(s.stop - s.start for s in box) != block.shape:
            raise ShapeError(f"a block of shape {block.shape} does not fit {describe(box)}")
        whole = zip(box, self.shard, self.shape, strict=True)
        if any(s.start % n or (s.stop % n and s.stop != end) for s, n, end in whole):
            raise ShapeError(
                f"{describe(box)} of {self.path} is not whole shards of {self.shard}: each shard "
                f"has one writer"
            )
        if self.compression is None:
            raise StorageError(f"{self.path} is of a form that volseg reads only")
        try:
            write_box(self, box, block)
        except (OSError, VolsegError) as error:
            why = reason(self.path, error)
            raise StorageError(f"cannot write {self.path} at {describe(box)}: {why}") from error


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
    return ArraySpec(shape, dtype, chunk, zyx(fitted))


def create_array(path: Path, spec: ArraySpec) -> StoredArray:
    """Create an empty Zarr v3 array: sharded, compressed, a checksum for every chunk."""
    if as_remote(path) is not None and path.exists():
        raise ConflictError(f"{path} exists already")
    make_folder(path, new=True)
    dtype = np.dtype(spec.dtype)
    described = describe_array(
        shape=spec.shape,
        dtype=dtype,
        chunks=spec.chunk,
        shards=spec.shard,
        compressors=codecs_of(spec.compression, dtype.itemsize),
        filters=(),
        fill_value=0,
        dimension_names=("z", "y", "x"),
    )
    write_file(path / "zarr.json", described)
    _opened.cache_clear()  # another may have stood there before, which on object storage none tells
    return StoredArray(path, spec.shape, dtype, spec.chunk, spec.shard, 0, spec.compression)


def open_array(path: Path) -> StoredArray:
    """Open a Zarr v2 or v3 array of three axes, after any leading axes of length one."""
    store, compression = open_axes(path)
    dtype, shape = _seen_as(store.dtype), store.shape
    chunk, shard = store.chunks, store.shards or store.chunks
    leading = len(shape) - 3
    if leading < 0 or any(n != 1 for n in shape[:leading]):
        raise VolumeError(
            f"{path} has the shape {shape}; expected three axes (z, y, x), after any axes of "
            f"length one; `volseg convert SOURCE VOLUME` makes a volume of one channel and one time"
        )
    return StoredArray(
        path,
        zyx(shape[leading:]),
        dtype,
        zyx(chunk[leading:]),
        zyx(shard[leading:]),
        leading,
        None if leading else compression,
    )


def open_axes(path: Path) -> tuple[zarr.Array[Any], str | None]:
    """Open an array of any axes, to read, and name the compression of volseg's own."""
    try:
        store, compression = _opened(path, find_stamp(path))
        dtype, shape = _seen_as(store.dtype), store.shape
        chunk, shard = store.chunks, store.shards or store.chunks
    except FileNotFoundError:
        raise VolumeError(f"there is no Zarr array at {path}") from None
    except Exception as error:
        why = reason(path, error, UNREADABLE)
        raise VolumeError(f"{path} is not a Zarr array that can be read: {why}") from error
    if dtype.kind not in "uif":
        raise VolumeError(f"{path} holds {dtype}; expected numbers")
    if math.prod(shape) == 0:
        raise VolumeError(f"{path} is empty: its shape is {shape}")
    _check_claims(path, shape, chunk, shard, dtype.itemsize)
    if isinstance(store.store, HeldZipStore):
        store.store.most = 2 * math.prod(shard) * dtype.itemsize + HeldZipStore.most
        compression = None  # a shard is a file, and there is none
    return store, compression


def _seen_as(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Choose the type in this machine's order; masks of type bool are 0 and 1."""
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def _check_claims(
    path: Path, shape: Sequence[int], chunk: Sequence[int], shard: Sequence[int], itemsize: int
) -> None:
    """Refuse sizes that no volume has, before anything of such a size is made."""
    stored = math.prod(chunk) * itemsize
    chunks = math.prod(shard) // max(math.prod(chunk), 1)
    if max(shape) > LONGEST_AXIS or not 0 < stored <= LARGEST_CHUNK or chunks > MOST_CHUNKS:
        raise VolumeError(
            f"{path} claims the shape {tuple(shape)} in chunks of {tuple(chunk)}, {chunks} to a "
            f"file; expected at most {LONGEST_AXIS} voxels along an axis, {LARGEST_CHUNK} bytes in "
            f"a chunk and {MOST_CHUNKS} chunks in a file: its metadata are damaged, or it was not "
            f"made for this"
        )


def _box(key: Any, shape: Zyx) -> Roi:
    slices = key if isinstance(key, tuple) else (key,)
    full = [*slices, *[slice(None)] * (3 - len(slices))]
    if len(full) > 3 or any(not isinstance(s, slice) or s.step not in (None, 1) for s in full):
        raise ShapeError(f"a box is up to three slices without steps, found {key}")
    return zyx(slice(*s.indices(n)[:2]) for s, n in zip(full, shape, strict=True))


@lru_cache(maxsize=64)
def _opened(path: Path, _: Any) -> tuple[zarr.Array[Any], str | None]:
    """Open once per process and stamp, held to what its chunks can hold; name our compression."""
    metadata = read_array_metadata(path)
    if metadata is None:
        raise FileNotFoundError(f"there is no Zarr array at {path}")
    check_codecs(metadata)
    found = zarr.AsyncArray.from_dict(open_store(path), metadata)
    return zarr.Array(hold_codecs(found)), find_compression(found.metadata)


if hasattr(os, "register_at_fork"):
    # of an open file the position is shared with a child
    os.register_at_fork(after_in_child=_opened.cache_clear)
