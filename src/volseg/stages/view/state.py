"""Compose the state of neuroglancer, layers, units, and where it looks, and links that hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError
from volseg.stages.view.plan import EXPLAINED, Objects, Scene, ViewOptions
from volseg.stages.view.pyramids import Pyramid
from volseg.storage.arrays import StoredArray
from volseg.storage.remote import as_remote
from volseg.storage.tables import shown_type

CLIENT = "https://neuroglancer-demo.appspot.com/"
"""Neuroglancer as its authors serve it."""
NM = 1e-9
PANEL = 400
"""Pixels of a panel's side, which should show all that is to be seen."""
RAW = "#uicontrol invlerp normalized\nvoid main() { emitGrayscale(normalized()); }\n"
PROBABILITIES = """#uicontrol vec3 colour color(default="#e69f00")
void main() {
  float p = toNormalized(getDataValue());
  emitRGBA(vec4(colour, p));
}
"""
HEAT = """void main() {
  float v = toNormalized(getDataValue());
  vec3 low = mix(vec3(0.0, 0.0, 0.02), vec3(0.74, 0.22, 0.33), min(2.0 * v, 1.0));
  emitRGBA(vec4(mix(low, vec3(0.99, 1.0, 0.64), max(2.0 * v - 1.0, 0.0)), 0.2 + 0.8 * v));
}
"""
FOUND, TRUTH = "#0072b2", "#f0e442"
"""Colours are those of Okabe and Ito, which colour-blind people tell apart."""
MOST_MESHES = 200
"""Objects that the 3D view shows from the start, if there are no more."""
MEASURES = (
    *("voxels", "volume_nm3", "surface_area", "surface_area_nm2", "sphericity"),
    *("complexity_index", "elongation", "probability_mean"),
)
"""Columns of the table that the viewer lists, filters and sorts by."""
MOST_LISTED = 500_000
"""Objects up to which the viewer gets their table, which it reads in one piece."""


def compose_state(scene: Scene, sources: Mapping[str, Any]) -> dict[str, Any]:
    """Compose the viewer's state.

    Parameters
    ----------
    sources : of each layer: a URL, several, or an object of neuroglancer
    """
    size = scene.voxel_size or (1.0, 1.0, 1.0)
    scale, unit = (1.0, "") if scene.voxel_size is None else (NM, "m")
    # neuroglancer's first two axes span the upper left panel: x to the right, y down
    dimensions = {a: [s * scale, unit] for a, s in zip("xyz", size[::-1], strict=True)}
    seen = max(e * s / min(size) for e, s in zip(scene.extent, size, strict=True))
    layers = [_layer(name, scene, sources[name]) for name in scene.layers]
    state: dict[str, Any] = {
        "dimensions": dimensions,
        "position": list(scene.centre[::-1]),
        "crossSectionScale": seen / PANEL,
        "projectionScale": 1.5 * seen,
        "layers": layers,
        "layout": "4panel",
    }
    objects = next((name for name in scene.layers if name.startswith("objects")), None)
    if objects is not None:
        state["selectedLayer"] = {"layer": objects, "visible": True}
    return state


def _layer(name: str, scene: Scene, source: Any) -> dict[str, Any]:
    if name == "raw":
        controls = {"normalized": {"range": list(scene.contrast)}}
        own: dict[str, Any] = {"type": "image", "shader": RAW, "shaderControls": controls}
    elif name.startswith(EXPLAINED):
        own = {"type": "image", "shader": HEAT, "opacity": 0.6, "visible": False}
    elif name.startswith("probabilities"):
        own = {"type": "image", "shader": PROBABILITIES, "opacity": 0.6, "visible": False}
    else:
        own = {"type": "segmentation", "selectedAlpha": 0.35, "tab": "segments"}
        if name == "truth":
            own["segmentDefaultColor"] = TRUTH
        else:
            own |= _objects(scene, name)
    return {"name": name, "source": source, **own}


def _objects(scene: Scene, layer: str) -> dict[str, Any]:
    """Choose objects, which the 3D view then shows, and a colour if the truth has one too."""
    own: dict[str, Any] = {"segmentDefaultColor": FOUND} if "truth" in scene.layers else {}
    if scene.chosen is not None and scene.chosen[0] == layer:
        # the others stay visible, but paler
        return own | {"segments": [str(scene.chosen[1])], "notSelectedAlpha": 0.15}
    table = scene.tables.get(layer)
    if table is not None and len(table.columns["label"]) <= MOST_MESHES:
        own["segments"] = [str(label) for label in table.columns["label"]]
    return own


def compose_properties(objects: Objects) -> dict[str, Any]:
    """Write the table of objects as the segment properties that neuroglancer reads.

    Examples
    --------
    >>> table = Objects({"label": np.array([3]), "voxels": np.array([8])}, {"voxels": "voxel"})
    >>> compose_properties(table)["inline"]["properties"][0]["values"]
    [8]
    """
    properties = [
        {
            "id": name,
            "type": "number",
            "data_type": shown_type(objects.columns[name]),
            "description": objects.units.get(name, ""),
            "values": _numbers(objects.columns[name]),
        }
        for name in MEASURES
        if name in objects.columns
    ]
    ids = [str(label) for label in objects.columns["label"]]
    return {
        "@type": "neuroglancer_segment_properties",
        "inline": {"ids": ids, "properties": properties},
    }


def _numbers(values: NDArray[Any]) -> Sequence[float | str]:
    """List numbers; JSON has none for NaN, and a text becomes one in the viewer."""
    if (kind := shown_type(values)) != "float32":
        return list(values.astype(kind).tolist())
    return [float(v) if np.isfinite(v) else "NaN" for v in values.astype(kind)]


def compose_link(scene: Scene, options: ViewOptions) -> str:
    """Compose the address that shows a scene in neuroglancer.

    Whoever opens it must reach the volume, and its server must allow other sites (CORS).
    """
    volume = scene.path
    if as_remote(volume) is None:
        raise ParameterError(
            f"{volume} is a folder of this machine, to which no link leads; give the URL at which "
            f"it is served, or leave --link out"
        )
    if options.truth is not None and "truth" not in scene.places:
        raise ParameterError(f"--link shows a truth in {volume}/labels only: {options.truth}")
    sources = {
        name: f"{_scheme(scene.layers[name])}://"
        + quote(str(volume / place if place else volume), safe=":/")
        for name, place in scene.places.items()
    }
    # where neuroglancer reads the volume itself, this lies where it says
    z, y, x = (c + first for c, first in zip(scene.centre, scene.corner, strict=True))
    scene = replace(scene, centre=(z, y, x))
    state = json.dumps(compose_state(scene, sources), separators=(",", ":"))
    return f"{CLIENT}#!{quote(state, safe='')}"


def _scheme(layer: Pyramid) -> str:
    """Name the version of volseg's own arrays: neuroglancer chooses none where both are there."""
    array = layer.levels[0][0]
    return "zarr3" if isinstance(array, StoredArray) and array.compression else "zarr"
