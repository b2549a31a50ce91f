"""Labels of any origin: in a volume, in an array, an image or a file of their own, or in slices."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError, SourceError, VolumeError, command
from volseg.geometry.grid import full_roi
from volseg.sources.formats.hdf5 import split_dataset
from volseg.sources.label_values import WHOLE_NUMBERS, as_labels
from volseg.sources.stack import WHOLE, Stack, choosing_elsewhere, read_box
from volseg.sources.stamps import find_stamp
from volseg.sources.voxel_size import AxisSizes, tell_other_size
from volseg.storage.arrays import StoredArray
from volseg.storage.attributes import listed_labels, section
from volseg.storage.images import as_images, clear_padding
from volseg.storage.locations import parse_location
from volseg.storage.remote import as_remote
from volseg.storage.stores import is_zarr
from volseg.storage.volumes import Image, check_complete, labels_path, open_image
from volseg.types import Roi, VoxelSize, Zyx

LABEL_TYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *WHOLE_NUMBERS,
)
TIFF_SLAB = 16
NUMBERS = replace(WHOLE, numbers=True)
OWN = np.uint64((1 << 32) - 1)
"""Bits of a label that are its own; those above tell in which image it lies."""
FLAT = (4, 8)
"""Connectivities that join nothing over z."""
COMPONENTS = "components of a mask"
"""Note of a table whose labels stand in no image."""


@dataclass(frozen=True)
class LabelSource:
    """Labels that can be read block by block, from any thread; holds no open file.

    Attributes
    ----------
    block : a shape that is cheap to read.
    region : what was looked at; all, where nothing else is known.
    voxel_size : nm (z, y, x), if the labels state it.
    stated : the same, where files state a part of it, too.
    apart : whether a label means another object in each slice, as in stacks of unrelated images;
        then it carries the number of its slice, see `OWN`.
    found_apart : of labels that volseg found slice by slice.
    foreground : the one value that is foreground; None where all above 0 are.
    sizes : (y, x) of the unrelated images that slices are, beyond which nothing is; or empty.
    images : whether slices may have any names and sizes, as unrelated images do.
    axes : of a file, as the user names them; None where it says so itself.
    fingerprint : of labels that volseg made.
    array : None where they are read by pages: files, and numbers of no whole type.
    min_size : voxels of the smallest object that was kept, in labels that volseg made; else 0.
    stamp : tells the files from others that stood, or will stand, at the same place.
    """

    path: Path
    shape: Zyx
    block: Zyx
    region: Roi
    voxel_size: VoxelSize | None
    fingerprint: str | None
    array: StoredArray | None
    min_size: int = 0
    stated: AxisSizes = (None, None, None)
    apart: bool = False
    found_apart: bool = False
    foreground: int | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    images: bool = False
    axes: str | None = None
    stamp: str = ""

    @property
    def identity(self) -> str:
        """Fingerprint of these labels or, without one, their place: a table is of either.

        Labels of a volume have the same place wherever it is looked at from, or moved to.
        """
        own = f"labels/{self.path.name}" if self.path.parent.name == "labels" else None
        path = str(self.path.absolute())
        return self.fingerprint or own or path.encode(errors="backslashreplace").decode()

    @property
    def is_own(self) -> bool:
        """Tell whether volseg found these objects; a converted mask has a fingerprint, too."""
        return self.fingerprint is not None and self.path.parent.name == "labels"

    def is_mask(self, labels: NDArray[Any]) -> bool:
        """Tell a mask, whose objects are its components, by the labels that were found in it.

        It has one value only, and volseg did not find it.
        """
        held = labels[labels > 0]
        return not self.is_own and len(np.unique(held & OWN if self.apart else held)) == 1

    def with_foreground(self, value: int | None) -> LabelSource:
        """Take one value as foreground, such as 0 for membranes between cells of 255."""
        if value is None:
            return self
        return replace(self, foreground=value, array=None, fingerprint=None)

    def as_images(self, sizes: tuple[tuple[int, int], ...] = ()) -> LabelSource:
        """Take labels of slices for those of unrelated images, unless volseg found them apart."""
        if self.is_own and self.found_apart:
            return self
        return replace(self, apart=True, array=None, sizes=sizes)

    def __getitem__(self, roi: Roi) -> NDArray[Any]:
        """Read a box."""
        if self.array is not None:
            return self.array[roi]
        stack = _opened(self.path, self.axes, self.stamp, images=self.images)
        found = as_labels(read_box(stack, roi), self.path)
        if self.foreground is not None:
            found = (found == self.foreground).astype(np.uint8)
            clear_padding(found, roi, self.sizes)
        return _keep_apart(found, roi[0].start, self.path) if self.apart else found

    def describe_other_size(self, volume: Path, voxel_size: VoxelSize | None) -> list[str]:
        """Say that the size of the labels' voxels is not that of the volume, if so."""
        theirs = self.voxel_size or self.stated
        return tell_other_size(self.path, theirs, volume, voxel_size)


def _keep_apart(labels: NDArray[Any], first: int, path: Path) -> NDArray[np.uint64]:
    """Give each label the number of its slice, above its own bits."""
    held = np.maximum(labels, 0).astype(np.uint64)
    if held.size and held.max() > OWN:
        raise SourceError(f"{path} holds labels above {OWN}; of images they are smaller")
    slices = np.arange(first + 1, first + 1 + len(held), dtype=np.uint64)[:, None, None]
    kept: NDArray[np.uint64] = np.where(held > 0, held | slices << np.uint64(32), held)
    return kept


def _opened(path: Path, axes: str | None, stamp: str, *, images: bool) -> Stack:
    # a volume's own labels need no reader of other formats
    from volseg.sources.open import reopen

    several = images and path.is_dir() and not is_zarr(path)
    selection = replace(NUMBERS, fit="pad", images=True) if several else NUMBERS
    return reopen(path, replace(selection, axes=axes), LABEL_TYPES, stamp)


def find_labels(image: Image, labels: str, *, axes: str | None = None) -> LabelSource:
    """Open labels by their name in a volume or, where there are none of that name, by path.

    See `open_label_path` for ``axes``.
    """
    volume, elsewhere = image.path, parse_location(labels)
    if elsewhere.name == labels and (volume / "labels" / labels).exists():
        return open_labels(volume, labels)
    if not _stands(elsewhere):
        if elsewhere.name != labels:
            raise VolumeError(f"there is nothing at {elsewhere}")
        raise VolumeError(
            f"there is nothing at {elsewhere}, and {volume} has no labels/{labels}{_listed(volume)}"
        )
    return open_label_path(elsewhere, images=image.space.planar, axes=axes)


def find_early(volume: Path, labels: str, *, images: bool = False) -> LabelSource:
    """Open labels before the volume is made that they are compared with, if need be."""
    if is_zarr(volume):
        return find_labels(as_images(open_image(volume), asked=images), labels)
    place = parse_location(labels)
    if not _stands(place):
        raise VolumeError(f"there is nothing at {place}")
    return open_label_path(place, images=images)


def open_labels(volume: Path, name: str, *, files: bool = False) -> LabelSource:
    """Open ``labels/<name>`` of a volume, for a command that takes ``--labels``, too, or none."""
    path = labels_path(volume, name)
    if not path.exists():
        open_image(volume)
        first = command("segment", volume, name=name)
        raise VolumeError(
            f"{volume} has no labels/{name}{_listed(volume)}; run `{first}` first"
            f"{', or give --labels' * files}"
        )
    return open_label_path(path)


def _stands(path: Path) -> bool:
    return split_dataset(path)[0].exists() or glob.has_magic(str(path))


def _listed(volume: Path) -> str:
    listed = listed_labels(volume)
    return f"; it has {', '.join(listed)}" if listed else ""


def open_label_path(path: Path, *, images: bool = False, axes: str | None = None) -> LabelSource:
    """Open labels of any type: Zarr array or image, TIFF, or a folder or glob of slices.

    A folder of unrelated ``images`` may hold several sizes, and names that are no sequence. The
    user's names of ``axes``, slowest first, are those of files; Zarr names its own.
    """
    if as_remote(path) is None and _stands(path) and not is_zarr(path):
        return _by_pages(path, axes, images=images)
    image = open_image(path)
    array, noted = image.levels[0], image.attributes
    if array.dtype.name in WHOLE_NUMBERS:
        return _by_pages(path, None, images=images)
    if array.dtype.kind not in "ui":
        raise VolumeError(f"{path} holds {array.dtype}; labels are whole numbers")
    check_complete(image)
    region = full_roi(array.shape)
    if "roi" in noted:
        z, y, x = (slice(int(a), int(b)) for a, b in noted["roi"])
        region = (z, y, x)
    run = section(noted, "run")
    smallest = run.get("min_size")
    return LabelSource(
        path,
        array.shape,
        array.shard,
        region,
        image.voxel_size,
        noted.get("fingerprint"),
        array,
        smallest if isinstance(smallest, int) and smallest > 0 else 0,
        found_apart=image.space.planar or run.get("connectivity") in FLAT,
        stamp=find_stamp(path),
    )


def check_axes(axes: str | None, sources: Iterable[LabelSource]) -> None:
    """Refuse names of axes where no labels are those of a file.

    Raises
    ------
    ParameterError
        If there are none.
    """
    if axes is not None and all(source.axes is None for source in sources):
        raise ParameterError(
            f"--axes {axes} names those of labels in a file, and none are: labels in Zarr name "
            f"their own"
        )


def _by_pages(path: Path, axes: str | None, *, images: bool) -> LabelSource:
    stamp = find_stamp(path)
    with choosing_elsewhere():
        stack = _opened(path, axes, stamp, images=images)
    block, region = (TIFF_SLAB, stack.shape[1], stack.shape[2]), full_roi(stack.shape)
    known = LabelSource(path, stack.shape, block, region, None, None, None, images=images)
    return replace(known, stated=stack.axis_sizes, axes=axes, stamp=stamp)
