"""Plan the measurements of a volume: open and check the labels, and choose the sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from volseg.defaults import MEASURE, NAME, SURFACE
from volseg.engine.options import EngineOptions
from volseg.errors import ParameterError, ShapeError, VolumeError, command, require
from volseg.measures.brightness import add_brightness
from volseg.measures.object_table import (
    Column,
    ObjectSums,
    Scale,
    object_table,
)
from volseg.measures.single_object import SingleObjects, reach
from volseg.sources.greys import refuse_greys
from volseg.sources.labels import LabelSource, check_axes, open_label_path, open_labels
from volseg.stages.stats.contacts import open_other
from volseg.stages.stats.tasks import MeasureBlock, MeasureObject
from volseg.storage.arrays import StoredArray
from volseg.storage.attributes import read_histogram
from volseg.storage.images import as_images, images_in
from volseg.storage.locations import check_writable
from volseg.storage.predictions import find_probabilities
from volseg.storage.volumes import (
    Image,
    labels_path,
    open_image,
    slices_path,
    table_path,
    volume_tone,
)
from volseg.types import Roi, VoxelSize
from volseg.voxels.intensity import Preprocessing

MEASURES = ("full", "shapes", "basic")
SURFACES = ("crofton", "marching-cubes")


@dataclass(frozen=True)
class StatsOptions:
    """Options of `stats`; see `volseg.api.options.StatsKeywords`.

    Of ``full``, ``shapes`` and ``basic`` measures, each is faster than the one before.
    """

    name: str | None = None
    labels: Path | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    measure: str = MEASURE
    surface: str = SURFACE
    centerline: bool = False
    outline: bool = False
    instances: bool = False
    images: bool = False
    axes: str | None = None
    contacts: str | None = None

    def __post_init__(self) -> None:
        if self.axes is not None and self.labels is None:
            raise ParameterError("--axes names those of --labels; give both")
        for what, found, known in (
            ("measure", self.measure, MEASURES),
            ("surface", self.surface, SURFACES),
        ):
            if found not in known:
                raise ParameterError(f"{what} is one of {', '.join(known)}, found {found!r}")
        if self.measure == "basic" and self.one_by_one:
            raise ParameterError(
                "measure 'basic' has neither surfaces nor centerlines nor outlines; ask for 'full'"
            )
        if self.meshed:
            require("skimage", "measure", "marching cubes and centerlines need scikit-image")

    @property
    def meshed(self) -> bool:
        """Tell whether scikit-image is needed."""
        return self.centerline or self.surface == "marching-cubes"

    @property
    def one_by_one(self) -> bool:
        """Tell whether objects are also measured one at a time."""
        return self.meshed or self.outline


@dataclass(frozen=True)
class StatsPlan:
    """Plan of one volume's measurements: labels, sums, and paths of the tables.

    Attributes
    ----------
    single : what is measured one object at a time; None where nothing is.
    surface : how surfaces are measured; ``none`` where they are not.
    table, slices : where rows go, one per object and one per slice.
    images : (y, x) of the unrelated images that slices are; None of a volume.
    other : labels whose contacts with these are found.
    window : intensities that count as dark and bright; None where that is not known.
    """

    volume: Path
    voxel_size: VoxelSize | None
    task: MeasureBlock
    single: MeasureObject | None
    surface: str
    table: Path
    slices: Path
    engine: EngineOptions
    instances: bool
    notes: tuple[str, ...]
    images: tuple[tuple[int, int], ...] | None = None
    other: LabelSource | None = None
    window: tuple[float, float] | None = None

    def tabulate(
        self, sums: ObjectSums, singles: SingleObjects | None, region: Roi
    ) -> tuple[dict[str, Column], dict[str, str]]:
        """Make the table of objects, see `volseg.measures.object_table.object_table`."""
        scale = self.task.scale
        columns, units = object_table(sums, region, self.voxel_size, singles, scale, self.images)
        if self.window is not None:
            add_brightness(columns, units, self.window)
        return columns, units


def plan_stats(volume: Path, options: StatsOptions) -> StatsPlan:
    """Open and check the labels before any work; read metadata only."""
    image, source, name = _open_measured(volume, options)
    size = image.voxel_size or source.voxel_size
    task, notes = _choose_sums(image, source, name, options)
    asked, planar = options.contacts, image.space.planar
    if asked == name:
        raise ParameterError(f"--contacts is another result than the one that is measured, {name}")
    other = None if asked is None else open_other(volume, source, asked, planar=planar)
    notes += source.describe_other_size(volume, image.voxel_size)
    single = MeasureObject(
        source,
        size or (1.0, 1.0, 1.0),
        mesh=options.surface == "marching-cubes",
        centerline=options.centerline,
        outline=options.outline,
        raw=image.levels[0] if options.outline and options.measure == "full" else None,
        reached=reach(size),
        images=images_in(image),
    )
    return StatsPlan(
        volume=volume,
        voxel_size=size,
        task=task,
        single=single if options.one_by_one else None,
        surface=options.surface if options.measure != "basic" else "none",
        table=table_path(volume, name),
        slices=slices_path(volume, name),
        engine=options.engine,
        instances=options.instances,
        notes=tuple(notes),
        images=images_in(image),
        other=other,
        window=_find_window(image) if task.raw is not None else None,
    )


def _find_window(image: Image) -> tuple[float, float] | None:
    """Find the first and the last percentile of the tissue; unrelated images have no common one."""
    if image.space.planar or not image.attributes.get("histogram"):
        return None
    dark, bright = volume_tone(image, Preprocessing()).window
    return (dark, bright) if dark < bright else None  # of one value so large that 1 more is no more


def _open_measured(volume: Path, options: StatsOptions) -> tuple[Image, LabelSource, str]:
    """Open a volume and the labels that are to be measured in it; name the tables."""
    labels, name = options.labels, options.name
    check_writable(volume)
    image = as_images(open_image(volume), asked=options.images)
    if labels is None:
        chosen = NAME if name is None else name
        source = open_labels(volume, chosen, files=True)
    else:
        source = refuse_greys(open_label_path(labels, images=image.space.planar, axes=options.axes))
        check_axes(options.axes, [source])
        chosen = labels.stem if name is None else name
        own = labels_path(volume, chosen)
        if own.exists() and own.resolve() != source.path.resolve():
            raise ParameterError(
                f"tables/{chosen}.parquet is for the objects of {own}; give another --name for "
                f"those of {labels}"
            )
    table_path(volume, chosen)  # refuse a name that tables cannot have before measuring
    if source.shape != image.levels[0].shape:
        raise ShapeError(
            f"{source.path} has the shape {source.shape}, {volume} {image.levels[0].shape}; give "
            f"labels of the volume's own size"
        )
    return image, source.as_images() if image.space.planar else source, chosen


def _choose_sums(
    image: Image, source: LabelSource, name: str, options: StatsOptions
) -> tuple[MeasureBlock, list[str]]:
    """Choose the sums besides those of the labels; note those that are impossible."""
    if options.measure != "full":
        return MeasureBlock(source, shapes=options.measure == "shapes"), []
    notes = []
    raw: StoredArray | None = image.levels[0]
    scale = probabilities = None
    if image.levels[0].dtype.kind not in "ui" or image.levels[0].dtype.itemsize > 2:
        histogram = image.attributes.get("histogram")
        if histogram:
            _, values = read_histogram(image.path, histogram)
            scale = Scale.between(float(values.min()), float(values.max()))
        else:
            raw = None
            notes.append(
                f"{image.path} holds {image.levels[0].dtype} and no histogram, so there are no "
                f"intensity columns; `{command('convert', image.path, 'VOLUME.zarr')}` makes a "
                f"volume that has them"
            )
    try:
        found = find_probabilities(image.path, name, source.shape)
        probabilities = None if found is None else found.levels[0]
    except VolumeError as error:
        notes.append(f"no mean probabilities: {error}")
    return MeasureBlock(source, True, raw, probabilities, scale), notes


def check_one_table(sizes: Mapping[Path, VoxelSize | None]) -> None:
    """Check that columns mean the same for all volumes."""
    unknown = [str(volume) for volume, size in sizes.items() if size is None]
    if 0 < len(unknown) < len(sizes):
        raise ParameterError(
            f"one table cannot hold volumes with and without a voxel size; unknown in: "
            f"{', '.join(unknown)}; leave --output out, or measure them apart"
        )
