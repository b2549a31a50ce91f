"""``volseg view``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from volseg.api.looking import ViewKeywords, link, open_napari, view
from volseg.cli.options import volume_argument, with_options
from volseg.cli.session import Session

PAUSE = 3600


@with_options("volseg view vol.zarr --at 12", ViewKeywords)
@volume_argument
@click.option("--link", "linked", is_flag=True, help="Print a link to VOLUME, a URL.")
@click.option("--napari", "in_napari", is_flag=True, help="Open napari instead of a browser.")
def view_command(
    session: Session, volume: Path, linked: bool, in_napari: bool, **options: Any
) -> None:
    """Show VOLUME and its results in a browser on this machine, until Ctrl-C.

    Prints the address of neuroglancer, which needs no network and shows raw, probabilities,
    objects and their table. Voxels are read where they are looked at.
    """
    if linked and in_napari:
        raise click.UsageError("--link is for a browser, --napari opens napari; give one")
    if options["report"] is not None and (linked or in_napari):
        raise click.UsageError("--report is served to a browser; leave --link and --napari out")
    if linked:
        url = link(volume, **options)
        session.result({"url": url}, url)
        return
    if in_napari:
        open_napari(volume, **options)
        return
    served = view(volume, **options)
    try:
        session.notes(served.scene.notes)
        found = {"url": served.url, "state": served.state, "report": served.report}
        session.result(found, served.report or served.url)
        session.note("serving this address until Ctrl-C")
        while True:
            time.sleep(PAUSE)
    except KeyboardInterrupt:
        pass
    finally:
        served.stop()
