"""Layers of a volume as napari shows them; napari itself is not needed to compose them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from volseg.errors import ParameterError, VolsegError, VolumeError

if TYPE_CHECKING:
    from volseg.api.opening import Volume
    from volseg.api.slicing import ImageArray

HEAT: dict[str, Any] = {
    "visible": False,
    "colormap": "inferno",
    "blending": "additive",
    "contrast_limits": (0, 255),
}
FEATURE_ROWS = 1_000_000
"""Labels up to which napari gets a row for each, also for those that no object has."""
TABLE = ("napari", "Features table widget")
"""Plugin and name of the widget that lists the features of a layer."""
CROP = (Path(__file__).parents[1] / "crop", Path(__file__).parents[3] / "examples" / "crop")
"""Folder of the crop in a wheel, and in a clone."""
CROP_SIZE = (5.0, 5.0, 5.0)
Layer: TypeAlias = tuple[Any, dict[str, Any], str]
"""Levels of an array, keywords of napari, and the kind of layer."""


def compose_layers(volume: str | Path) -> list[Layer]:
    """List raw, probabilities and labels of a volume; voxels are read when they are looked at.

    A table of the objects becomes the features of their layer: a click on an object shows its row.
    """
    from volseg.api.opening import open as open_volume
    from volseg.storage.attributes import results_in

    found = open_volume(volume)
    title = found.path.stem
    layers = [_layer(found.raw, title, "image")]
    for name in found.probabilities:
        array = found.probabilities[name]
        layers.append(_layer(array, f"{title} probabilities {name}", "image", **HEAT))
    for place in results_in(found.path, "explanations"):
        layers += _explained(found, place.name)
    for name in found.labels:
        array = found.labels[name]
        features = _features(found.tables[name], array) if name in found.tables else {}
        layers.append(_layer(array, f"{title} {name}", "labels", **features))
    return layers


def _explained(found: Volume, name: str) -> list[Layer]:
    """List the layers of an explanation, at the place of its region."""
    from volseg.api.slicing import level_of
    from volseg.storage.images import read_explanation

    explanation = read_explanation(found.path, name)
    if explanation is None:
        return []
    size = found.voxel_size or (1.0, 1.0, 1.0)
    corner = [s.start * v for s, v in zip(explanation.roi, size, strict=True)]
    title = f"{found.path.stem} {name} explained"
    return [
        _layer(level_of(of.image), f"{title}: {of.name}", "image", translate=corner, **HEAT)
        for of in explanation.layers
    ]


def _layer(array: ImageArray, name: str, kind: str, **more: Any) -> Layer:
    size = array.voxel_size
    unit = {} if size is None else {"units": ("nm", "nm", "nm")}
    levels = [level.dask for level in array.levels]
    several = len(levels) > 1  # one level of labels in a list is a stack of its slices to napari
    place = {"scale": size or (1.0, 1.0, 1.0), **unit, "multiscale": several}
    return levels if several else levels[0], {"name": name, **place, **more}, kind


def _features(table: Any, array: ImageArray) -> dict[str, Any]:
    """Turn a table into features; none of other labels.

    The status bar of napari finds an object by ``index``, and its widget of features takes labels
    for numbers of rows. Where labels allow it, rows are made to fit both: that of the background
    and of each gap has -1 for its index, and 0 else.
    """
    from volseg.sources.labels import open_label_path

    noted = (table.schema.metadata or {}).get(b"labels", b"").decode()
    if noted != open_label_path(array.path.parent).identity:
        return {}
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    labels = columns["label"]
    if len(labels) and labels.max() < FEATURE_ROWS:
        import numpy as np

        rows = int(labels.max()) + 1
        index = np.full(rows, -1)
        index[labels] = labels
        filled = {name: np.zeros(rows, values.dtype) for name, values in columns.items()}
        for name, values in columns.items():
            filled[name][labels] = values
        return {"features": {"index": index, **filled}}
    return {"features": {"index": labels, **columns}}


def napari_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Layer]] | None:
    """Offer napari a reader, as its manifest says; None for what is no volume."""
    paths = [path] if isinstance(path, str) else list(path)
    try:
        for place in paths:
            compose_layers(place)
    except VolsegError:
        return None
    return _read_all


def _read_all(path: str | Sequence[str]) -> list[Layer]:
    paths = [path] if isinstance(path, str) else list(path)
    return [layer for place in paths for layer in compose_layers(place)]


def napari_sample() -> list[Layer]:
    """Offer napari the crop that comes with volseg, as its manifest says: raw and annotation."""
    from volseg.geometry.grid import full_roi
    from volseg.sources.open import open_stack
    from volseg.sources.stack import read_box

    folder = next((place for place in CROP if place.is_dir()), None)
    if folder is None:
        raise VolumeError(f"the crop is not in {CROP[0]}; install volseg from its wheel again")
    words = {"scale": CROP_SIZE, "units": ("nm",) * 3}
    stacks = [open_stack(folder / name) for name in ("raw.tif", "labels.tif")]
    raw, truth = (read_box(stack, full_roi(stack.shape)) for stack in stacks)
    for stack in stacks:
        stack.close()
    return [
        (raw, {"name": "hippocampus", **words}, "image"),
        (truth // 255, {"name": "hippocampus, annotation", **words}, "labels"),
    ]


def show_in_napari(volume: str | Path, name: str, at: Sequence[float] | None) -> None:
    """Open napari with the layers of a volume, until its window is closed.

    Parameters
    ----------
    volume : path
    name : of the labels that are chosen
    at : voxel (z, y, x) to look at; None for the middle
    """
    try:
        import napari
    except ImportError as error:
        raise ParameterError(
            f"--napari needs napari, and {error.name} is missing: pip install 'napari[all]'; "
            f"without --napari volseg shows the volume in a browser"
        ) from error
    viewer = napari.Viewer(ndisplay=2)
    fill_viewer(viewer, volume, name, at)
    with suppress(
        KeyError, ValueError
    ):  # napari before 0.6.2 has no such widget, and is usable without it
        viewer.window.add_plugin_dock_widget(*TABLE)
    napari.run()


def fill_viewer(
    viewer: Any, volume: str | Path, name: str, at: Sequence[float] | None = None
) -> None:
    """Add the layers of a volume to a viewer of napari, and choose objects by a click.

    Parameters
    ----------
    viewer : napari.Viewer
    volume, name, at : as `show_in_napari` takes them
    """
    layers = compose_layers(volume)
    for data, keywords, kind in layers:
        layer = getattr(viewer, f"add_{kind}")(data, **keywords)
        if kind == "labels":
            layer.visible = keywords["name"].endswith(f" {name}")
            layer.mouse_drag_callbacks.append(choose_object)
    if at is not None:
        scale = layers[0][1]["scale"]
        viewer.dims.point = [v * s for v, s in zip(at, scale, strict=True)]
        viewer.camera.center = tuple(viewer.dims.point)


def choose_object(layer: Any, event: Any) -> None:
    """Choose the object that was clicked on: napari itself does so for labels of one level only."""
    found = layer.get_value(
        event.position,
        view_direction=event.view_direction,
        dims_displayed=event.dims_displayed,
        world=True,
    )
    label = found[1] if isinstance(found, tuple) else found
    if label:
        layer.selected_label = int(label)
