"""Plan a view: open what is shown, and find where to look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volseg.defaults import NAME
from volseg.errors import ParameterError, ShapeError, VolumeError, command
from volseg.fields import split_names
from volseg.measures.object_table import box_of_row
from volseg.sources.greys import refuse_greys
from volseg.sources.labels import check_axes, find_labels, open_labels
from volseg.stages.view.pyramids import Pyramid, pyramid_of, pyramid_of_labels
from volseg.storage.attributes import read_attributes, uncorrected
from volseg.storage.images import read_explanation
from volseg.storage.tables import read_measured
from volseg.storage.volumes import Image, labels_path, open_image, probabilities_path, table_path
from volseg.types import Names, VoxelSize

Point: TypeAlias = tuple[float, float, float]

EXPLAINED = "explained: "
"""Begin of the names of an explanation's layers."""
SIDE = 512
"""Of the windows from which the contrast of raw is taken, in voxels of their levels."""


@dataclass(frozen=True)
class ViewOptions:
    """Options of a view; see `volseg.api.looking.ViewKeywords`."""

    name: str = NAME
    at: int | None = None
    truth: str | None = None
    axes: str | None = None

    def __post_init__(self) -> None:
        if self.axes is not None and self.truth is None:
            raise ParameterError("--axes names those of --truth; give both")


@dataclass(frozen=True)
class Objects:
    """Table of the objects."""

    columns: Mapping[str, NDArray[Any]]
    units: Mapping[str, str]

    def row_of(self, label: int) -> int | None:
        """Find the row of an object; None if there is no such object."""
        (rows,) = np.nonzero(self.columns["label"] == label)
        return int(rows[0]) if len(rows) else None


@dataclass(frozen=True)
class Scene:
    """Contents of a view.

    Attributes
    ----------
    layers : by name: raw, probabilities, objects, truth, as far as they are there, those of
        further results with their names, then layers of `EXPLAINED`.
    places : of the layers that lie in the volume, from there.
    contrast : intensities that are shown black and white.
    tables : of objects, by layer; none where there is none, or it is of other labels.
    chosen : layer and label of the object to look at.
    extent : voxels along (z, y, x) that should be seen.
    corner : of the first voxel, where the volume says that it lies.
    """

    path: Path
    voxel_size: VoxelSize | None
    layers: Mapping[str, Pyramid]
    places: Mapping[str, str]
    contrast: tuple[float, float]
    tables: Mapping[str, Objects]
    chosen: tuple[str, int] | None
    centre: Point
    extent: Point
    notes: tuple[str, ...]
    names: Names = (NAME,)
    corner: Point = (0.0, 0.0, 0.0)

    def layer_of(self, kind: str, name: str) -> str:
        """Name a layer of a result: ``objects``, or ``objects NAME`` of those after the first."""
        return kind if name == self.names[0] else f"{kind} {name}"


def plan_view(volume: Path, options: ViewOptions) -> Scene:
    """Open what is shown; read metadata, the table, and one window of raw."""
    image, notes = open_image(volume), list[str]()
    shape = image.levels[0].shape
    scene = Scene(
        path=volume,
        voxel_size=image.voxel_size,
        layers={"raw": pyramid_of(image)},
        places={"raw": ""},
        contrast=find_contrast(image),
        tables={},
        chosen=None,
        centre=(shape[0] / 2, shape[1] / 2, shape[2] / 2),
        extent=shape,
        notes=(),
        names=split_names(options.name),
        corner=image.space.corner,
    )
    for name in scene.names:
        scene = _with_result(scene, name, notes)
    layers, places = dict(scene.layers), dict(scene.places)
    if options.truth is not None:
        truth = refuse_greys(find_labels(image, options.truth, axes=options.axes))
        check_axes(options.axes, [truth])
        layers["truth"] = pyramid_of_labels(truth)
        if truth.path == volume / "labels" / options.truth:
            places["truth"] = f"labels/{options.truth}"
        notes += truth.describe_other_size(volume, image.voxel_size)
    for layer, pyramid in layers.items():
        if pyramid.shape != shape:
            raise ShapeError(
                f"the {layer} of {volume} have the shape {pyramid.shape}, expected the volume's "
                f"own, {shape}"
            )
    for name in scene.names:
        if explanation := read_explanation(volume, name):
            z, y, x = (s.start for s in explanation.roi)
            for of in explanation.layers:
                layer = scene.layer_of(EXPLAINED + of.name, name)
                layers[layer] = pyramid_of(of.image, corner=(z, y, x))
                places[layer] = f"{explanation.path.parent.name}/{explanation.path.name}/{of.name}"
    scene = replace(scene, layers=layers, places=places, notes=tuple(notes))
    return scene if options.at is None else centre_on(scene, options.at)


def _with_result(scene: Scene, name: str, notes: list[str]) -> Scene:
    """Add the layers of a result, and the table of its objects."""
    volume = scene.path
    layers, places, tables = dict(scene.layers), dict(scene.places), dict(scene.tables)
    probabilities = probabilities_path(volume, uncorrected(volume, name))
    seen = _is_shown(probabilities, notes)
    if seen:
        layer = scene.layer_of("probabilities", name)
        layers[layer] = pyramid_of(open_image(probabilities))
        places[layer] = f"probabilities/{probabilities.name}"
    if (scene.names != (NAME,) and not seen) or _is_shown(labels_path(volume, name), notes):
        source, layer = open_labels(volume, name), scene.layer_of("objects", name)
        layers[layer], places[layer] = pyramid_of_labels(source), f"labels/{name}"
        table = _open_table(volume, name, source.identity, notes)
        tables |= {} if table is None else {layer: table}
    return replace(scene, layers=layers, places=places, tables=tables)


def _is_shown(place: Path, notes: list[str]) -> bool:
    if not place.exists():
        return False
    if read_attributes(place).get("volseg", {}).get("complete") is False:
        notes.append(f"{place} is incomplete, so it is not shown")
        return False
    return True


def _open_table(volume: Path, name: str, labels: str, notes: list[str]) -> Objects | None:
    if not table_path(volume, name).is_file():
        return None
    try:
        columns, units, _ = read_measured(volume, name, labels)
    except VolumeError as error:
        notes.append(str(error))
        return None
    return Objects(columns, units)


def centre_on(scene: Scene, label: int, name: str = "") -> Scene:
    """Look at an object of a result, by default the first, with its surroundings."""
    volume, name = scene.path, name or scene.names[0]
    layer = scene.layer_of("objects", name)
    objects = scene.tables.get(layer)
    if objects is None:
        measure = command("stats", volume, name=name)
        raise VolumeError(f"{volume} has no table of its objects for --at; run `{measure}` first")
    row = objects.row_of(label)
    if row is None:
        labels = objects.columns["label"]
        known = f"they are {labels.min()} to {labels.max()}" if len(labels) else "there are none"
        raise ParameterError(f"{volume} has no object {label} of {name}: {known}")
    z, y, x = (float(objects.columns[f"centroid_{axis}"][row]) for axis in "zyx")
    deep, high, wide = (3.0 * (s.stop - s.start) for s in box_of_row(objects.columns, row))
    # positions count from the corner of a voxel, centroids from its centre
    centre, extent = (z + 0.5, y + 0.5, x + 0.5), (deep, high, wide)
    return replace(scene, chosen=(layer, label), centre=centre, extent=extent)


def find_contrast(image: Image) -> tuple[float, float]:
    """Find the 0.5th and 99.5th percentile of the middle of the finest and the coarsest level.

    The coarsest shows more of the volume, the finest the noise that averaging takes away.
    """
    found = []
    for array in {0: image.levels[0], len(image.levels): image.levels[-1]}.values():
        z, *sides = (n // 2 for n in array.shape)
        y, x = (slice(max(m - SIDE // 2, 0), m + SIDE // 2) for m in sides)
        values = array[slice(z, z + 1), y, x].astype(np.float64)
        if (seen := values[np.isfinite(values)]).size:
            found.append(np.percentile(seen, (0.5, 99.5)))
    if not found:
        return 0.0, 1.0
    low, high = float(min(f[0] for f in found)), float(max(f[1] for f in found))
    return low, high if low < high else low + 1
