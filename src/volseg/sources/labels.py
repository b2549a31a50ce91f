"""Labels of any origin: in a volume, in a Zarr array or image of their own, or in a label TIFF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import VolumeError, command
from volseg.geometry.grid import full_roi, roi_shape
from volseg.storage.arrays import StoredArray
from volseg.storage.attributes import listed_labels
from volseg.storage.locations import parse_location
from volseg.storage.volumes import labels_path, open_image
from volseg.types import Roi, VoxelSize, Zyx

if TYPE_CHECKING:
    from volseg.sources.stack import Stack

TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
LABEL_TYPES = ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
TIFF_SLAB = 16


@dataclass(frozen=True)
class LabelSource:
    """Labels that can be read block by block, from any thread; holds no open file.

    Attributes
    ----------
    path : of the image, array or file.
    shape : (z, y, x).
    block : a shape that is cheap to read.
    region : what was looked at; all, where nothing else is known.
    voxel_size : nm (z, y, x), if the labels state it.
    fingerprint : of labels that volseg made.
    array : None for TIFF.
    min_size : voxels of the smallest object that was kept, in labels that volseg made; else 0.
    """

    path: Path
    shape: Zyx
    block: Zyx
    region: Roi
    voxel_size: VoxelSize | None
    fingerprint: str | None
    array: StoredArray | None
    min_size: int = 0

    def __getitem__(self, roi: Roi) -> NDArray[Any]:
        """Read a box.

        Raises
        ------
        WorkError, SourceError
            If it is damaged.
        """
        if self.array is not None:
            return self.array[roi]
        stack = _opened(self.path)
        z, y, x = roi
        out = np.empty(roi_shape(roi), stack.dtype)
        page = np.empty(stack.shape[1:], stack.dtype)
        for k in range(z.start, z.stop):
            stack.read_page(k, page)
            out[k - z.start] = page[y, x]
        return out.view(np.uint8) if out.dtype == np.bool_ else out


@lru_cache(maxsize=4)
def _opened(path: Path) -> Stack:
    # a volume's own labels need no reader of other formats
    from volseg.sources.open import open_stack

    return open_stack(path, types=LABEL_TYPES)


def find_labels(volume: Path, labels: str) -> LabelSource:
    """Open labels by their name in a volume or, where there are none of that name, by path.

    Raises
    ------
    InputError
        If there are none, or they cannot be used.
    """
    elsewhere = parse_location(labels)
    if elsewhere.name == labels and (volume / "labels" / labels).exists():
        return open_labels(volume, labels)
    if not elsewhere.exists():
        if elsewhere.name != labels:
            raise VolumeError(f"there is nothing at {elsewhere}")
        open_image(volume)
        raise VolumeError(
            f"there is nothing at {elsewhere}, and {volume} has no labels/{labels}{_listed(volume)}"
        )
    return open_label_path(elsewhere)


def open_labels(volume: Path, name: str) -> LabelSource:
    """Open ``labels/<name>`` of a volume.

    Raises
    ------
    VolumeError
        If there are none of that name, or they are incomplete.
    """
    path = labels_path(volume, name)
    if not path.exists():
        open_image(volume)
        first = command("segment", volume, name=name)
        raise VolumeError(
            f"{volume} has no labels/{name}{_listed(volume)}; run `{first}` first, or give --labels"
        )
    return open_label_path(path)


def _listed(volume: Path) -> str:
    listed = listed_labels(volume)
    return f"; it has {', '.join(listed)}" if listed else ""


def open_label_path(path: Path) -> LabelSource:
    """Open a Zarr array or image of any integer type or bool, or a label TIFF.

    Raises
    ------
    VolumeError, SourceError
        If it cannot be read, holds no integers, or is incomplete.
    """
    if path.is_file() or path.suffix.lower() in TIFF_SUFFIXES:
        stack = _opened(path)
        block = (TIFF_SLAB, stack.shape[1], stack.shape[2])
        return LabelSource(path, stack.shape, block, full_roi(stack.shape), None, None, None)
    image = open_image(path)
    array, noted = image.levels[0], image.attributes
    if array.dtype.kind not in "ui":
        raise VolumeError(f"{path} holds {array.dtype}; labels are whole numbers")
    if noted.get("complete") is False:
        raise VolumeError(f"{path} is incomplete; run the command that began it again")
    region = full_roi(array.shape)
    if "roi" in noted:
        z, y, x = (slice(int(a), int(b)) for a, b in noted["roi"])
        region = (z, y, x)
    return LabelSource(
        path,
        array.shape,
        array.shard,
        region,
        image.voxel_size,
        noted.get("fingerprint"),
        array,
        _smallest(noted),
    )


def _smallest(noted: Mapping[str, Any]) -> int:
    run = noted.get("run")
    found = run.get("min_size") if isinstance(run, Mapping) else None
    return found if isinstance(found, int) and found > 0 else 0
