"""``volseg report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from volseg.api.reporting import ReportKeywords, report
from volseg.api.running import place_of
from volseg.cli.options import reads, with_options
from volseg.cli.session import Session
from volseg.cli.wording import counted, duration, scaled


@with_options("volseg report vol.zarr --output report.html", ReportKeywords)
@click.argument("volumes", metavar="VOLUME...", nargs=-1, required=True, type=reads(place_of))
def report_command(session: Session, volumes: tuple[Path, ...], **options: Any) -> None:
    """Write one HTML page about each VOLUME and its objects.

    Shows counts, planes with the objects, distributions, a comparison of volumes, the objects to
    proofread first, and the methods. `volseg stats` has to measure the volumes first. The page
    holds all its pictures, needs no network, and can be printed.
    """
    result = report(volumes, progress=session.progress(), **options)
    listed = counted(result.suspects, "object")
    session.result(
        result,
        f"{result.path}: {scaled(result.nbytes)}B, {listed} to proofread, after "
        f"{duration(result.seconds)}",
    )
