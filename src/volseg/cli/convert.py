"""``volseg convert``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volseg.api.making import ConvertKeywords, convert
from volseg.cli.options import volume_argument, with_options
from volseg.cli.session import Session
from volseg.cli.wording import duration, scaled, voxels_of
from volseg.errors import command
from volseg.types import extent

if TYPE_CHECKING:
    from volseg.stages.convert.plan import ConvertReport

UNKNOWN_SIZE = (
    "warning: the source does not say how large its voxels are, so nothing will be measured in "
    "nm; give --voxel-size Z,Y,X, in nm, if you know it"
)


@with_options("volseg convert stack.tif vol.zarr --voxel-size 5,5,5", ConvertKeywords)
@click.argument("source")
@volume_argument
def convert_command(session: Session, source: str, volume: Path, **options: Any) -> None:
    """Convert SOURCE, a stack of images, to VOLUME, an OME-Zarr folder.

    SOURCE is a TIFF file with many pages (also BigTIFF, OME-TIFF, ImageJ), or a folder or a quoted
    glob of files that are one stack (TIFF, PNG, JPEG slices), or a Zarr array or OME-Zarr image,
    also by its URL, or an MRC file or HDF5 dataset (file.h5:/path); docs/formats.md lists all. The
    voxel size comes from the file, or from --voxel-size.
    """
    report = convert(source, volume, progress=session.progress(), **options)
    for warning in report.warnings:
        session.note(f"warning: {warning}")
    if report.voxel_size is None:
        session.note(UNKNOWN_SIZE)
    dry_run = options["dry_run"]
    session.result(report, describe_dry_run(report) if dry_run else _summary(report, volume))


def _summary(report: ConvertReport, volume: Path) -> str:
    return (
        f"{volume}: {extent(report.shape)} {report.dtype}, {_origin(report)}, {report.levels} "
        f"levels, after {duration(report.seconds)}; next: {command('preview', volume)}"
    )


def _origin(report: ConvertReport) -> str:
    known = report.voxel_size is not None
    return voxels_of(report.voxel_size) + (f" (from {report.voxel_size_from})" if known else "")


def describe_dry_run(report: ConvertReport) -> str:
    """Describe what a conversion would take."""
    return "\n".join(
        [
            f"{extent(report.shape)} {report.dtype}, {_origin(report)}",
            f"memory     {scaled(report.memory_bytes)}B at a time",
            # A pyramid that halves three axes adds a seventh, one that halves two a third.
            f"disk       at most {scaled(report.raw_bytes * 4 / 3)}B, before compression",
            "nothing was written (--dry-run)",
        ]
    )
