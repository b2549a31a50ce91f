"""Link to a volume behind http, for neuroglancer on the web: nothing is served from here."""

from __future__ import annotations

import json
from urllib.parse import quote

from volseg.errors import ParameterError
from volseg.stages.view.plan import Scene, ViewOptions
from volseg.stages.view.pyramids import Pyramid
from volseg.stages.view.state import compose_state
from volseg.storage.arrays import StoredArray
from volseg.storage.remote import as_remote

CLIENT = "https://neuroglancer-demo.appspot.com/"
"""Neuroglancer as its authors serve it."""


def compose_link(scene: Scene, options: ViewOptions) -> str:
    """Compose the address that shows a scene in neuroglancer.

    Whoever opens it must reach the volume, and its server must allow other sites (CORS).

    Raises
    ------
    ParameterError
        If the volume, or the truth, is a file of this machine.
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
    state = json.dumps(compose_state(scene, sources), separators=(",", ":"))
    return f"{CLIENT}#!{quote(state, safe='')}"


def _scheme(layer: Pyramid) -> str:
    """Name the version of volseg's own arrays: neuroglancer chooses none where both are there."""
    array = layer.levels[0][0]
    return "zarr3" if isinstance(array, StoredArray) and array.compression else "zarr"
