"""OME-Zarr images: raw volumes, probabilities and labels alike, with pyramids and metadata."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from volseg.errors import ConflictError, ParameterError, VolumeError, command
from volseg.geometry.pyramid import pyramid_factors, reduced_shape
from volseg.storage.arrays import ArraySpec, StoredArray, create_array, fit_spec, open_array
from volseg.storage.attributes import check_notes, list_label, read_node, read_tissue, write_group
from volseg.storage.chunks import LZ4, ZSTD
from volseg.storage.ledger import locked
from volseg.storage.locations import remote_scratch
from volseg.storage.ome import (
    AXES,
    IMAGES,
    OME_VERSION,
    Space,
    multiscales_of,
    ome_metadata,
    read_levels,
    space_of,
    telling_damage,
)
from volseg.storage.remote import as_remote
from volseg.storage.stores import Standing, is_zarr, what_stands_at
from volseg.types import VoxelSize, Zyx, zyx
from volseg.voxels.intensity import Preprocessing, Tone, find_tone

PATIENCE = 60
"""Seconds to wait for another command that lists its labels too."""
SLICES = "-slices"
"""End of the name of a table of slices."""


@dataclass(frozen=True)
class Image:
    """A multiscale image.

    Attributes
    ----------
    path : the group's folder, or the array's where there is no group.
    levels : arrays, finest first.
    factors : level-0 voxels per voxel of each level, (z, y, x).
    voxel_size : nm (z, y, x) of level 0; None if unknown.
    attributes : what volseg noted: provenance, histogram, fingerprint.
    space : scale, origin and units of level 0, as they are stated.
    astray : paths of levels that lie elsewhere than level 0, and are not used.
    """

    path: Path
    levels: tuple[StoredArray, ...]
    factors: tuple[tuple[float, float, float], ...]
    voxel_size: VoxelSize | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    space: Space = field(default_factory=Space)
    astray: tuple[str, ...] = ()


def check_name(name: str) -> str:
    """Check that a result's name is one that a folder and a table in the volume can have.

    Raises
    ------
    ParameterError
        If it could mean another place, or the table of another result.

    Examples
    --------
    >>> check_name("mitochondria")
    'mitochondria'
    >>> check_name("../raw")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    volseg.errors.ParameterError: a name is that of one folder in the volume: not empty...
    """
    if not name or "/" in name or "\0" in name or name.startswith("."):
        raise ParameterError(
            f"a name is that of one folder in the volume: not empty, without / and not beginning "
            f"with a dot; found {name!r}, give another --name"
        )
    return name


def _check_table(name: str) -> str:
    """Check that tables of a name are not taken for those of another."""
    if name.endswith(SLICES):
        raise ParameterError(
            f"{SLICES} is what tables of slices end in; found {name!r}, give another --name"
        )
    return check_name(name)


def probabilities_path(volume: Path, name: str) -> Path:
    """Say where a volume keeps probabilities of a name, from which labels and tables get theirs."""
    return volume / "probabilities" / _check_table(name)


def labels_path(volume: Path, name: str) -> Path:
    """Say where a volume keeps labels of a name."""
    return volume / "labels" / check_name(name)


def table_path(volume: Path, name: str) -> Path:
    """Say where a volume keeps the table of its objects."""
    return volume / "tables" / f"{_check_table(name)}.parquet"


def slices_path(volume: Path, name: str) -> Path:
    """Find where a volume's table of one row per slice lies."""
    return volume / "tables" / f"{_check_table(name)}{SLICES}.parquet"


def scratch_path(volume: Path) -> Path:
    """Say where ledgers and scratch of a volume lie: in it, or here for one on object storage."""
    remote = as_remote(volume)
    return volume / ".volseg" if remote is None else remote_scratch(remote)


MATCHED = 2
"""Levels of labels whose shards each stand for one of level 0; those of more would be too small."""


def create_image(
    path: Path,
    spec: ArraySpec,
    voxel_size: VoxelSize | Space | None,
    *,
    label: bool = False,
    name: str | None = None,
    attributes: Mapping[str, Any],
) -> Image:
    """Create an empty OME-Zarr 0.5 image with all the levels of its pyramid.

    Parameters
    ----------
    spec : of level 0
    voxel_size : nm (z, y, x), or None if unknown; or the space of what the image is derived from
    label : whether it holds labels
    attributes : what volseg notes beside the OME metadata
    """
    space = voxel_size if isinstance(voxel_size, Space) else space_of(voxel_size)
    depth = 1 if space.planar else spec.shape[0]  # images stay apart on all levels
    factors = pyramid_factors((depth, *spec.shape[1:]), space.voxel_size)
    attributes = {IMAGES: True, **attributes} if space.planar else attributes
    ome = ome_metadata(name or path.name, factors, space, label=label)
    if (path / "zarr.json").is_file():
        raise ConflictError(f"{path} exists already")
    write_group(path, {"ome": ome, "volseg": dict(attributes)})
    group = path.parent
    if group.name in {"probabilities", "labels"} and not is_zarr(group):
        write_group(group, {})  # so that readers find what is in it
    levels = []
    for k, factor in enumerate(factors):
        shape = reduced_shape(spec.shape, factor)
        fitted = fit_spec(shape, spec.dtype, spec.chunk, spec.shard)
        if label and k > 0:
            fitted = _matching(spec, shape, factors[min(k, MATCHED)]) or fitted
        stored = replace(spec if k == 0 else fitted, compression=LZ4 if label else ZSTD)
        levels.append(create_array(path / str(k), stored))
    known = path, tuple(levels), tuple(zyx(map(float, f)) for f in factors)
    return Image(*known, space.voxel_size, dict(attributes), space)


def _matching(fine: ArraySpec, shape: Zyx, factor: Zyx) -> ArraySpec | None:
    """Choose shards that each stand for one of a finer level: whoever writes that writes both."""
    pairs = list(zip(fine.shard, fine.chunk, factor, strict=True))
    if any(s % f for s, _, f in pairs):
        return None
    z, y, x = (s // f for s, _, f in pairs)
    chunk = [c if s // f % c == 0 else s // f for s, c, f in pairs]
    return ArraySpec(shape, fine.dtype, zyx(chunk), (z, y, x))


def open_image(path: Path) -> Image:
    """Open an image that volseg or others wrote: OME-Zarr 0.4 or 0.5, or a plain Zarr array.

    Parameters
    ----------
    path : a group with `multiscales` metadata, or an array
    """
    array, attributes = read_node(path)
    if array:
        return Image(path, (open_array(path),), ((1.0, 1.0, 1.0),), None)
    multiscales = multiscales_of(attributes)
    if multiscales is None:
        raise VolumeError(_why_no_image(path))
    notes = check_notes(path, attributes.get("volseg", {}))
    if notes.get("complete") is False and "run" not in notes:
        raise VolumeError(
            f"{path} is incomplete: its conversion has not ended; convert the source again"
        )
    with telling_damage(path):
        return _multiscale(path, multiscales[0], notes)


def check_complete(image: Image) -> Image:
    """Refuse a result whose run has not ended."""
    if image.attributes.get("complete") is False:
        raise VolumeError(f"{image.path} is incomplete; run the command that began it again")
    return image


def inner_images(path: Path) -> list[str]:
    """List the images that lie in a group by their numbers, as bioformats2raw lays them out."""
    array, attributes = read_node(path)
    ome = attributes.get("ome", attributes)
    if array or not isinstance(ome, dict) or "bioformats2raw.layout" not in ome:
        return []
    return list(itertools.takewhile(lambda name: is_zarr(path / name), map(str, itertools.count())))


def _why_no_image(path: Path) -> str:
    standing = what_stands_at(path)
    if standing is Standing.NOTHING:
        return f"there is nothing at {path}"
    if standing is Standing.FILE:
        return (
            f"{path} is a file, a volume is a folder: make one with "
            f"`{command('convert', path, path.with_suffix('.zarr'))}`"
        )
    if inner := inner_images(path):
        return (
            f"{path} holds {len(inner)} image(s), as bioformats2raw writes them; name one: "
            f"{path / inner[0]}"
        )
    return (
        f"{path} is no OME-Zarr image: it has no multiscales metadata; name an image or array "
        f"within it, or convert a stack: `{command('convert', 'STACK', 'VOLUME.zarr')}`"
    )


def _multiscale(path: Path, multiscale: Mapping[str, Any], attributes: Mapping[str, Any]) -> Image:
    named_levels, axes = read_levels(multiscale)
    # what is elsewhere would be taken for what level 0 holds
    described = [level for level in named_levels if level.lies_on(named_levels[0])]
    astray = tuple(level.path for level in named_levels if level not in described)
    levels = [open_array(level.within(path)) for level in described]
    axes = axes[-3:]
    if [a["name"] for a in axes] not in ([], list(AXES)):
        raise VolumeError(
            f"{path} has the axes {[a['name'] for a in axes]}, expected {list(AXES)}: convert it "
            f"with `{command('convert', path, 'VOLUME.zarr')}`"
        )
    first, units = described[0], [str(a.get("unit") or "") for a in axes]
    named = zyx(units) if first.stated and units and all(units) else None
    space = Space(first.scale, first.origin, named, planar=bool(attributes.get(IMAGES)))
    factors = [
        zyx(float(a / b) for a, b in zip(level.scale, first.scale, strict=True))
        for level in described
    ]
    known = path, tuple(levels), tuple(factors)
    return Image(*known, space.voxel_size, attributes, space, astray)


def register_label(volume: Path, name: str) -> None:
    """List labels in a volume's ``labels`` group, where OME-Zarr readers look for them."""
    # labels of two names may be finished at once, and both change one list
    with locked(scratch_path(volume) / "labels.lock", patience=PATIENCE):
        list_label(volume, name, OME_VERSION)


def volume_tone(image: Image, preprocessing: Preprocessing, *, invert: bool = False) -> Tone:
    """Find what a preprocessing does to a volume, from the histogram that is frozen in it.

    Background that was found with it is left out, unless there is nothing else.
    """
    histogram = image.attributes.get("histogram")
    if not histogram:
        raise VolumeError(
            f"{image.path} has no histogram of its intensities; "
            f"`{command('segment', image.path)}` counts them"
        )
    counts, values = read_tissue(image.path, histogram, image.attributes.get("survey") or {})
    return find_tone(preprocessing, counts, values, invert=invert)
