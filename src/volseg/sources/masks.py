"""Masks: labels of any origin and size that say where in a volume something is looked for."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from functools import cached_property
from os import PathLike

import numpy as np

from volseg.errors import VolumeError
from volseg.geometry.grid import Grid
from volseg.sources.greys import refuse_greys
from volseg.sources.labels import LabelSource, find_labels
from volseg.storage.remote import as_remote
from volseg.storage.volumes import Image
from volseg.types import Mask, Roi, Zyx, extent, zyx

SLAB = 1 << 24
"""Voxels of a mask that are looked at together, to tell it from others."""


@dataclass(frozen=True)
class MaskSource:
    """A mask over a volume, read box by box.

    Attributes
    ----------
    name : of the labels in the volume, or their path.
    labels : whose voxels above 0 are in it.
    shape : of the volume.
    scale : voxels of the volume per voxel of the labels, (z, y, x).
    """

    name: str
    labels: LabelSource
    shape: Zyx
    scale: tuple[float, float, float]

    def __getitem__(self, box: Roi) -> Mask:
        """Read a box of the volume: each voxel is as the one of the mask that holds its middle."""
        indices = [
            np.minimum((np.arange(s.start, s.stop) + 0.5) / scale, n - 1).astype(np.int64)
            for s, scale, n in zip(box, self.scale, self.labels.shape, strict=True)
        ]
        z, y, x = (slice(int(i[0]), int(i[-1]) + 1) for i in indices)
        inside = self.labels[z, y, x] > 0
        return np.asarray(inside[np.ix_(*(i - i[0] for i in indices))])

    @cached_property
    def fingerprint(self) -> str:
        """Tell this mask from others, by all its voxels."""
        shape = self.labels.shape
        rows = max(SLAB // (shape[1] * shape[2]) // self.labels.block[0], 1) * self.labels.block[0]
        told, inside = hashlib.blake2b(digest_size=16), 0
        for block in Grid(shape, (min(rows, shape[0]), shape[1], shape[2])).blocks():
            mask = self.labels[block.core] > 0
            inside += int(np.count_nonzero(mask))
            for plane in mask:
                told.update(zlib.crc32(np.packbits(plane).data).to_bytes(4, "little"))
        if not inside:
            raise VolumeError(
                f"{self.labels.path} is 0 everywhere; a mask is above 0 where to look"
            )
        return told.hexdigest()


def open_mask(image: Image, labels: str | PathLike[str]) -> MaskSource:
    """Open labels as a mask of a volume; coarser ones are scaled.

    Parameters
    ----------
    labels : a name in the volume, or a path
    """
    found = refuse_greys(find_labels(image, str(labels)))
    shape = image.levels[0].shape
    scale = [n / m for n, m in zip(shape, found.shape, strict=True)]
    ours, theirs = image.voxel_size, found.voxel_size
    if ours is not None and theirs is not None:
        scale = [m / v for m, v in zip(theirs, ours, strict=True)]
    else:
        # levels of a pyramid hold an incomplete voxel at the far border
        scale = [
            float(-(-n // m)) if -(-n // -(-n // m)) == m else s
            for n, m, s in zip(shape, found.shape, scale, strict=True)
        ]
    off = [abs(m * s - n) > max(s, 1) for n, m, s in zip(shape, found.shape, scale, strict=True)]
    if any(off):
        known = " by the voxel sizes of both" if ours is not None and theirs is not None else ""
        raise VolumeError(
            f"{found.path} measures {extent(found.shape)} voxels, {image.path} {extent(shape)}, "
            f"{' x '.join(f'{s:g}' for s in scale)} to one of the mask{known}: a mask covers the "
            f"whole volume"
        )
    # commands that are given elsewhere find it again by its whole path
    inside = found.path.parent == image.path / "labels" or as_remote(found.path) is not None
    name = str(labels) if inside else str(found.path.absolute())
    return MaskSource(name, found, shape, zyx(scale))
