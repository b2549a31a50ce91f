"""``volseg apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volseg.api.making import ApplyKeywords, apply
from volseg.cli.options import note_scratch, scratch_option, volume_argument, with_options
from volseg.cli.session import Session
from volseg.cli.wording import counted, duration
from volseg.errors import command


@with_options(
    "volseg apply vol.zarr --corrections corrections.json",
    ApplyKeywords,
    overwrite="--overwrite/--resume",
)
@volume_argument
@scratch_option
def apply_command(session: Session, volume: Path, **options: Any) -> None:
    """Correct the objects in VOLUME/labels/NAME: delete, merge, split or add some.

    Writes VOLUME/labels/NAME-corrected (with --marks NAME-marked, with --confirmed-by
    NAME-confirmed), and its tables if there are current ones of NAME. Only what the corrections
    touch is computed; every other object keeps its label.
    """
    note_scratch(session, volume)
    report = apply(volume, progress=session.progress(), **options)
    session.notes(report.notes)
    name = report.path.name
    stats, pages = command("stats", volume, name=name), command("report", volume, name=name)
    follow = stats if report.table is None else pages
    text = (
        f"{counted(report.objects, 'object')} in {report.path}, {counted(report.blocks, 'block')} "
        f"computed, after {duration(report.seconds)}; next: {follow}"
    )
    session.result(report, text)
