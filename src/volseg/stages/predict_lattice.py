"""Lay a network's tiles over a volume: at which scale, how large, and how far apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

from volseg.blocks import AxisLattice, Lattice
from volseg.errors import ModelError, ParameterError
from volseg.io.volumes import Image
from volseg.io.weights import Card
from volseg.models.registry import Architecture
from volseg.types import VoxelSize, Zyx

CUBE = 192
"""Least side of the tiles of a 2D network that looks along all three axes."""
SAME_SCALE = 0.1
"""Voxel sizes closer than this (relative) to the model's are taken as equal."""
THICK = 6.5
"""A section's thickness in network voxels from which a network of slices finds more: at 5 nm, one
of volumes is ahead at 30 nm and behind at 35 (studies/section_thickness.py)."""
OF_VOLUMES, OF_SLICES = "emnet", "unet2d"
"""The shipped networks that are used unless another is asked for."""
FINEST = 0.2
"""Volume voxels per network voxel, at least: what thicker sections lack, no interpolation adds."""


def network_scales(
    image: Image, card: Card, form: Architecture
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Find how many voxels of the volume make one of the network's, along each axis.

    A network of slices takes those that there are, however thick.

    Returns
    -------
    scales : three floats
        Exactly 1 where the sizes agree; never below `FINEST`.
    notes : tuple of str
        What the user should know.
    """
    if image.voxel_size is None:
        size = ", ".join(f"{v:g}" for v in card.voxel_size)
        return (1.0, 1.0, 1.0), (
            (
                f"the voxel size is unknown and taken as the model's, {size} nm; convert with "
                f"--voxel-size if it is another"
            ),
        )
    ratios = [m / v for m, v in zip(card.voxel_size, image.voxel_size, strict=True)]
    if form.dimensions == 2 and form.stride[0] == 1:
        ratios[0] = 1.0
    scales = tuple(1.0 if abs(r - 1) <= SAME_SCALE else max(r, FINEST) for r in ratios)
    notes = []
    if max(max(r, 1 / r) for r in ratios) > 2:
        notes.append(
            f"the voxels measure {image.voxel_size} nm, the model was trained at "
            f"{card.voxel_size} nm: beyond a factor of 2, check the result closely"
        )
    if form.dimensions == 3 and _is_thick(ratios):
        notes.append(
            f"sections of {image.voxel_size[0]:g} nm are thick for a network of volumes; one of "
            f"slices, such as --model {OF_SLICES}, found more in such data (docs/models/README.md)"
        )
    return scales, tuple(notes)


def suitable_model(size: VoxelSize | None, trained: VoxelSize) -> tuple[str, tuple[str, ...]]:
    """Choose among the shipped networks for a volume, where nobody has.

    Parameters
    ----------
    size : of the volume's voxels, if it is known
    trained : of the voxels that the network of volumes was trained at

    Returns
    -------
    model : str
    notes : what the user should know

    Examples
    --------
    >>> suitable_model((50.0, 4.6, 4.6), (5.0, 5.0, 5.0))[0]
    'unet2d'
    """
    if size is None or not _is_thick([t / s for t, s in zip(trained, size, strict=True)]):
        return OF_VOLUMES, ()
    note = (
        f"sections of {size[0]:g} nm are thick, so the model is {OF_SLICES}, a network of slices; "
        f"--model {OF_VOLUMES} is one of volumes"
    )
    return OF_SLICES, (note,)


def _is_thick(ratios: Sequence[float]) -> bool:
    """Tell whether sections are too thick for a network of volumes, from the scales along axes."""
    return ratios[0] * THICK < 1 and 2 * ratios[0] < min(ratios[1:])


def nearest_level(image: Image, scales: tuple[float, ...]) -> int:
    """Choose the pyramid level whose voxels are nearest to the network's."""

    def distance(level: int) -> float:
        pairs = zip(image.factors[level], scales, strict=True)
        return sum(abs(math.log(f / s)) for f, s in pairs)

    return min(range(len(image.levels)), key=distance)


def build_lattice(
    shape: Zyx,
    card: Card,
    scales: tuple[float, ...],
    form: Architecture,
    asked: Zyx | None = None,
) -> Lattice:
    """Lay tiles over a volume, no larger than the volume asks for.

    Parameters
    ----------
    shape : of the volume
    card, form : of the model, and how its network may be tiled
    scales : level-0 voxels per network voxel, (z, y, x)
    asked : sizes to take in place of the model's

    Raises
    ------
    ModelError
        If the card's tile does not lie on the network's lattice.
    ParameterError
        If the one that is asked for does not.
    """
    tile, overlap = viewed_tile(card, form)
    tile = asked or tile
    if form.fit(tile) != tile or any(
        o > t // 2 or (t - o) % s for t, o, s in zip(tile, overlap, form.stride, strict=True)
    ):
        more = f"{form.offset} more than " if any(form.offset) else ""
        rules = (
            f"tiles of {card.architecture} are {more}multiples of {form.multiple}, lie multiples "
            f"of {form.stride} apart, and are at least twice their overlap"
        )
        if asked is not None:
            raise ParameterError(f"{rules} of {overlap}; found --tile {asked}")
        raise ModelError(f"{rules}; the card says {tile} that overlap by {overlap}")
    z, y, x = (math.ceil(n / s) + 2 * o for n, s, o in zip(shape, scales, overlap, strict=True))
    sizes = zip(shape, tile, form.fit((z, y, x)), overlap, scales, strict=True)
    axes = [AxisLattice(n, min(t, enough), o, scale) for n, t, enough, o, scale in sizes]
    return Lattice((axes[0], axes[1], axes[2]))


def viewed_tile(card: Card, form: Architecture) -> tuple[Zyx, Zyx]:
    """Find tile and overlap: the card's, or cubes for slices along all three axes."""
    if form.dimensions == 3 or form.stride[0] == 1:
        return card.tile, card.overlap
    overlap = max(card.overlap[1:])
    side = max(CUBE, 2 * overlap)
    return form.fit((side, side, side)), (overlap, overlap, overlap)
