"""Voxel sizes that sources state: OME-XML, ImageJ, TIFF resolution tags."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.errors import VoxelSizeError
from volseg.storage.ome import NANOMETERS, POWERS
from volseg.types import VoxelSize

SAME = 0.01
"""Sizes that differ by no more than this share are the same: files round theirs."""

PLAUSIBLE = (0.01, 10_000.0)
"""nm between which voxels are stated: else a program wrote what it does when it knows nothing, such
as 72 or 240 pixels per inch, 10 per centimetre, or one."""

PRINTED = 1_000.0
"""nm of a pixel from which pixels per inch, centimetre or metre are those of prints, screens and
scanners, which go up to 25,400 per inch, or one pixel per micrometre, and say nothing of voxels."""

UNSET = (1.0, 1_000.0)
"""nm of a pixel along y and x that programs write when they know none: one unit."""

UNIT_SIZED = (
    "the source says {} nm (z,y,x), and programs that know no size write 1 along y and x: if that "
    "is wrong, give --voxel-size"
)

SMALLEST, SQUARE = 0.1, 0.1
"""nm of a voxel's shortest side below which a user has given another unit, and by which part of
itself a pixel may be longer than wide before the order is in doubt."""

OME_SYMBOLS = dict(
    zip(
        ("Ym", "Zm", "Em", "Pm", "Tm", "Gm", "Mm", "km", "hm", "dam", "m", "dm", "cm", "mm"),
        POWERS.values(),
        strict=False,
    )
) | {"\N{MICRO SIGN}m": -6, "nm": -9, "pm": -12, "fm": -15, "am": -18, "zm": -21, "ym": -24}
"""Powers of ten of the metre; large letters matter."""
OME_NANOMETERS = {symbol: float(f"1e{power + 9}") for symbol, power in OME_SYMBOLS.items()} | {
    "thou": 2.54e4,
    "li": 2.54e7 / 12,
    "pt": 2.54e7 / 72,
    "ft": 3.048e8,
    "yd": 9.144e8,
    "mi": 1.609344e12,
    "ua": 1.495978707e20,
    "ly": 9.4607304725808e24,
    "pc": 3.0856775814913673e25,
}
"""nm per unit of length of OME-XML."""

INCH, CENTIMETER = 2, 3

AxisSizes = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class StatedSize:
    """Voxel size as a source states it.

    Attributes
    ----------
    axes : nm along (z, y, x); None where it says nothing.
    origin : where it says so, for messages.
    """

    axes: AxisSizes = (None, None, None)
    origin: str = "the source"


def said(*stated: StatedSize) -> tuple[StatedSize, ...]:
    """Keep the statements that say something."""
    return tuple(s for s in stated if any(s.axes))


def settle_voxel_size(
    stated: Sequence[StatedSize], given: VoxelSize | None
) -> tuple[VoxelSize | None, str | None, tuple[str, ...]]:
    """Combine the sizes that the source states with the user's.

    Returns
    -------
    voxel_size : nm (z, y, x), or None if unknown
    origin : where it comes from
    warnings : what the user should know

    Raises
    ------
    VoxelSizeError
        If the source contradicts itself and the user does not decide, or a size is not positive.

    Examples
    --------
    >>> tags = StatedSize((None, 5.0, 5.0), "TIFF tags")
    >>> settle_voxel_size([tags], (30.0, 5.0, 5.0))
    ((30.0, 5.0, 5.0), '--voxel-size', ())
    >>> settle_voxel_size([tags], None)[:2]
    (None, None)
    """
    if given is not None:
        if not all(math.isfinite(v) and v > 0 for v in given):
            raise VoxelSizeError(f"a voxel size is three positive numbers in nm, found {given}")
        differing = [s for s in stated if not _agree(s.axes, given)]
        warnings = tuple(
            f"--voxel-size {write_sizes(given)} nm overrides {write_sizes(s.axes)} nm in {s.origin}"
            for s in differing
        )
        return given, "--voxel-size", (*warnings, *_doubt(given))
    if contradiction := find_contradiction(stated):
        one, other = contradiction
        raise VoxelSizeError(
            f"the source contradicts itself: {one.origin} says {write_sizes(one.axes)} nm (z,y,x), "
            f"{other.origin} {write_sizes(other.axes)} nm; decide with --voxel-size Z,Y,X"
        )
    parts = [[s.axes[k] for s in stated if s.axes[k] is not None] for k in range(3)]
    z, y, x = (part[0] if part else None for part in parts)
    if z is not None and y is not None and x is not None:
        unset = y == x and x in UNSET
        told = (UNIT_SIZED.format(write_sizes((z, y, x))),) if unset else ()
        return (z, y, x), " and ".join(s.origin for s in stated), told
    if any(parts):
        found = write_sizes((z, y, x))
        return None, None, (f"the source says only {found} nm (z,y,x) of its voxels' size",)
    return None, None, ()


def _doubt(given: VoxelSize) -> tuple[str, ...]:
    """Say where a size that a user gave is in another order or unit than Z,Y,X and nm, it seems."""
    told, (_, y, x) = f"--voxel-size {write_sizes(given)}", given
    if min(given) < SMALLEST:
        return (f"{told} is in nm, and smaller than an atom; of µm, give 1000 times as much",)
    if abs(y - x) > SQUARE * x:
        return (f"{told} makes pixels of {y:g} x {x:g} nm, not square; the order is Z,Y,X",)
    return ()


def find_contradiction(stated: Sequence[StatedSize]) -> tuple[StatedSize, StatedSize] | None:
    """Find the first two statements that cannot both be true, None where there are none.

    Examples
    --------
    >>> find_contradiction([StatedSize((None, 5.0, 5.0)), StatedSize((30.0, 5.01, 5.0))])
    """
    pairs = itertools.combinations(stated, 2)
    return next((p for p in pairs if not _agree(p[0].axes, p[1].axes)), None)


def _agree(ours: AxisSizes, theirs: AxisSizes) -> bool:
    pairs = zip(ours, theirs, strict=True)
    return all(a is None or b is None or abs(a - b) <= SAME * b for a, b in pairs)


def tell_other_size(
    path: Path, stated: AxisSizes, volume: Path, voxel_size: VoxelSize | None
) -> list[str]:
    """Say that what belongs to a volume has voxels of another size, if so."""
    ours = StatedSize(voxel_size or (None, None, None))
    if find_contradiction((ours, StatedSize(stated))) is None:
        return []
    said = f"{path} says that its voxels measure {write_sizes(stated)} nm (z,y,x)"
    return [f"{said}, {volume} {write_sizes(ours.axes)} nm, which is taken"]


def write_sizes(sizes: AxisSizes) -> str:
    """Write sizes of voxels, as far as they are known."""
    return ",".join("unknown" if v is None else f"{v:g}" for v in sizes)


def tell_unitless(where: object, sizes: AxisSizes, what: str = "a resolution") -> str:
    """Say that a source has sizes without a unit, and how to give them.

    Examples
    --------
    >>> tell_unitless("a.h5", (30, 5, 5)).partition(";")[2]
    ' if that is nm, give --voxel-size 30,5,5'
    >>> tell_unitless("a.n5", (None, 5, 5), "spacings").partition(";")[2]
    ' if that is nm, give --voxel-size Z,5,5 with Z in nm'
    >>> tell_unitless("a.zarr", (0.03, 0.005, 0.005), "a scale").partition(";")[2]
    ' if that is µm, give --voxel-size 30,5,5'
    """
    tiny = min((v for v in sizes if v is not None), default=1.0) < SMALLEST
    unit, nm = ("µm", NANOMETERS["um"]) if tiny else ("nm", 1.0)
    given = ",".join(a if v is None else f"{v * nm:g}" for a, v in zip("ZYX", sizes, strict=True))
    lacking = "".join(f" with {a} in nm" for a, v in zip("ZYX", sizes, strict=True) if v is None)
    said = f"{where} has {what} of {write_sizes(sizes)} (z,y,x) without a unit"
    return f"{said}; if that is {unit}, give --voxel-size {given}{lacking}"


def unit_nanometers(name: str | None) -> float | None:
    r"""Find the nm in a unit, None where there is none; ImageJ escapes its micro sign.

    Examples
    --------
    >>> unit_nanometers("micron"), unit_nanometers("\\u00B5m"), unit_nanometers("pixel")
    (1000.0, 1000.0, None)
    """
    if name is None:
        return None
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), name.strip())
    return NANOMETERS.get(text.lower().removesuffix("s") if len(text) > 2 else text.lower())


def ome_nanometers(symbol: str) -> float | None:
    """Find the nm in a unit of OME-XML, None where it is none of length.

    Examples
    --------
    >>> [ome_nanometers(unit) for unit in ("pm", "Pm", "Å", "micron", "pixel")]
    [0.001, 1e+24, 0.1, 1000.0, None]
    """
    return OME_NANOMETERS.get(symbol) or unit_nanometers(symbol)


def size_from_imagej(
    metadata: Mapping[str, Any], resolution: tuple[float, float] | None
) -> StatedSize:
    """Read the voxel size of an ImageJ stack.

    Parameters
    ----------
    metadata : ImageJ's description: ``unit``, ``spacing`` and perhaps ``zunit`` and ``yunit``.
    resolution : pixels per unit along (y, x), or None
    """
    unit, origin = str(metadata.get("unit", "")), "its ImageJ description"

    def sized(value: Any, key: str) -> float | None:
        nanometers = unit_nanometers(str(metadata.get(key) or unit))
        on_paper = nanometers is not None and nanometers >= NANOMETERS["cm"]
        return (unprinted if on_paper else positive)(value, nanometers)

    # ImageJ marks stacks that run downwards by a negative spacing, and ignores the sign itself
    z = sized(str(metadata.get("spacing")).strip().removeprefix("-"), "zunit")
    if resolution is None:
        return StatedSize((z, None, None), origin)
    y, x = sized(_inverse(resolution[0]), "yunit"), sized(_inverse(resolution[1]), "unit")
    return StatedSize((z, y, x), origin)


def size_from_resolution(unit: int, resolution: tuple[float, float] | None) -> StatedSize:
    """Read the pixel size from TIFF resolution tags.

    Parameters
    ----------
    unit : 2 inch, 3 centimetre, else none
    resolution : pixels per unit along (y, x), or None

    Examples
    --------
    >>> size_from_resolution(3, (2e6, 2e6)).axes, size_from_resolution(2, (4800, 4800)).axes
    ((None, 5.0, 5.0), (None, None, None))
    """
    if resolution is None or unit not in (INCH, CENTIMETER):
        return StatedSize()
    nanometers = NANOMETERS["inch" if unit == INCH else "cm"]
    y, x = (unprinted(_inverse(r), nanometers) for r in resolution)
    return StatedSize((None, y, x), "its TIFF resolution tags")


def _inverse(value: float) -> float | None:
    return 1 / value if value > 0 else None


def positive(value: Any, unit: float | None) -> float | None:
    """Convert a size to nm, with 9 digits; None where it is no size that voxels have."""
    try:
        size = float(value) * (unit or math.nan)
    except (TypeError, ValueError):
        return None
    smallest, largest = PLAUSIBLE
    return float(f"{size:.9g}") if smallest <= size <= largest else None


def read_length(value: Any) -> float | None:
    """Read a length in any unit; None where it is none."""
    try:
        size = float(value)
    except (TypeError, ValueError):
        return None
    return size if math.isfinite(size) and size > 0 else None


def unprinted(value: Any, unit: float | None) -> float | None:
    """Convert a size in a unit of paper to nm; None where it is one of a print or a scan.

    Examples
    --------
    >>> unprinted(1 / 5.08e6, 2.54e7), unprinted(1 / 4800, 2.54e7)
    (5.0, None)
    """
    size = positive(value, unit)
    return size if size is not None and size < PRINTED else None
