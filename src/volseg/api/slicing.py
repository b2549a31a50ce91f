"""Index arrays in storage as NumPy does; turn them into Dask arrays."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.types import extent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

    from volseg.storage.arrays import StoredArray
    from volseg.storage.volumes import Image
    from volseg.types import VoxelSize, Zyx


@dataclass(frozen=True)
class Sliced:
    """An array in storage with NumPy's indices; small, for it travels with every Dask task."""

    stored: StoredArray

    @property
    def shape(self) -> Zyx:
        """Voxels along (z, y, x)."""
        return self.stored.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""
        return self.stored.dtype

    @property
    def ndim(self) -> int:
        """Number of axes: three."""
        return 3

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read voxels: integers, slices with any step, and an ellipsis, as NumPy takes them.

        Raises
        ------
        IndexError
            If the key is anything else, or outside the array.
        StorageError
            If a chunk is damaged or cannot be read.
        """
        import numpy as np

        picks = [_pick(k, n) for k, n in zip(expand_key(key), self.shape, strict=True)]
        box, within = zip(*picks, strict=True)
        if any(side.start == side.stop for side in box):
            empty: NDArray[Any] = np.empty([s.stop - s.start for s in box], self.dtype)[within]
            return empty
        read: NDArray[Any] = self.stored[box][within]
        return read


@dataclass(frozen=True)
class ImageArray(Sliced):
    """One level of an image of a volume, read from storage where it is sliced.

    Attributes
    ----------
    image : Image
        Metadata of the image, all levels.
    level : int
        Level of the pyramid, 0 the finest.
    """

    image: Image
    level: int

    @property
    def path(self) -> Path:
        """The folder of the array."""
        return self.stored.path

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels in memory."""
        return self.size * self.dtype.itemsize

    @property
    def chunks(self) -> Zyx:
        """The unit that is read, (z, y, x)."""
        return self.stored.chunk

    @property
    def shards(self) -> Zyx:
        """The unit that is written, (z, y, x)."""
        return self.stored.shard

    @property
    def voxel_size(self) -> VoxelSize | None:
        """Size of a voxel of this level in nm, (z, y, x); None if unknown."""
        size = self.image.voxel_size
        if size is None:
            return None
        factor = self.image.factors[self.level]
        return size[0] * factor[0], size[1] * factor[1], size[2] * factor[2]

    @property
    def levels(self) -> tuple[ImageArray, ...]:
        """All levels of the pyramid, finest first."""
        return tuple(level_of(self.image, k) for k in range(len(self.image.levels)))

    @property
    def attributes(self) -> dict[str, Any]:
        """Provenance: model, parameters, version, fingerprint."""
        return dict(self.image.attributes)

    @property
    def dask(self) -> Any:
        """A `dask.array.Array` of this level, in chunks of whole shards; nothing is read yet."""
        import numpy as np
        from dask.array import from_array

        meta = np.empty((0, 0, 0), self.dtype)
        return from_array(Sliced(self.stored), chunks=self.shards, lock=False, meta=meta)

    def __array__(self, dtype: DTypeLike | None = None, *, copy: bool | None = None) -> Any:
        """Read everything."""
        if copy is False:
            raise ValueError("voxels in storage become an array by a copy only")
        return self[...] if dtype is None else self[...].astype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{describe(self)}, {len(self.image.levels)} levels, at {self.path}>"


def level_of(image: Image, level: int = 0) -> ImageArray:
    """See one level of an image as an array."""
    return ImageArray(image.levels[level], image, level)


def expand_key(key: Any) -> tuple[Any, ...]:
    """Complete an index to one entry per axis.

    Raises
    ------
    IndexError
        If it has too many.

    Examples
    --------
    >>> expand_key((4, ..., 3))
    (4, slice(None, None, None), 3)
    """
    parts = key if isinstance(key, tuple) else (key,)
    at = next((k for k, part in enumerate(parts) if part is Ellipsis), len(parts))
    before, after = parts[:at], parts[at + 1 :]
    if len(before) + len(after) > 3:
        raise IndexError(f"an index of three axes (z, y, x), found {len(parts)} entries: {key!r}")
    return (*before, *(slice(None),) * (3 - len(before) - len(after)), *after)


def _pick(part: Any, length: int) -> tuple[slice, Any]:
    """Split an index along one axis into a box to read, and an index within it."""
    if isinstance(part, slice):
        start, stop, step = part.indices(length)
        chosen = range(start, stop, step)
        if not chosen:
            return slice(0, 0), slice(None)
        low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1])
        return slice(low, high + 1), slice(None, None, step)
    refused = IndexError(
        f"an index is made of integers, slices and ..., found {part!r}; read a box, and index the "
        f"array that it gives"
    )
    if isinstance(part, bool):  # to NumPy a mask
        raise refused
    try:
        number = operator.index(part)
    except TypeError:
        raise refused from None
    if not -length <= number < length:
        raise IndexError(f"index {number} is outside an axis of {length} voxels")
    number %= length
    return slice(number, number + 1), 0


def describe(array: ImageArray) -> str:
    """Write shape, type and voxel size."""
    size = array.voxel_size
    unit = "of unknown size" if size is None else f"of {extent(size)} nm"
    return f"{extent(array.shape)} {array.dtype}, voxels {unit}"
