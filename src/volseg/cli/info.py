"""``volseg info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from volseg.api.looking import ExploreKeywords, explore
from volseg.api.opening import info
from volseg.cli.options import volume_argument, with_options
from volseg.cli.session import Session
from volseg.cli.wording import counted, voxels_of
from volseg.types import extent

NOTEWORTHY = 0.00005
"""Least part of saturated voxels that is told: what is printed as 0.01%."""


@with_options("volseg info vol.zarr", ExploreKeywords)
@volume_argument
@click.option("--explore", "exploring", is_flag=True, help="Look at voxels; draw a figure.")
def info_command(session: Session, volume: Path, exploring: bool, **options: Any) -> None:
    """Describe VOLUME and the results in it.

    With --explore: three views, intensities inside and outside of the objects, correlation of
    slices by their distance, mean sizes of objects.
    """
    if exploring:
        found = explore(volume, progress=session.progress(), **options)
        session.notes(found["notes"])
        session.result(found, "\n".join(describe_exploration(found)))
        return
    if any(v is not None and v is not False for name, v in options.items() if name != "name"):
        raise click.UsageError(
            "--output, --overwrite, --gamma and --equalise are for --explore; give it too"
        )
    found = info(volume)
    session.result(found, "\n".join(_lines(volume, found)))


def describe_exploration(found: dict[str, Any]) -> list[str]:
    """Describe an exploration in a few lines."""
    counted, unit = found["intensities"], "voxels" if found["voxel_size"] is None else "nm"
    lines = []
    for part in ("inside", "outside"):
        if counted.get(part, {}).get("voxels"):
            mean, sd = counted[part]["mean"], counted[part]["sd"]
            lines.append(f"intensities {part} objects: mean {mean:.4g}, sd {sd:.3g}")
    if counted["overlap"] is not None:
        lines.append(f"overlap of both: {counted['overlap']:.0%}, so much no threshold tells apart")
    if counted["saturated"] is not None:
        low, high = counted["saturated"]
        lines.append(f"saturated: {low:.2%} black, {high:.2%} white")
    for axis in (a for a in "zyx" if a in found["correlation"]):
        this = found["correlation"][axis]
        length = this["decay"] if unit == "voxels" else this["decay_nm"]
        reach = f"at {length:.4g} {unit}" if length is not None else "beyond what was looked at"
        lines.append(f"correlation of slices along {axis} falls to 1/e {reach}")
    if (objects := found["objects"]) and objects["objects"]:
        side, edge = objects["square_side_voxels"], objects.get("cube_side_voxels")
        area, volume = f"{objects['mean_area_voxels']:.0f} pixels", ""
        if objects["mean_area_nm2"] is not None:
            area = f"{objects['mean_area_nm2']:,.0f} nm²"
        if objects.get("mean_um3") is not None:
            volume = f"{objects['mean_nm3']:,.0f} nm³ ({objects['mean_um3']:.4g} µm³), "
        lines.append(f"mean area of an object in a slice: {area}, a square of {side:.0f} pixels")
        lines += [f"mean volume: {volume}a cube of {edge:.0f} voxels a side"] if edge else []
    return [*lines, *([f"figure: {found['figure']}"] if found["figure"] else [])]


def _lines(volume: Path, found: dict[str, Any]) -> list[str]:
    lines = [f"{volume}: {_image(found)}", *(f"  note: {note}" for note in found["notes"])]
    if any(part >= NOTEWORTHY for part in found["saturated"] or ()):
        low, high = found["saturated"]
        lines.append(f"  saturated: {low:.2%} of the voxels are black, {high:.2%} white")
    for kind in ("probabilities", "labels"):
        for name, image in found[kind].items():
            lines.append(f"  {kind}/{name}: {_image(image)}")
            lines += [f"    {image['expected']}"] if "expected" in image else []
            lines += [f"    {each['told']}" for each in image.get("dropped", {}).values()]
    lines += [
        f"  explanations/{name}: {of['roi']} by {of['model']}: {', '.join(of['layers'])}"
        for name, of in found["explanations"].items()
    ]
    return lines + [f"  tables/{name}.parquet" for name in found["tables"]]


def _image(image: dict[str, Any]) -> str:
    told = "" if image["volseg"].get("complete", True) else ", incomplete"
    told += ", and a copy as Zarr v2" if image["copied"] else ""
    return _origin(image) + (
        f"{extent(image['shape'])} {image['dtype']}, {voxels_of(image['voxel_size'])}, "
        f"{len(image['levels'])} levels, shards of {extent(image['shard'])}{told}"
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
        by = f" as confirmed by {image['confirmed_by']}" if image.get("confirmed_by") else ""
        parts.append(f"corrected from {image['corrected_from']}{by}")
    words = [" ".join(parts)] if parts else []
    if "threshold" in image:
        words.append(f"threshold {image['threshold']:g}")
    if image.get("date"):
        words.append(image["date"][:10])
    return f"{', '.join(words)}; " if words else ""
