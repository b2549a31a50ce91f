"""Lay a network's tiles over a volume: at which scale, how large, and how far apart."""

from __future__ import annotations

import math

from volseg.errors import ModelError, ParameterError, command
from volseg.geometry.lattice import AxisLattice, Lattice
from volseg.models.registry import AXES, TURNED, Architecture, Views, axes_of, turned
from volseg.storage.cards import Card
from volseg.storage.volumes import Image
from volseg.types import VoxelSize, Zyx, extent

DEEP = 256
"""Most network voxels along z of the tiles of a 2D network that looks along all three axes."""
APART = 20
"""Distance in nm of the slices along y and x that are averaged with all slices along z: nearer ones
show nearly the same (decision 0056)."""
STACK, SHARED = 32, 2
"""Of these, how many one tile holds, and how many neighbouring tiles share."""
EDGE = {2: 32, 3: 0}
"""Network voxels of reflected context beyond the ends of a volume, by a network's dimensions."""
SAME_SCALE = 0.1
"""Voxel sizes closer than this (relative) to the model's are taken as equal."""
THICK = 6.5
"""A section's thickness in network voxels from which networks of volumes find less: EM-Net, which
knows 5 nm, is as good as ever at 30 nm and not at 35 (studies/section_thickness.py)."""
CUBIC = 1.2
"""Voxels whose sides differ by more than this factor look too different along other axes to be
averaged, even where that is asked for; up to it, earlier versions averaged them unasked."""
DEPTH = 33
"""Least network voxels along each axis of a volume for slices along all three to be averaged: in
narrower slices a network knows little, and spoils what it knows of wide ones (decision 0060)."""
FINEST = 0.2
"""Volume voxels per network voxel, at least: what thicker sections lack, no interpolation adds."""


def network_scales(
    image: Image, card: Card, views: Views = "xy", zoom: float = 1.0, *, named: bool = True
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Find how many voxels of the volume make one of the network's, along each axis.

    A network of slices along z takes those that there are, however thick.

    Parameters
    ----------
    views : which slices a 2D network sees
    zoom : voxels are taken as so many times as large as they are said to be
    named : whether somebody chose the model, as who takes the advice of a preview does
    """
    notes = []
    if image.voxel_size is None:
        notes.append(
            f"the voxel size is unknown and taken as the model's, "
            f"{extent(card.voxel_size)} nm; convert with --voxel-size if it is another"
        )
    known = image.voxel_size or card.voxel_size
    ratios = [m / (v * zoom) for m, v in zip(card.voxel_size, known, strict=True)]
    dimensions = card.form.dimensions
    if dimensions == 2 and views == "xy":
        ratios[0] = 1.0
    scales = tuple(1.0 if abs(r - 1) <= SAME_SCALE else max(r, FINEST) for r in ratios)
    if max(max(r, 1 / r) for r in ratios) > 2:
        taken = "" if zoom == 1 else f", taken as {zoom:g} times as large,"
        advice = "" if named else f"; `{command('preview', image.path)}` tries models and scales"
        notes.append(
            f"voxels of {extent(known)} nm{taken} are resampled to those that the model was "
            f"trained at, {extent(card.voxel_size)} nm, by more than a factor of 2{advice}"
        )
    if dimensions == 3 and ratios[0] * THICK < 1 and 2 * ratios[0] < min(ratios[1:]):
        notes.append(
            f"sections of {known[0]:g} nm are thick for a network of volumes; one of "
            f"slices, such as --model unet2d, found more in such data (docs/models/README.md)"
        )
    return scales, tuple(notes)


def nearest_level(image: Image, scales: tuple[float, ...]) -> int:
    """Choose the pyramid level whose voxels are nearest to the network's."""

    def distance(level: int) -> float:
        pairs = zip(image.factors[level], scales, strict=True)
        return sum(abs(math.log(f / s)) for f, s in pairs)

    return min(range(len(image.levels)), key=distance)


def choose_views(
    shape: Zyx,
    size: VoxelSize | None,
    card: Card,
    zoom: float = 1.0,
    *,
    cubic: float = 1 + SAME_SCALE,
) -> tuple[Views, str]:
    """Choose the slices that a network of slices sees of a volume.

    Along all three axes where voxels are cubes (to a tenth) and every slice is wide enough; else
    along the axis whose slices are the widest, or along z where the voxels' form is unknown or no
    cube. ``size`` is in nm; no side of a cube is more than ``cubic`` times another.
    """
    if size is None or max(size) / min(size) > cubic:
        return "xy", "along z"
    sides = [n * v * zoom / m for n, v, m in zip(shape, size, card.voxel_size, strict=True)]
    if min(sides) >= DEPTH:
        return "ortho", "along z, y and x"
    narrowest = [min(sides[k] for k in TURNED[axis][1:]) for axis in range(3)]
    axis = narrowest.index(max(narrowest))
    return tuple(AXES)[axis], (
        f"along {'zyx'[axis]} alone, because slices along other axes are narrower than {DEPTH} of "
        f"its voxels"
    )


def build_lattices(
    shape: Zyx, card: Card, scales: tuple[float, ...], views: Views = "xy", asked: Zyx | None = None
) -> tuple[Lattice, ...]:
    """Lay tiles over a volume, no larger than the volume asks for.

    Parameters
    ----------
    scales : level-0 voxels per network voxel, (z, y, x)
    asked : sizes to take in place of the model's
    """
    lattices = []
    for axis in axes_of(views):
        form = card.form.viewed(axis)
        tile, overlap, spaced = turned(card.tile, axis), turned(card.overlap, axis), scales
        if views == "ortho" and axis > 0:
            tile, overlap, spaced = _sparse_slices(card, form, axis, scales)
        most = asked or tile
        if misfit := form.find_misfit(most, overlap):
            rules = f"tiles of {card.architecture} {misfit}; found"
            if asked is not None:
                raise ParameterError(f"{rules} --tile {asked}, which overlap by {overlap}")
            raise ModelError(f"{rules} {tile} in the card, which overlap by {overlap}")
        z, y, x = (_lay(form, a, shape[a], most[a], overlap[a], spaced[a]) for a in range(3))
        lattices.append(Lattice((z, y, x), form.margin, axis))
    return tuple(lattices)


def _lay(
    form: Architecture, axis: int, length: int, most: int, overlap: int, scale: float
) -> AxisLattice:
    """Lay few tiles along an axis, none larger than it has to be.

    What is left over where sizes are rounded up widens overlaps.
    """
    edge, stride = min(EDGE[form.dimensions], overlap), form.stride[axis]
    held = math.ceil(length / scale) + 2 * edge

    def size(count: int) -> int:
        each = max(-(-(held + (count - 1) * overlap) // count), 2 * overlap * (count > 1))
        return form.fit((each,) * 3)[axis]

    fewest = max(-(-(held - overlap) // (most - overlap)), 1)
    count = min(range(fewest, fewest + 3), key=lambda n: n * size(n))
    tile = size(count)
    if count > 1 and overlap:
        spare = (count * tile - held) // (count - 1) - overlap
        overlap += min(spare, tile // 2 - overlap) // stride * stride
    return AxisLattice(length, tile, min(overlap, tile // 2), scale, edge)


def _sparse_slices(
    card: Card, form: Architecture, axis: int, scales: tuple[float, ...]
) -> tuple[Zyx, Zyx, tuple[float, ...]]:
    """Lay out the slices along y or x that are averaged with those along z."""
    overlap = turned((SHARED, *card.overlap[1:]), axis)
    z, y, x = turned((STACK, *card.tile[1:]), axis)
    # what is deep waits in hand-overs for long: they take room on the disk
    tile = form.fit((min(z, max(DEEP, 2 * overlap[0])), y, x))
    apart = max(round(APART / card.voxel_size[axis]), 1)
    return tile, overlap, tuple(s * apart if a == axis else s for a, s in enumerate(scales))
