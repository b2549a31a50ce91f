"""``volseg info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volseg.api.opening import info
from volseg.cli.options import volume_argument, with_options
from volseg.cli.session import Session
from volseg.cli.wording import counted, extent, voxels_of


@with_options("volseg info vol.zarr")
@volume_argument
def info_command(session: Session, volume: Path) -> None:
    """Describe VOLUME and the results in it."""
    found = info(volume)
    session.result(found, "\n".join(_lines(volume, found)))


def _lines(volume: Path, found: dict[str, Any]) -> list[str]:
    lines = [f"{volume}: {_image(found)}", *(f"  note: {note}" for note in found["notes"])]
    for kind in ("probabilities", "labels"):
        lines += [f"  {kind}/{name}: {_image(image)}" for name, image in found[kind].items()]
    return lines + [f"  tables/{name}.parquet" for name in found["tables"]]


def _image(image: dict[str, Any]) -> str:
    unfinished = "" if image["volseg"].get("complete", True) else ", incomplete"
    return _origin(image) + (
        f"{extent(image['shape'])} {image['dtype']}, {voxels_of(image['voxel_size'])}, "
        f"{len(image['levels'])} levels, shards of {extent(image['shard'])}{unfinished}"
    )


def _origin(image: dict[str, Any]) -> str:
    """Describe how a result was made.

    Examples
    --------
    >>> _origin({"objects": 5, "model": "emnet", "threshold": 0.5, "date": "2026-11-29T10:00:00"})
    '5 objects by emnet, threshold 0.5, 2026-11-29; '
    """
    count = image.get("objects")
    parts = [] if count is None else [counted(count, "object")]
    if image.get("model"):
        parts.append(f"by {image['model']}")
    if image.get("corrected_from"):
        parts.append(f"corrected from {image['corrected_from']}")
    words = [" ".join(parts)] if parts else []
    if "threshold" in image:
        words.append(f"threshold {image['threshold']:g}")
    if image.get("date"):
        words.append(image["date"][:10])
    return f"{', '.join(words)}; " if words else ""
