"""Axes, units and levels in OME-Zarr metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from volseg.types import VoxelSize, Zyx

OME_VERSION = "0.5"
AXES = ("z", "y", "x")
POWERS = {
    "yotta": 24, "zetta": 21, "exa": 18, "peta": 15, "tera": 12, "giga": 9, "mega": 6, "kilo": 3,
    "hecto": 2, "deca": 1, "": 0, "deci": -1, "centi": -2, "milli": -3, "micro": -6, "nano": -9,
    "pico": -12, "femto": -15, "atto": -18, "zepto": -21, "yocto": -24,
}  # fmt: skip
"""Powers of ten that stand before units of length."""
NANOMETERS = {f"{name}meter": float(f"1e{power + 9}") for name, power in POWERS.items()} | {
    "angstrom": 0.1,
    "\N{LATIN SMALL LETTER A WITH RING ABOVE}": 0.1,
    "pm": 1e-3,
    "nm": 1.0,
    "micron": 1e3,
    "um": 1e3,
    "\N{MICRO SIGN}m": 1e3,
    "\N{GREEK SMALL LETTER MU}m": 1e3,
    "mm": 1e6,
    "cm": 1e7,
    "m": 1e9,
    "inch": 2.54e7,
    "in": 2.54e7,
    "foot": 3.048e8,
    "yard": 9.144e8,
    "mile": 1.609344e12,
    "parsec": 3.0856775814913673e25,
}
"""nm per unit, in small letters, for the names that OME-Zarr and ImageJ use."""


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
