"""Info: what a volume is and what it holds, from its metadata alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volseg.storage.attributes import read_attributes
from volseg.storage.listings import results_in
from volseg.storage.volumes import Image, open_image


def info(path: Path) -> dict[str, Any]:
    """Describe a volume and the results in it.

    Parameters
    ----------
    path : Path
        An OME-Zarr image or a Zarr array.

    Returns
    -------
    dict
        JSON-like: the image, and under ``probabilities`` and ``labels`` what stands there.

    Raises
    ------
    VolumeError
        If there is no usable volume.
    """
    described = _describe(open_image(path))
    for kind in ("probabilities", "labels"):
        folders = [p for p in results_in(path, kind) if (p / "zarr.json").exists()]
        described[kind] = {p.name: _describe(open_image(p)) for p in folders}
    described["tables"] = sorted(p.stem for p in results_in(path, "tables", "*.parquet"))
    return described


def _describe(image: Image) -> dict[str, Any]:
    first = image.levels[0]
    attributes = read_attributes(image.path).get("volseg", {})
    kept = {k: v for k, v in attributes.items() if k != "histogram"}
    return {
        "shape": list(first.shape),
        "dtype": first.dtype.name,
        "voxel_size": None if image.voxel_size is None else list(image.voxel_size),
        "chunk": list(first.chunk),
        "shard": list(first.shard),
        "levels": [list(level.shape) for level in image.levels],
        "volseg": kept,
    }
