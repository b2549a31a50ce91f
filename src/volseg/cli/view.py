"""``volseg view``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from volseg.api.viewing import ViewKeywords, view
from volseg.cli.options import volume_argument, with_options
from volseg.cli.session import Session

PAUSE = 3600


@with_options("volseg view vol.zarr --at 12", ViewKeywords)
@volume_argument
def view_command(session: Session, volume: Path, **options: Any) -> None:
    """Show VOLUME and its results in a browser on this machine, until Ctrl-C.

    Prints the address of neuroglancer, which needs no network and shows raw, probabilities,
    objects and their table. Voxels are read where they are looked at.
    """
    served = view(volume, **options)
    try:
        session.notes(served.scene.notes)
        session.result({"url": served.url, "state": served.state}, served.url)
        session.note("serving this address until Ctrl-C")
        while True:
            time.sleep(PAUSE)
    except KeyboardInterrupt:
        pass
    finally:
        served.stop()
