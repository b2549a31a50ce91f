"""Axes, units and levels in OME-Zarr metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from volseg.types import VoxelSize, Zyx

OME_VERSION = "0.5"
AXES = ("z", "y", "x")
NANOMETERS = {
    "angstrom": 0.1,
    "\N{LATIN SMALL LETTER A WITH RING ABOVE}": 0.1,
    "picometer": 1e-3,
    "nanometer": 1.0,
    "nm": 1.0,
    "micrometer": 1e3,
    "micron": 1e3,
    "um": 1e3,
    "\N{MICRO SIGN}m": 1e3,
    "\N{GREEK SMALL LETTER MU}m": 1e3,
    "millimeter": 1e6,
    "mm": 1e6,
    "centimeter": 1e7,
    "cm": 1e7,
    "inch": 2.54e7,
    "meter": 1e9,
    "m": 1e9,
}
"""nm per unit, for the names that OME-Zarr, OME-XML and ImageJ use."""


def ome_metadata(
    name: str, factors: Sequence[Zyx], voxel_size: VoxelSize | None, *, label: bool
) -> dict[str, Any]:
    """Describe a pyramid as OME-Zarr 0.5 does.

    The centre of a reduced voxel is the mean of the centres of those it stands for: half a voxel
    off, which the translation says. Without a known voxel size there is no unit.
    """
    size = voxel_size or (1.0, 1.0, 1.0)
    unit = {} if voxel_size is None else {"unit": "nanometer"}
    datasets = [
        {
            "path": str(k),
            "coordinateTransformations": [
                {"type": "scale", "scale": [v * f for v, f in zip(size, factor, strict=True)]},
                {
                    "type": "translation",
                    "translation": [v * (f - 1) / 2 for v, f in zip(size, factor, strict=True)],
                },
            ],
        }
        for k, factor in enumerate(factors)
    ]
    multiscale = {
        "name": name,
        "axes": [{"name": a, "type": "space", **unit} for a in AXES],
        "datasets": datasets,
        "type": "mode" if label else "mean",
    }
    ome: dict[str, Any] = {"version": OME_VERSION, "multiscales": [multiscale]}
    if label:
        ome["image-label"] = {"source": {"image": "../../"}}
    return ome
