"""Plan an evaluation: open both labellings, check that they fit, and choose the region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from volseg.defaults import IOU, NAME
from volseg.engine.options import EngineOptions
from volseg.errors import ParameterError, ShapeError, VolumeError
from volseg.geometry.grid import Grid, describe, full_roi, gather_chunks, intersect, parse_roi
from volseg.sources.greys import refuse_greys
from volseg.sources.labels import LabelSource, check_axes, find_labels, open_label_path, open_labels
from volseg.storage.arrays import StoredArray
from volseg.storage.images import as_images, images_in, names_of, sizes_of
from volseg.storage.predictions import find_probabilities
from volseg.storage.volumes import Image, open_image, scratch_path
from volseg.types import Roi, VoxelSize, Zyx

BLOCK_VOXELS = 1 << 23


@dataclass(frozen=True)
class EvaluateOptions:
    """Prediction and truth to compare, and how; see `volseg.api.judging.EvaluateKeywords`.

    ``min_size`` holds within what is evaluated, and for the scores of objects alone.
    """

    truth: str
    name: str = NAME
    labels: Path | None = None
    roi: str | None = None
    mask: str | None = None
    iou: float = IOU
    min_size: int | None = None
    tolerance: float | None = None
    ignore_border: bool = False
    instances: bool = False
    images: bool = False
    foreground: int | None = None
    axes: str | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1:
            raise ParameterError(f"an IoU threshold is above 0 and up to 1, found {self.iou}")
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise ParameterError(f"a tolerance is at least 0, found {self.tolerance}")
        if self.min_size is not None and self.min_size < 0:
            raise ParameterError(f"min_size must not be negative, found {self.min_size}")


@dataclass(frozen=True)
class Part:
    """An image of several: its name, and its (y, x)."""

    name: str
    size: tuple[int, int]


@dataclass(frozen=True)
class EvaluatePlan:
    """An evaluation: the labellings to compare, opened and checked, and the rules.

    Attributes
    ----------
    counted : only voxels above 0 in it count.
    images : which slices are unrelated images; None for a volume.
    """

    volume: Path
    options: EvaluateOptions
    truth: LabelSource
    predicted: LabelSource
    counted: LabelSource | None
    probabilities: StoredArray | None
    grid: Grid
    region: Roi
    voxel_size: VoxelSize | None
    min_size: int
    scratch: Path
    notes: tuple[str, ...]
    images: tuple[Part, ...] | None = None


def plan_evaluation(volume: Path, options: EvaluateOptions) -> EvaluatePlan:
    """Open both labellings and check that they fit; read metadata only."""
    notes: list[str] = []
    image = as_images(open_image(volume), asked=options.images)
    shape, own = image.levels[0].shape, options.labels is None
    predicted = (
        open_labels(volume, options.name, files=True)
        if options.labels is None
        else refuse_greys(
            open_label_path(options.labels, images=image.space.planar, axes=options.axes)
        )
    )
    find = partial(find_labels, image, axes=options.axes)
    truth = refuse_greys(find(options.truth).with_foreground(options.foreground))
    if truth.path.resolve() == predicted.path.resolve():
        notes.append(f"{truth.path} is compared with itself, so scores say nothing of a result")
    counted = None if options.mask is None else refuse_greys(find(options.mask))
    if image.space.planar:
        sizes = sizes_of(image)
        predicted, truth = predicted.as_images(sizes), truth.as_images(sizes)
    sources = [s for s in (predicted, truth, counted) if s is not None]
    check_axes(options.axes, sources)
    for source in sources:
        if source.shape != shape:
            raise ShapeError(
                f"{source.path} has the shape {source.shape}, {volume} {shape}; what is compared "
                f"must have the volume's own size"
            )
        notes += source.describe_other_size(volume, image.voxel_size)
    return EvaluatePlan(
        volume=volume,
        options=options,
        truth=truth,
        predicted=predicted,
        counted=counted,
        region=_choose_region(options.roi, truth, predicted, notes),
        probabilities=_open_probabilities(volume, options.name, shape, notes) if own else None,
        grid=Grid(shape, _block_size(sources, shape)),
        voxel_size=image.voxel_size or truth.voxel_size,
        min_size=_choose_min_size(options.min_size, predicted, notes),
        scratch=scratch_path(volume),
        notes=tuple(notes),
        images=_images(image) if image.space.planar else None,
    )


def _images(image: Image) -> tuple[Part, ...]:
    """Name the unrelated images that slices are, and say how much of them each is."""
    sizes = images_in(image) or ()
    names = names_of(image) or map(str, range(len(sizes)))
    return tuple(Part(name, size) for name, size in zip(names, sizes, strict=True))


def _choose_min_size(asked: int | None, predicted: LabelSource, notes: list[str]) -> int:
    """Hold both sides to the size below which objects of one side were dropped."""
    if asked is not None:
        return asked
    if predicted.min_size > 1:
        notes.append(
            f"{predicted.path} was made without objects of fewer than {predicted.min_size} voxels, "
            f"so smaller ones do not count on either side; --min-size 0 counts all"
        )
    return predicted.min_size


def _choose_region(
    roi: str | None, truth: LabelSource, predicted: LabelSource, notes: list[str]
) -> Roi:
    """Find the region that both sides cover."""
    asked = parse_roi(roi, truth.shape) if roi else full_roi(truth.shape)
    both = intersect(truth.region, predicted.region)
    found = both and intersect(asked, both)
    if found is None:
        raise ParameterError(
            f"{describe(asked)} holds nothing to compare: {predicted.path} is about "
            f"{describe(predicted.region)}, {truth.path} about {describe(truth.region)}"
        )
    if found != asked:
        notes.append(f"only {describe(found)} was segmented, so only that is compared")
    return found


def _open_probabilities(
    volume: Path, name: str, shape: Zyx, notes: list[str]
) -> StoredArray | None:
    try:
        image = find_probabilities(volume, name, shape)
    except VolumeError as error:
        notes.append(f"no curves: {error}")
        return None
    return None if image is None else image.levels[0]


def _block_size(sources: Sequence[LabelSource], shape: Zyx) -> Zyx:
    """Choose blocks that are cheap to read: whole pages of TIFF, else many whole shards."""
    if any(s.array is None for s in sources):
        page = shape[1] * shape[2]
        return max(1, min(BLOCK_VOXELS // page, shape[0])), shape[1], shape[2]
    return gather_chunks(sources[0].block, shape, BLOCK_VOXELS)  # runs are longest along x
