"""Open training images: volumes, or stacks that are read into memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volseg.defaults import NAME
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Progress
from volseg.errors import ParameterError, ShapeError
from volseg.geometry.grid import full_roi
from volseg.models.maps import CENTERLINE
from volseg.models.registry import find_architecture
from volseg.sources.greys import refuse_greys
from volseg.sources.labels import TIFF_SLAB, LabelSource, find_labels, open_label_path
from volseg.sources.open import open_stack
from volseg.sources.stack import WHOLE, Selection, check_finite, choosing_elsewhere
from volseg.sources.voxel_size import settle_voxel_size
from volseg.stages.survey.intensities import with_survey
from volseg.stages.survey.notes import describe_background, describe_histogram
from volseg.stages.train.regions import Pair
from volseg.storage.images import as_images, sizes_of
from volseg.storage.locations import parse_path
from volseg.storage.stores import is_zarr
from volseg.storage.volumes import Image, open_image, volume_tone
from volseg.training.annotation import Annotation, add_centres, parse_class
from volseg.training.config import TrainConfig
from volseg.training.sampling import Source
from volseg.training.targets import Targets
from volseg.types import Readable, Roi, VoxelSize, Zyx
from volseg.voxels.apart import Apart
from volseg.voxels.background import count_constant
from volseg.voxels.blend import reflected
from volseg.voxels.histogram import count_intensities
from volseg.voxels.intensity import Preprocessing, Tone

Sizes: TypeAlias = tuple[tuple[int, int], ...]
"""(y, x) of images that are smaller than their slices; empty where none is."""


@dataclass(frozen=True)
class Annotated:
    """Images and labels of one pair, open.

    Attributes
    ----------
    region : what the labels cover.
    voxel_size : nm (z, y, x), or None if unknown.
    names : of the raw and of the labels, without the folders they are in.
    classes : labels of each class of a network of several maps.
    named : whether some are files, of which the user may name the axes.
    """

    pair: Pair
    raw: Readable
    labels: Readable
    region: Roi
    shape: Zyx
    voxel_size: VoxelSize | None
    fingerprint: str | None
    names: tuple[str, str]
    image: Image
    notes: tuple[str, ...] = ()
    classes: tuple[Annotation, ...] = ()
    named: bool = False

    def tone(self, preprocessing: Preprocessing) -> Tone:
        """Fit a preprocessing to these images."""
        return volume_tone(self.image, preprocessing)

    def apart(self, preprocessing: Preprocessing) -> Apart | None:
        """Fit a preprocessing to each slice, where it asks for that."""
        if not preprocessing.apart:
            return None
        raw: Readable = self.raw
        sizes: Sizes = ()
        if isinstance(self.raw, Mirrored):
            raw, sizes = self.raw.images, self.raw.sizes
        tone, images = self.tone(preprocessing), self.pair.images
        return Apart(preprocessing, raw, self.raw, tone, False, images, sizes, self.fingerprint)

    def targets(
        self, config: TrainConfig, sides: VoxelSize, unit: float, *, flat: bool
    ) -> Targets | None:
        """Return what labels say of each map, if there are several; see `Targets`."""
        if not self.classes:
            return None
        maps = tuple(m for m in config.maps if m.kind != CENTERLINE)
        reaches = config.contour_width, config.distance_reach, config.offset_reach
        return Targets(self.classes, maps, sides, unit, *reaches, flat=flat)

    def counted(self, progress: Progress) -> Annotated:
        """Find background, and count intensities, unless that is known; volumes are only read."""
        image = with_survey(self.image, EngineOptions(), progress)
        return replace(self, image=image, fingerprint=image.attributes.get("fingerprint"))


def open_pair(
    pair: Pair, voxel_size: VoxelSize | None = None, config: TrainConfig | None = None
) -> Annotated:
    """Open images and their labels; stacks are read into memory."""
    told: tuple[str, ...] = ()
    if _is_volume(pair.raw):
        image = open_image(pair.raw)
        raw: Readable = image.levels[0]
        shape, sizes = image.levels[0].shape, sizes_of(image)
    else:
        raw, image, told, sizes = _read_stack(pair, voxel_size)
        z, y, x = raw.shape
        shape = z, y, x
    classes = open_classes(pair, image, config) if config is not None and config.maps else []
    opened = [source for source, _ in classes]
    opened = opened or [refuse_greys(_open_labels(pair, image, pair.labels))]
    found = opened[0]
    for each in opened:
        if each.shape != shape or each.region != found.region:
            raise ShapeError(
                f"labels must have the shape of the volume, and hold one region: {each.path} has "
                f"{each.shape}, {pair.raw} has {shape}"
            )
    labels: Readable = found if classes or found.array is not None else _in_memory(found)
    annotations = [annotation for _, annotation in classes]
    if config is not None:
        flat = find_architecture(config.architecture).dimensions == 2
        annotations = add_centres(annotations, config.maps, flat=flat)
    if sizes:  # what is beyond an image is its reflection
        raw, labels = Mirrored(raw, sizes), Mirrored(labels, sizes)
        annotations = [replace(a, labels=Mirrored(a.labels, sizes)) for a in annotations]
    return Annotated(
        replace(pair, images=pair.images or image.space.planar),
        raw,
        labels,
        found.region,
        shape,
        voxel_size or image.voxel_size or found.voxel_size,
        image.attributes.get("fingerprint"),
        (pair.raw.name, ", ".join(dict.fromkeys(each.path.name for each in opened))),
        image,
        (*told, *found.describe_other_size(pair.raw, voxel_size or image.voxel_size)),
        tuple(annotations),
        not _is_volume(pair.raw) or any(each.axes for each in opened),
    )


def check_named(opened: Sequence[Annotated]) -> None:
    """Refuse names of axes where all that is trained on is Zarr, which names its own."""
    axes = {each.pair.axes for each in opened} - {None}
    if axes and not any(each.named for each in opened):
        raise ParameterError(
            f"--axes {', '.join(map(str, axes))} names those of files, and all images and labels "
            f"are Zarr, which names its own"
        )


def folder_of_classes(pair: Pair) -> Path | None:
    """Find the folder in which labels of each class lie; None where they name their own place."""
    folder = Path(pair.labels) if pair.labels else None
    return folder if folder is not None and folder.is_dir() and not is_zarr(folder) else None


def open_classes(
    pair: Pair, image: Image, config: TrainConfig
) -> list[tuple[LabelSource, Annotation]]:
    """Open the labels of each class: a value of the pair's labels, or labels of its own.

    Labels of a class lie in the folder that the pair's labels are, if they are one.
    """
    if config.classes and pair.foreground is not None:
        raise ParameterError(
            f"foreground {pair.foreground} and classes both say what labels mean; give one of them"
        )
    folder = folder_of_classes(pair)
    opened: dict[str, tuple[LabelSource, Readable]] = {}
    found = []
    for text in config.classes or (NAME,):
        name, value, place = parse_class(text)
        where = pair.labels if place is None else str(folder / place) if folder else place
        shared = place is None and value is None and len(config.classes) > 1
        if not where or shared or (folder is not None and place is None):
            raise ParameterError(
                f"the class {name} has no labels: give its value in --labels, or its own labels, "
                f"as in --classes {name}={name}.tif"
            )
        if where not in opened:
            source = _open_labels(pair, image, where)
            source = source if value is not None else refuse_greys(source)
            held = source if source.array is not None else _whole(source)
            opened[where] = source, held
        found.append((opened[where][0], Annotation(opened[where][1], value, config.ignore)))
    return found


def _open_labels(pair: Pair, image: Image, where: str) -> LabelSource:
    found = (
        find_labels(as_images(image, asked=pair.images), where, axes=pair.axes)
        if _is_volume(pair.raw)
        else open_label_path(parse_path(where), images=pair.images, axes=pair.axes)
    )
    return found.with_foreground(pair.foreground)


def _whole(labels: LabelSource) -> NDArray[Any]:
    """Read labels of a file: compressed pages give no random access."""
    return np.asarray(labels[full_roi(labels.shape)])


def _is_volume(path: Path) -> bool:
    """Tell a Zarr volume from a stack of images; a missing path counts as a volume."""
    return not path.exists() or is_zarr(path)


@dataclass(frozen=True, eq=False)
class Mirrored:
    """Images of several sizes, each reflected at its borders to fill its slice."""

    images: Readable
    sizes: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.images.shape

    def __getitem__(self, box: Roi) -> NDArray[Any]:
        """Read a box."""
        z, y, x = (slice(*s.indices(n)[:2]) for s, n in zip(box, self.shape, strict=True))
        planes = []
        for k in range(z.start, z.stop):
            height, width = self.sizes[k]
            whole = np.asarray(self.images[(slice(k, k + 1), slice(0, height), slice(0, width))])
            rows, columns = reflected(y.start, y.stop, height), reflected(x.start, x.stop, width)
            planes.append(whole[0][np.ix_(rows, columns)])
        return np.stack(planes)


def within_images(source: Source) -> Source:
    """Take what images of several sizes show beyond themselves for not annotated, to score it."""
    raw = source.raw
    return replace(source, ends=np.array(raw.sizes)) if isinstance(raw, Mirrored) else source


def _read_stack(
    pair: Pair, voxel_size: VoxelSize | None
) -> tuple[NDArray[Any], Image, tuple[str, ...], Sizes]:
    """Read a stack into memory, and note what is noted of a volume: histogram and background."""
    selection = Selection(fit="pad", grey=True, images=True) if pair.images else WHOLE
    with choosing_elsewhere():
        return _read_selected(pair, voxel_size, replace(selection, axes=pair.axes))


def _read_selected(
    pair: Pair, voxel_size: VoxelSize | None, selection: Selection
) -> tuple[NDArray[Any], Image, tuple[str, ...], Sizes]:
    stack = open_stack(pair.raw, selection)
    try:
        size, _, told = settle_voxel_size(stack.stated, voxel_size)
        raw, areas = np.empty(stack.shape, stack.dtype), Counter[float]()
        for z in range(stack.shape[0]):
            stack.read_page(z, raw[z])
            check_finite(stack, z, raw[z])
            areas.update(count_constant(raw[z]))
    finally:
        stack.close()
    counts, values = count_intensities(raw)
    noted = {
        "histogram": describe_histogram(counts, values),
        "survey": {"background": describe_background(areas, counts, values, raw.dtype)},
        "fingerprint": hashlib.sha256(raw.tobytes()).hexdigest(),
    }
    found = Image(pair.raw, (), (), size, noted)
    return raw, found, (*stack.warnings, *told), stack.sizes


def _in_memory(labels: LabelSource) -> NDArray[np.uint8]:
    """Read a label TIFF as a mask: compressed pages give no random access."""
    mask = np.empty(labels.shape, np.uint8)
    _, y, x = full_roi(labels.shape)
    for first in range(0, labels.shape[0], TIFF_SLAB):
        z = slice(first, min(first + TIFF_SLAB, labels.shape[0]))
        mask[z] = labels[(z, y, x)] > 0
    return mask
