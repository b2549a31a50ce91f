"""``volseg export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from volseg.api.exporting import ExportKeywords, export_all
from volseg.cli.options import volume_argument, with_options
from volseg.cli.session import Session
from volseg.cli.wording import counted, duration, voxels_of
from volseg.types import extent

WHAT = ("labels", "probabilities", "raw", "table", "slices")


@with_options(
    "volseg export vol.zarr labels --output mitochondria.tif", ExportKeywords, objects="--object"
)
@volume_argument
@click.argument("what", type=click.Choice(WHAT), default="labels")
def export_command(session: Session, volume: Path, what: Any, **options: Any) -> None:
    """Write labels, probabilities, raw voxels or tables of VOLUME for other programs.

    The ending of --output names the form: .tif (ImageJ), .ome.tif, .h5, .zarr (OME-Zarr 0.4) or
    .precomputed (neuroglancer); .pngs is a folder of PNG files; .glb, .ply and .stl hold surfaces
    of the objects; .csv, .tsv and .xlsx hold the tables of objects and slices. --in-place writes a
    copy for programs that know Zarr v2 alone into VOLUME, and --remove removes it.
    """
    results = export_all(
        volume,
        what,
        on_note=lambda text: session.notes([text]),
        progress=session.progress(),
        **options,
    )
    lines = []
    for done in results:
        session.notes(done.notes)
        if options["remove"]:
            said = "its copy as Zarr v2 is removed"
        elif done.shape is None:
            said = counted(done.rows or 0, "object" if done.form == "mesh" else "row")
        else:
            said = f"{extent(done.shape)} {done.dtype}, {voxels_of(done.voxel_size)}"
        lines.append(f"{done.output}: {said}, after {duration(done.seconds)}")
    session.result(results if len(results) > 1 else results[0], "\n".join(lines))
