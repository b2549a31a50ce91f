"""Layers of a volume as napari shows them; napari itself is not needed to compose them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from volseg.errors import ParameterError, VolsegError

if TYPE_CHECKING:
    from volseg.api.opening import Volume
    from volseg.api.slicing import ImageArray

HEAT: dict[str, Any] = {
    "visible": False,
    "colormap": "inferno",
    "blending": "additive",
    "contrast_limits": (0, 255),
}
Layer: TypeAlias = tuple[Any, dict[str, Any], str]
"""Levels of an array, keywords of napari, and the kind of layer."""


def compose_layers(volume: str | Path) -> list[Layer]:
    """List raw, probabilities and labels of a volume; voxels are read when they are looked at.

    A table of the objects becomes the features of their layer: a click on an object shows its row.

    Raises
    ------
    VolumeError
        If there is no usable volume.
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
    from volseg.storage.explanations import read_explanation

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
    place = {"scale": size or (1.0, 1.0, 1.0), **unit, "multiscale": True}
    return levels, {"name": name, **place, **more}, kind


def _features(table: Any, array: ImageArray) -> dict[str, Any]:
    """Turn a table into features, which napari finds by their ``index``; none of other labels."""
    from volseg.sources.labels import open_label_path

    noted = (table.schema.metadata or {}).get(b"labels", b"").decode()
    if noted != open_label_path(array.path.parent).identity:
        return {}
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    return {"features": {"index": columns["label"], **columns}}


def napari_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[Layer]] | None:
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


def show_in_napari(volume: str | Path, name: str, at: Sequence[float] | None) -> None:
    """Open napari with the layers of a volume, until its window is closed.

    Parameters
    ----------
    volume : path
    name : of the labels that are chosen
    at : voxel (z, y, x) to look at; None for the middle

    Raises
    ------
    ParameterError
        If napari is not installed.
    """
    try:
        import napari
    except ImportError as error:
        raise ParameterError(
            f"--napari needs napari, and {error.name} is missing: pip install 'napari[all]'; "
            f"without --napari volseg shows the volume in a browser"
        ) from error
    viewer = napari.Viewer(ndisplay=2)
    layers = compose_layers(volume)
    for data, keywords, kind in layers:
        layer = getattr(viewer, f"add_{kind}")(data, **keywords)
        if kind == "labels" and not keywords["name"].endswith(f" {name}"):
            layer.visible = False
    if at is not None:
        scale = layers[0][1]["scale"]
        viewer.dims.point = [v * s for v, s in zip(at, scale, strict=True)]
        viewer.camera.center = tuple(viewer.dims.point)
    napari.run()
