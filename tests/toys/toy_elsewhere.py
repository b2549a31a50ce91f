"""Volumes as other programs write them: OME-Zarr of both versions, by another library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

SIDE = 64
"""Of the cubic chunks that most programs choose."""


ORIGIN = (0.1, 0.2, 0.3)
"""In micrometres."""


def write_elsewhere(path: Path, raw: np.ndarray, version: str, micrometers=0.005) -> Path:
    """Write an image without a pyramid, with two leading axes, a place and other attributes."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("s0", data=raw[None, None], chunks=(1, 1, SIDE, SIDE, SIDE))
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    scale = {"type": "scale", "scale": [1, 1, *3 * [micrometers]]}
    place = {"type": "translation", "translation": [0, 0, *ORIGIN]}
    datasets = [{"path": "s0", "coordinateTransformations": [scale, place]}]
    multiscales = [{"name": "x", "version": version, "axes": axes, "datasets": datasets}]
    content = {"multiscales": multiscales, "omero": {"channels": [{"label": "EM"}]}}
    group.attrs.update(content if version == "0.4" else {"ome": {"version": "0.5", **content}})
    group.attrs.update(
        {"theirs": {"pi": 3.141592653589793, "none": None, "name": "d\u00e9j\u00e0"}}
    )
    return path
