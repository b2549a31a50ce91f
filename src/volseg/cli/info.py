"""``volseg info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from volseg.api.opening import info
from volseg.cli.help import Command
from volseg.cli.options import volume_argument
from volseg.cli.session import Session, with_session
from volseg.cli.wording import extent, voxels_of


@click.command("info", cls=Command, example="volseg info vol.zarr")
@volume_argument
@with_session
def info_command(session: Session, volume: Path) -> None:
    """Describe VOLUME and the results in it."""
    found = info(volume)
    session.result(found, "\n".join(_lines(volume, found)))


def _lines(volume: Path, found: dict[str, Any]) -> list[str]:
    lines = [f"{volume}: {_image(found)}"]
    for kind in ("probabilities", "labels"):
        lines += [f"  {kind}/{name}: {_image(image)}" for name, image in found[kind].items()]
    return lines + [f"  tables/{name}.parquet" for name in found["tables"]]


def _image(image: dict[str, Any]) -> str:
    unfinished = "" if image["volseg"].get("complete", True) else ", incomplete"
    return (
        f"{extent(image['shape'])} {image['dtype']}, {voxels_of(image['voxel_size'])}, "
        f"{len(image['levels'])} levels, shards of {extent(image['shard'])}{unfinished}"
    )
