"""Find what a network is trained on: a volume, its labels, and which regions serve for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volseg.blocks import intersect, parse_roi, roi_shape
from volseg.errors import ParameterError, ShapeError, VoxelSizeError
from volseg.io.arrays import describe
from volseg.io.label_sources import TIFF_SLAB, LabelSource, open_label_path, open_labels
from volseg.io.volumes import Image, intensity_window, labels_path, open_image
from volseg.training.sampling import Readable, Source, find_foreground
from volseg.types import Roi, VoxelSize, Zyx

PERCENTILES = (1.0, 99.0)
"""Of the whole volume's intensities, which become -1 and 1."""
ISOTROPIC = 1.2
"""Voxels whose sides differ by less than this factor are rotated in all directions."""
VALIDATION_PART = 5
"""Without another wish, the last slices serve for validation: one in so many."""


@dataclass(frozen=True)
class Regions:
    """The boxes that are trained on, and the one that is held out."""

    training: tuple[Roi, ...]
    validation: Roi


@dataclass(frozen=True)
class TrainingData:
    """What a run learns from.

    Attributes
    ----------
    training, validation : annotated boxes.
    voxel_size : nm (z, y, x).
    description : everything about the data that decides the result, JSON-like.
    """

    training: tuple[Source, ...]
    validation: tuple[Source, ...]
    voxel_size: VoxelSize
    description: dict[str, Any]


def open_training_data(
    volume: Path, labels: str, roi: str | None = None, validation: str | None = None
) -> TrainingData:
    """Open a volume and its labels; read the labels once, to find the foreground.

    Parameters
    ----------
    volume : Path
    labels : str
        Name of labels in the volume, or a path to a Zarr array or image or a label TIFF; what is
        above 0 is foreground.
    roi, validation : ``z0:z1,y0:y1,x0:x1``, optional

    Raises
    ------
    InputError
        If they cannot be read, do not fit each other, hold no foreground where they are needed, or
        if the voxel size is unknown.
    """
    image = open_image(volume)
    found = find_labels(volume, labels)
    shape = image.levels[0].shape
    if found.shape != shape:
        raise ShapeError(
            f"labels must have the shape of the volume: {found.path} has {found.shape}, {volume} "
            f"has {shape}"
        )
    size = image.voxel_size or found.voxel_size
    if size is None:
        raise VoxelSizeError(
            f"the voxel size of {volume} is unknown, and a network is of use only at the size it "
            f"was trained at; convert the source again with --voxel-size Z,Y,X in nm"
        )
    window = intensity_window(image, *PERCENTILES)
    regions = choose_regions(found.region, shape, roi, validation)
    readable = _in_memory(found) if found.array is None else found
    isotropic = max(size) / min(size) < ISOTROPIC
    boxes = (*regions.training, regions.validation)
    sources, counts = [], []
    for box in boxes:
        positions, count = find_foreground(readable, box)
        sources.append(Source(image.levels[0], readable, box, window, positions, isotropic))
        counts.append(count)
    description = _describe(image, found, regions, counts)
    description |= {"voxel_size": list(size), "window": list(window)}
    _check_foreground(regions, counts, found)
    return TrainingData(tuple(sources[:-1]), (sources[-1],), size, description)


def find_labels(volume: Path, labels: str) -> LabelSource:
    """Open labels by their name in a volume or, where there are none of that name, by path.

    Raises
    ------
    InputError
        If there are none, or they cannot be used.
    """
    named = labels_path(volume, labels) if Path(labels).name == labels else None
    if named is not None and (named.exists() or not Path(labels).exists()):
        return open_labels(volume, labels)
    return open_label_path(Path(labels))


def choose_regions(region: Roi, shape: Zyx, roi: str | None, validation: str | None) -> Regions:
    """Decide what is trained on and what is held out.

    Parameters
    ----------
    region : Roi
        What the labels cover.
    shape : (z, y, x)
        Of the volume.
    roi : str, optional
        Trained on; otherwise all slices that hold no part of the validation.
    validation : str, optional
        Held out; otherwise the last fifth of the slices.

    Raises
    ------
    ParameterError
        If the regions overlap, leave the labels, or nothing is left to train on.

    Examples
    --------
    >>> z, yx = slice(0, 50), (slice(0, 9), slice(0, 9))
    >>> chosen = choose_regions((z, *yx), (50, 9, 9), None, None)
    >>> chosen.training[0][0], chosen.validation[0]
    (slice(0, 40, None), slice(40, 50, None))
    """
    z, y, x = region
    first = z.stop - max((z.stop - z.start) // VALIDATION_PART, 1)
    held = parse_roi(validation, shape) if validation else (slice(first, z.stop), y, x)
    if roi:
        training = [parse_roi(roi, shape)]
    else:
        cuts = slice(z.start, held[0].start), slice(held[0].stop, z.stop)
        training = [(c, y, x) for c in cuts if c.stop > c.start]
    if not training:
        raise ParameterError(
            f"the validation region {describe(held)} leaves no slices to train on; give another "
            f"one, or the training region with --roi"
        )
    for box in (*training, held):
        if intersect(box, region) != box:
            raise ParameterError(
                f"the region {describe(box)} is not covered by the labels, which hold "
                f"{describe(region)}"
            )
    if any(intersect(box, held) for box in training):
        raise ParameterError(
            f"what is trained on cannot validate: --roi {describe(training[0])} overlaps "
            f"--validation {describe(held)}"
        )
    return Regions(tuple(training), held)


def _in_memory(labels: LabelSource) -> Readable:
    """Read a label TIFF as a mask: patches cannot be read from compressed pages at chance."""
    mask = np.empty(labels.shape, np.uint8)
    for first in range(0, labels.shape[0], TIFF_SLAB):
        z = slice(first, min(first + TIFF_SLAB, labels.shape[0]))
        mask[z] = labels[(z, slice(0, labels.shape[1]), slice(0, labels.shape[2]))] > 0
    return mask


def _describe(
    image: Image, labels: LabelSource, regions: Regions, counts: Sequence[int]
) -> dict[str, Any]:
    return {
        "volume": image.path.name,
        "raw": image.attributes.get("fingerprint"),
        "labels": labels.path.name,
        "foreground": list(counts),
        "training": [describe(box) for box in regions.training],
        "validation": describe(regions.validation),
    }


def _check_foreground(regions: Regions, counts: Sequence[int], labels: LabelSource) -> None:
    trained, held = sum(counts[:-1]), counts[-1]
    for count, boxes, flag in (
        (trained, regions.training, "--roi"),
        (held, (regions.validation,), "--validation"),
    ):
        if count == 0:
            where = " and ".join(f"{describe(b)} {roi_shape(b)}" for b in boxes)
            raise ParameterError(
                f"{labels.path} has no foreground (labels above 0) in {where}; choose an annotated "
                f"region with {flag}"
            )
