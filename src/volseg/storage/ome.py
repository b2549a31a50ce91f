"""Axes, units and levels in OME-Zarr metadata."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from volseg.errors import VolumeError
from volseg.types import VoxelSize, zyx

OME_VERSION = "0.5"
AXES = ("z", "y", "x")
NANOMETER = "nanometer"
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


IMAGES = "images"
"""Attribute of what holds unrelated images, one to a slice: their number, names and sizes."""


@dataclass(frozen=True)
class Space:
    """Place of an image: what is derived from it lies there, too.

    Attributes
    ----------
    scale : size of voxels along (z, y, x), in their units.
    origin : middle of the first voxel.
    units : names of the units; None if they, or the scale, are not stated.
    planar : whether slices are unrelated images, so that nothing reaches from one into the next.
    """

    scale: VoxelSize = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    units: tuple[str, str, str] | None = None
    planar: bool = False

    @property
    def voxel_size(self) -> VoxelSize | None:
        """Size of voxels in nm, None if unknown."""
        return None if self.units is None else self._nanometers(self.scale)

    @property
    def corner(self) -> tuple[float, float, float]:
        """Corner of the first voxel, in voxels from where lengths are 0.

        Examples
        --------
        >>> Space((30, 5, 5), (60, 0, 5)).corner
        (1.5, -0.5, 0.5)
        """
        z, y, x = (o / s - 0.5 for o, s in zip(self.origin, self.scale, strict=True))
        return z, y, x

    def _nanometers(self, lengths: tuple[float, float, float]) -> VoxelSize | None:
        known = [NANOMETERS.get(unit.lower()) for unit in self.units or ()]
        z, y, x = known or (None, None, None)
        if z is None or y is None or x is None:
            return None
        return lengths[0] * z, lengths[1] * y, lengths[2] * x

    def resized(self, voxel_size: VoxelSize) -> Space:
        """Correct the size of voxels, nm; the origin stays, in voxels where its unit is unknown.

        The units stay, too, if nothing is to be corrected.

        Examples
        --------
        >>> Space((1, 1, 1), (2, 0, 0), ("micrometer",) * 3).resized((30, 5, 5)).origin
        (2000.0, 0.0, 0.0)
        >>> Space((2, 2, 2), (2, 0, 0)).resized((30, 5, 5)).origin
        (30.0, 0.0, 0.0)
        """
        if voxel_size == self.voxel_size:
            return self
        z, y, x = self._nanometers(self.origin) or (
            o / s * v for o, s, v in zip(self.origin, self.scale, voxel_size, strict=True)
        )
        return replace(self, scale=voxel_size, origin=(z, y, x), units=(NANOMETER,) * 3)

    def at(self, start: Sequence[int], factor: Sequence[float] = (1, 1, 1)) -> Space:
        """Find where the part of a level lies that begins at one of its voxels.

        The middle of a reduced voxel is that of the voxels that it stands for.

        Examples
        --------
        >>> Space((2, 1, 1)).at((3, 0, 5)).origin, Space().at((1, 0, 0), (2, 2, 2)).origin
        ((6.0, 0.0, 5.0), (2.5, 0.5, 0.5))
        """
        steps = zip(self.origin, self.scale, factor, start, strict=True)
        z, y, x = (o - s / 2 + s * f * (k + 0.5) for o, s, f, k in steps)
        sizes = [s * f for s, f in zip(self.scale, factor, strict=True)]
        return replace(self, scale=zyx(sizes), origin=(z, y, x))


def space_of(voxel_size: VoxelSize | None) -> Space:
    """Place an image in its own corner, in nm if the size of its voxels is known."""
    return Space() if voxel_size is None else Space(voxel_size, units=(NANOMETER,) * 3)


def ome_metadata(
    name: str, factors: Sequence[tuple[float, float, float]], space: Space, *, label: bool
) -> dict[str, Any]:
    """Describe a pyramid as OME-Zarr 0.5 does.

    The centre of a reduced voxel is the mean of the centres of those it stands for: half a voxel
    off, which the translation says. Without a known voxel size there is no unit.
    """
    axes: list[dict[str, str]] = [{"name": a, "type": "space"} for a in AXES]
    for axis, unit in zip(axes, space.units or (), strict=False):
        axis["unit"] = unit
    datasets = [
        {
            "path": str(k),
            "coordinateTransformations": [
                {
                    "type": "scale",
                    "scale": [v * f for v, f in zip(space.scale, factor, strict=True)],
                },
                {
                    "type": "translation",
                    "translation": [
                        o + v * (f - 1) / 2
                        for o, v, f in zip(space.origin, space.scale, factor, strict=True)
                    ],
                },
            ],
        }
        for k, factor in enumerate(factors)
    ]
    multiscale = {
        "name": name,
        "axes": axes,
        "datasets": datasets,
        "type": "mode" if label else "mean",
    }
    ome: dict[str, Any] = {"version": OME_VERSION, "multiscales": [multiscale]}
    if label:
        ome["image-label"] = {"source": {"image": "../../"}}
    return ome


@dataclass(frozen=True)
class Level:
    """A level of a pyramid: its path in the image, and its place.

    Attributes
    ----------
    path : of the array.
    scale, origin : along (z, y, x), in the units of the image.
    stated : whether the scale stands there.
    """

    path: str
    scale: VoxelSize
    origin: tuple[float, float, float]
    stated: bool

    def lies_on(self, first: Level) -> bool:
        """Tell whether it lies where the first level does, to one of its own voxels.

        A translation that is not stated is none. Some programs place the middle of a reduced voxel
        in the first of those it stands for.
        """
        axes = zip(self.origin, self.scale, first.origin, first.scale, strict=True)
        return all(abs(o - first_o - (s - first_s) / 2) <= s for o, s, first_o, first_s in axes)

    def within(self, path: Path) -> Path:
        """Say where the array lies of an image, which is nowhere outside of it."""
        place = (path / self.path).resolve()
        if not place.is_relative_to(path.resolve()):
            raise VolumeError(f"{path} names a level outside itself: {self.path!r}")
        return place


def read_levels(multiscale: Mapping[str, Any]) -> tuple[list[Level], list[dict[str, Any]]]:
    """Read the levels of an image, and its axes, in any version up to 0.6.

    Scales and origins are those along the axes z, y and x by their names, else along the last
    three; along an axis that is not there they are 1 and 0.

    Raises
    ------
    KeyError, TypeError, IndexError, AttributeError, ValueError
        If they are not as OME-Zarr describes them, or of a kind that moves voxels otherwise.
    """
    datasets = multiscale["datasets"]
    axes = multiscale.get("axes")
    if axes is None:
        systems = {s["name"]: s["axes"] for s in multiscale.get("coordinateSystems", [])}
        output = (datasets[0].get("coordinateTransformations") or [{}])[-1].get("output")
        axes = systems.get(output) or next(iter(systems.values()), [])
    named = [a if isinstance(a, dict) else {"name": a} for a in axes]
    named = [{**a, "name": str(a["name"]).lower()} for a in named]  # some write Z, Y and X
    names = [a["name"] for a in named]
    known = {"y", "x"} <= set(names)
    at = [names.index(a) if a in names else None for a in AXES] if known else [-3, -2, -1]
    levels = []
    for dataset in datasets:
        steps = [
            step
            for entry in (dataset, multiscale)
            for step in _steps(entry.get("coordinateTransformations", []), at)
        ]
        scale, origin = [1.0] * 3, [0.0] * 3
        for kind, values in steps:
            if kind == "scale":
                if not all(math.isfinite(v) and v > 0 for v in values):
                    raise ValueError(f"a scale is positive numbers, found {values}")
                scale = [s * v for s, v in zip(scale, values, strict=True)]
                origin = [o * v for o, v in zip(origin, values, strict=True)]
            else:
                if not all(map(math.isfinite, values)):
                    raise ValueError(f"a translation is finite numbers, found {values}")
                origin = [o + v for o, v in zip(origin, values, strict=True)]
        stated = any(kind == "scale" for kind, _ in steps)
        levels.append(Level(str(dataset["path"]), zyx(scale), zyx(origin), stated))
    return levels, named


def multiscales_of(attributes: Mapping[str, Any]) -> Any:
    """Find what a group's attributes say of multiscales, in any version; None if nothing."""
    ome = attributes.get("ome", attributes)
    return (ome.get("multiscales") or None) if isinstance(ome, dict) else None


@contextmanager
def telling_damage(path: Path) -> Iterator[None]:
    """Say in words of people why metadata cannot be used that `read_levels` reads meanwhile."""
    try:
        yield
    except (KeyError, TypeError, IndexError, AttributeError, ArithmeticError, ValueError) as error:
        why = "they are not as OME-Zarr describes them"
        if isinstance(error, KeyError):
            why = f"{error} is missing"
        elif type(error) is ValueError:
            why = str(error)
        raise VolumeError(f"the multiscales metadata of {path} cannot be used: {why}") from error


def _steps(
    transformations: Sequence[Mapping[str, Any]], at: Sequence[int | None]
) -> Iterator[tuple[str, list[float]]]:
    """List scales and translations along (z, y, x), in the order in which they apply."""
    for step in transformations:
        kind = step["type"]
        if kind == "sequence":
            yield from _steps(step["transformations"], at)
        elif kind in {"scale", "translation"}:
            values, absent = [float(v) for v in step[kind]], float(kind == "scale")
            yield kind, [absent if k is None else values[k] for k in at]
        elif kind != "identity":
            raise ValueError(f"a transformation of type {kind!r}, expected scale and translation")
