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
from volseg.sources.labels import find_labels, open_labels
from volseg.stages.view.pyramids import Pyramid, pyramid_of, pyramid_of_labels
from volseg.storage.attributes import read_attributes, uncorrected
from volseg.storage.explanations import read_explanation
from volseg.storage.tables import read_columns
from volseg.storage.volumes import (
    Image,
    labels_path,
    open_image,
    probabilities_path,
    table_path,
)
from volseg.types import Roi, VoxelSize

Point: TypeAlias = tuple[float, float, float]

EXPLAINED = "explained: "
"""Begin of the names of an explanation's layers."""
SIDE = 512
"""Of the windows from which the contrast of raw is taken, in voxels of their levels."""


@dataclass(frozen=True)
class ViewOptions:
    """Options of a view.

    Attributes
    ----------
    name : of the results.
    at : label of the object to look at; None for the middle of the volume.
    truth : labels, as `volseg.stages.evaluate` takes them.
    """

    name: str = NAME
    at: int | None = None
    truth: str | None = None


@dataclass(frozen=True)
class Objects:
    """Table of the objects.

    Attributes
    ----------
    columns, units : one row per object.
    """

    columns: Mapping[str, NDArray[Any]]
    units: Mapping[str, str]

    def row_of(self, label: int) -> int | None:
        """Find the row of an object; None if there is no such object."""
        (rows,) = np.nonzero(self.columns["label"] == label)
        return int(rows[0]) if len(rows) else None

    def box_at(self, row: int) -> Roi:
        """Read the box of an object."""
        z, y, x = (
            slice(*(int(self.columns[f"bbox_{axis}_{end}"][row]) for end in ("start", "stop")))
            for axis in "zyx"
        )
        return z, y, x


@dataclass(frozen=True)
class Scene:
    """Contents of a view.

    Attributes
    ----------
    path : of the volume.
    voxel_size : nm (z, y, x); None if unknown.
    layers : by name: raw, probabilities, objects, truth, as far as they are there, then layers
        of `EXPLAINED`.
    contrast : intensities that are shown black and white.
    objects : their table; None if there is none, or it is of other labels.
    chosen : label of the object to look at.
    centre : (z, y, x), in voxels.
    extent : voxels along (z, y, x) that should be seen.
    notes : what should be known.
    name : of the results.
    """

    path: Path
    voxel_size: VoxelSize | None
    layers: Mapping[str, Pyramid]
    contrast: tuple[float, float]
    objects: Objects | None
    chosen: int | None
    centre: Point
    extent: Point
    notes: tuple[str, ...]
    name: str = NAME


def plan_view(volume: Path, options: ViewOptions) -> Scene:
    """Open what is shown; read metadata, the table, and one window of raw.

    Raises
    ------
    InputError
        If the volume or the truth cannot be used, or there is no such object.
    """
    notes: list[str] = []
    image = open_image(volume)
    layers = {"raw": pyramid_of(image)}
    probabilities = probabilities_path(volume, uncorrected(volume, options.name))
    if _is_shown(probabilities, notes):
        layers["probabilities"] = pyramid_of(open_image(probabilities))
    objects = None
    named = options.name != NAME and "probabilities" not in layers
    if named or _is_shown(labels_path(volume, options.name), notes):
        source = open_labels(volume, options.name)
        layers["objects"] = pyramid_of_labels(source)
        objects = _open_table(volume, options.name, source.identity, notes)
    if options.truth is not None:
        truth = find_labels(volume, options.truth)
        layers["truth"] = pyramid_of_labels(truth)
        notes += truth.describe_other_size(volume, image.voxel_size)
    for name, layer in layers.items():
        if layer.shape != image.levels[0].shape:
            raise ShapeError(
                f"the {name} of {volume} have the shape {layer.shape}, expected the volume's own, "
                f"{image.levels[0].shape}"
            )
    if explanation := read_explanation(volume, options.name):
        z, y, x = (s.start for s in explanation.roi)
        for of in explanation.layers:
            layers[EXPLAINED + of.name] = pyramid_of(of.image, corner=(z, y, x))
    shape = image.levels[0].shape
    scene = Scene(
        volume,
        image.voxel_size,
        layers,
        find_contrast(image),
        objects,
        None,
        (shape[0] / 2, shape[1] / 2, shape[2] / 2),
        shape,
        tuple(notes),
        options.name,
    )
    return scene if options.at is None else centre_on(scene, options.at)


def _is_shown(place: Path, notes: list[str]) -> bool:
    if not place.exists():
        return False
    if read_attributes(place).get("volseg", {}).get("complete") is False:
        notes.append(f"{place} is incomplete, so it is not shown")
        return False
    return True


def _open_table(volume: Path, name: str, labels: str, notes: list[str]) -> Objects | None:
    table = table_path(volume, name)
    if not table.is_file():
        return None
    columns, units, noted = read_columns(table)
    if noted.get("labels") != labels:
        measure = command("stats", volume, name=name)
        notes.append(f"{table} was measured on other labels, so it is not shown; run `{measure}`")
        return None
    return Objects(columns, units)


def centre_on(scene: Scene, label: int) -> Scene:
    """Look at an object, with its surroundings.

    Raises
    ------
    VolumeError
        If there is no table of the objects.
    ParameterError
        If there is no such object.
    """
    volume, objects = scene.path, scene.objects
    if objects is None:
        measure = command("stats", volume, name=scene.name)
        raise VolumeError(f"{volume} has no table of its objects for --at; run `{measure}` first")
    row = objects.row_of(label)
    if row is None:
        labels = objects.columns["label"]
        known = f"they are {labels.min()} to {labels.max()}" if len(labels) else "there are none"
        raise ParameterError(f"{volume} has no object {label} of {scene.name}: {known}")
    z, y, x = (float(objects.columns[f"centroid_{axis}"][row]) for axis in "zyx")
    sides = [3.0 * (s.stop - s.start) for s in objects.box_at(row)]
    # positions count from the corner of a voxel, centroids from its centre
    centre = z + 0.5, y + 0.5, x + 0.5
    return replace(scene, chosen=label, centre=centre, extent=(sides[0], sides[1], sides[2]))


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
