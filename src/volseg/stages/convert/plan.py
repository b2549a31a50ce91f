"""Plan a conversion: open the source, settle its voxel size, and check that there is a place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from volseg.engine.options import available_cores, check_workers
from volseg.errors import ConflictError, ParameterError
from volseg.fields import as_json
from volseg.sources.open import open_stack
from volseg.sources.stack import Selection, Stack
from volseg.sources.voxel_size import settle_voxel_size
from volseg.storage.arrays import DEFAULT_CHUNK, DEFAULT_SHARD, ArraySpec, fit_spec
from volseg.storage.attributes import read_attributes
from volseg.storage.locations import parse_location
from volseg.storage.ome import Space
from volseg.storage.remote import as_remote
from volseg.storage.stores import file_of, is_zarr
from volseg.storage.targets import check_apart, check_target
from volseg.storage.volumes import open_image
from volseg.types import VoxelSize, Zyx

MODIFIED = "modified"
"""Entry of a source's description: the date of its newest file, in whole seconds, as copies have
it."""
SLAB_BYTES, SHALLOWEST = 2 << 30, 8
"""Size of a slab of planes from which shards are made shallower, and the depth where that ends."""


@dataclass(frozen=True)
class ConvertOptions:
    """Choices for a conversion; see `volseg.api.making.ConvertKeywords`.

    What is overwritten stands until the new volume is complete. Areas of ``fill_value`` are
    background however small they are, and voxels that are not finite become it.
    """

    voxel_size: VoxelSize | None = None
    channel: int | None = None
    time: int | None = None
    series: int | None = None
    axes: str | None = None
    pad: bool = False
    crop: bool = False
    images: bool = False
    grey: bool = False
    fill_value: float | None = None
    workers: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if self.pad and self.crop:
            raise ParameterError("--pad and --crop exclude each other")

    @property
    def selection(self) -> Selection:
        """Choices among what the source holds."""
        pad = self.pad or (self.images and not self.crop)
        fit: Literal["pad", "crop"] | None = "pad" if pad else "crop" if self.crop else None
        more = self.grey or self.images or None, self.images or None
        return Selection(self.channel, self.time, self.series, self.axes, fit, *more)


@dataclass(frozen=True)
class ConvertReport:
    """A volume as it was, or would be, converted.

    Attributes
    ----------
    voxel_size, voxel_size_from : nm (z, y, x), None if unknown; and where it comes from.
    memory_bytes : of the slabs that are held at once, as far as they do not compress.
    """

    shape: Zyx
    dtype: str
    voxel_size: VoxelSize | None
    voxel_size_from: str | None
    levels: int
    raw_bytes: int
    memory_bytes: int
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ConvertPlan:
    """A conversion: an open source, the form of the volume, and where it goes.

    Attributes
    ----------
    space, voxel_size_from : scale, origin and units; and where the scale comes from.
    """

    stack: Stack
    source: dict[str, Any]
    fill_value: float | None
    target: Path
    space: Space
    voxel_size_from: str | None
    spec: ArraySpec
    workers: int
    overwrite: bool
    warnings: tuple[str, ...]

    @property
    def voxel_size(self) -> VoxelSize | None:
        """Size of voxels in nm (z, y, x), None if unknown."""
        return self.space.voxel_size

    @property
    def report(self) -> ConvertReport:
        """Say what a conversion would write, and take."""
        stack = self.stack
        plane = _plane_bytes(stack)
        return ConvertReport(
            shape=stack.shape,
            dtype=stack.dtype.name,
            voxel_size=self.voxel_size,
            voxel_size_from=self.voxel_size_from,
            levels=0,
            raw_bytes=plane * stack.shape[0],
            # Two slabs of level 0, one encoded, less than a third of one for all other levels.
            memory_bytes=int(plane * min(self.spec.shard[0], stack.shape[0]) * 10 / 3),
            seconds=0.0,
            warnings=self.warnings,
        )


@contextmanager
def plan_conversion(
    source: str | Path, target: Path, options: ConvertOptions
) -> Iterator[ConvertPlan]:
    """Open a source, and check that it can be converted; its files are closed at the end."""
    check_target(target, overwrite=options.overwrite)
    with _open(source, target, options) as plan:
        yield plan


@contextmanager
def _open(source: str | Path, target: Path, options: ConvertOptions) -> Iterator[ConvertPlan]:
    check_apart(source, target)
    stack = open_stack(source, options.selection)
    try:
        if stack.array is not None:
            check_apart(target, parse_location(str(source)))
        size, origin, warnings = settle_voxel_size(stack.stated, options.voxel_size)
        known = stack.space if size is None else stack.space.resized(size)
        known = replace(known, planar=known.planar or options.images)
        yield ConvertPlan(
            stack=stack,
            source=_describe(stack, options),
            fill_value=_check_value(options.fill_value, stack.dtype),
            target=target,
            space=known,
            voxel_size_from=origin,
            spec=_fit_spec(stack),
            workers=options.workers or available_cores(),
            overwrite=options.overwrite,
            warnings=(*stack.warnings, *warnings),
        )
    finally:
        stack.close()


def _fit_spec(stack: Stack) -> ArraySpec:
    """Choose chunks and shards; shallower ones where planes are wide, as slabs are held whole."""
    (thick, *chunk), (depth, *shard) = DEFAULT_CHUNK, DEFAULT_SHARD
    while depth > SHALLOWEST and depth * _plane_bytes(stack) > SLAB_BYTES:
        depth //= 2
    thick = min(thick, depth)
    chosen = (thick, chunk[0], chunk[1]), (depth, shard[0], shard[1])
    return fit_spec(stack.shape, stack.dtype.name, *chosen)


def _plane_bytes(stack: Stack) -> int:
    return math.prod(stack.shape[1:]) * stack.dtype.itemsize


def _check_value(value: float | None, dtype: np.dtype[Any]) -> float | None:
    """Check that voxels of this type can hold a value, and round it as they do."""
    if value is None:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        held = float(np.array(value).astype(dtype))
    if not math.isfinite(held) or (dtype.kind != "f" and held != value):
        raise ParameterError(f"no voxel of type {dtype} holds --fill-value {value:g}")
    return held


def _describe(stack: Stack, options: ConvertOptions) -> dict[str, Any]:
    first, last = stack.files[0], stack.files[-1]
    local = [f for f in stack.files if as_remote(f) is None]
    dates = [file_of(f).stat().st_mtime for f in local]
    dated = {MODIFIED: int(max(dates))} if dates else {}
    given = asdict(options.selection) | {"fill_value": options.fill_value}
    chosen = {name: value for name, value in given.items() if value is not None}
    if stack.array is not None:
        return {"first": first.name, **dated, **stack.metadata, **chosen}
    size = sum(f.stat().st_size for f in stack.files)
    files = {"files": len(stack.files), "first": first.name, "last": last.name, "bytes": size}
    return {**files, **dated, **stack.metadata, **chosen}


def is_converted(source: str | Path, target: Path, options: ConvertOptions) -> bool:
    """Tell whether a volume is what a conversion would write, by its provenance and its date."""
    if not is_zarr(target):
        return False
    noted = read_attributes(target).get("volseg", {})
    if not noted.get("complete"):
        return False
    with _open(source, target, options) as plan:
        image, stack = open_image(target), plan.stack
        ours, theirs = as_json(plan.source), dict(noted.get("source") or {})
        dates = ours.pop(MODIFIED, 0), theirs.pop(MODIFIED, None)
        differing = {
            "its source": ours != theirs,
            "its shape": stack.shape != image.levels[0].shape,
            "its voxel size": plan.voxel_size != image.voxel_size,
            "the date of its source": _was_changed(*dates, target),
        }
    found = [what for what, differs in differing.items() if differs]
    if found and not options.overwrite:
        raise ConflictError(
            f"{target} is not what {source} gives now: {', '.join(found)} differs; choose another "
            f"VOLUME, or give --overwrite to replace it"
        )
    return not found


def _was_changed(date: int, noted: Any, target: Path) -> bool:
    """Tell whether a source has another date than is noted of it, whatever the time is here."""
    if isinstance(noted, int):
        return date != noted
    # of volumes of earlier versions; a clock that is ahead makes sources look newer
    written = (target / "zarr.json").stat().st_mtime if as_remote(target) is None else math.inf
    return date > written
