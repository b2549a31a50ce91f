"""Export: hand voxels, surfaces or tables of a volume on to other programs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from volseg.engine.progress import Progress
from volseg.engine.run import same_workers
from volseg.errors import BlockError, StorageError
from volseg.exchange.volumes.in_place import remove
from volseg.exchange.volumes.plan import ExportOptions, ExportPlan
from volseg.storage.remote import as_remote
from volseg.types import VoxelSize, Zyx


@dataclass(frozen=True)
class VolumeExport:
    """Result of an export.

    Attributes
    ----------
    shape, dtype, voxel_size : of voxels, (z, y, x), nm; None for tables and meshes.
    rows : of a table, or objects that were meshed; None for voxels.
    notes : what the user should know.
    """

    output: Path
    what: str
    form: str
    shape: Zyx | None
    dtype: str | None
    voxel_size: VoxelSize | None
    rows: int | None
    seconds: float
    notes: tuple[str, ...]


def export(plan: ExportPlan, progress: Progress) -> VolumeExport:
    """Write what was planned, completely or not at all."""
    begun, options, cut = time.monotonic(), plan.options, plan.cut
    notes, rows = plan.notes, None
    if options.in_place and options.remove and plan.image is not None:
        remove(plan.volume, plan.image, (options.what, options.name))
    elif cut is None or plan.form == "mesh":
        with same_workers(options.engine):
            rows, told = _write_rows(plan, progress)
        notes += told
    else:
        with same_workers(options.engine), _unfinished(options):
            notes += _write_voxels(plan, progress)
    voxels = cut if rows is None else None
    return VolumeExport(
        options.output,
        options.what,
        plan.form,
        None if voxels is None else voxels.shape,
        None if voxels is None else voxels.dtype.name,
        None if cut is None else cut.space.voxel_size,
        rows,
        time.monotonic() - begun,
        notes,
    )


@contextmanager
def _unfinished(options: ExportOptions) -> Iterator[None]:
    """Say of blocks that failed that the others are kept."""
    output = f"the copy in {options.output}" if options.in_place else str(options.output)
    try:
        yield
    except BlockError as error:
        cause = error.__cause__
        why = cause.strerror if isinstance(cause, OSError) else cause
        replaced = options.in_place or as_remote(options.output) is not None
        stands = "" if replaced else ", and what stood there stands"
        raise StorageError(
            f"{output} is incomplete{stands}; the same command does what is missing: {why or error}"
        ) from error


def _write_rows(plan: ExportPlan, progress: Progress) -> tuple[int, tuple[str, ...]]:
    if plan.cut is not None:
        from volseg.exchange.volumes.meshes import write_meshes

        return write_meshes(plan, plan.cut, progress)
    from volseg.exchange.volumes.sheets import write_sheet

    title = "objects" if plan.options.what == "table" else "slices"
    return write_sheet(plan.table or Path(), plan.options.output, title), ()


def _write_voxels(plan: ExportPlan, progress: Progress) -> tuple[str, ...]:
    """Write voxels by the function of their form; return what the user should know."""
    if plan.form in ("tiff", "ome-tiff"):
        from volseg.exchange.volumes.tiff import write_tiff as write
    elif plan.form == "hdf5":
        from volseg.exchange.volumes.hdf5 import write_hdf5 as write
    elif plan.form == "png":
        from volseg.exchange.volumes.png import write_png as write
    elif plan.form == "ome-zarr":
        from volseg.exchange.volumes.zarr_v2 import write_zarr as write
    else:
        from volseg.exchange.volumes.precomputed import write_precomputed as write

    return write(plan, plan.cut_of(plan.options.level), progress)
