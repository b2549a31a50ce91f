"""``volseg stats``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volseg.api.judging import stats_all
from volseg.api.options import StatsKeywords
from volseg.api.running import place_of
from volseg.cli.options import reads, with_options
from volseg.cli.session import Session
from volseg.errors import list_some

if TYPE_CHECKING:
    from volseg.measures.summary import Sizes, Summary
    from volseg.stages.stats.run import VolumeStats

NM2_PER_UM2 = 1e6
INTERVAL = (
    "95% interval: the expected number of objects in a volume of this size lies in it, if they lie "
    "independently of each other (Poisson); it says nothing of objects that the network missed"
)


@with_options("volseg stats vol.zarr --output objects.csv", StatsKeywords)
@click.argument("volumes", nargs=-1, required=True, type=reads(place_of))
def stats_command(session: Session, volumes: tuple[Path, ...], **options: Any) -> None:
    """Count and measure the objects of each of VOLUMES.

    Prints one row per volume, and writes one row per object to VOLUME/tables/NAME.parquet, and one
    per slice to VOLUME/tables/NAME-slices.parquet. An object that touches the border of what was
    segmented may be cut by it. docs/measurements.md explains the columns.
    """
    results = stats_all(volumes, progress=session.progress(), **options)
    for result in results:
        session.notes(result.notes)
        session.notes(describe_contacts(result))
    session.result([listed(r) for r in results], describe_stats(results))
    session.note(INTERVAL)
    tables = [r.table for r in results] if options["output"] is None else [options["output"]]
    session.note(f"one row per object: {list_some(tables, 3)}")


def listed(result: VolumeStats) -> dict[str, Any]:
    """List what ``--json`` prints of a volume."""
    known = dataclasses.asdict(result.summary).items()
    summary = {k: v for k, v in known if v is not None}
    return {
        "volume": result.volume,
        **summary,
        "table": result.table,
        "slices": result.slices,
        "seconds": result.seconds,
        **({"expected": result.expected} if result.expected else {}),
        **({"dropped": result.dropped} if result.dropped else {}),
        **({"contacts": result.contacts} if result.contacts else {}),
    }


def describe_stats(results: Sequence[VolumeStats]) -> str:
    """Write one row per volume, of unrelated images with areas in place of volumes.

    Columns are in um^3 or um^2 only where all voxel sizes are known.
    """
    areas = all(r.summary.images is not None for r in results)
    sizes = [r.summary.sizes(areas=areas) for r in results]
    head = ["volume", "objects", "95% interval", "at border", "fraction"]
    unit = "pixels" if areas else "voxels"
    if physical := all(sizes):
        unit = "um^2" if areas else "um^3"
        head += [f"all per {unit}", f"unbiased per {unit}"]
    head += [f"mean {unit}", f"median {unit}", f"objects' total {unit}"]
    shown = [str(r.volume) for r in results]
    if len(set(shown)) < len(shown):
        shown = [f"{r.volume} {r.table.stem}" for r in results]
    cells = (
        _cells(r.summary, found if physical else None)
        for r, found in zip(results, sizes, strict=True)
    )
    rows = [head, *([name, *found] for name, found in zip(shown, cells, strict=True))]
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    told = [f"{name}: {r.expected}" for name, r in zip(shown, results, strict=True) if r.expected]
    told += [
        f"{name}: {each['told']}"
        for name, r in zip(shown, results, strict=True)
        for each in r.dropped.values()
    ]
    return "\n".join([*lines, *told])


def describe_contacts(result: VolumeStats) -> list[str]:
    """Say how many objects touch those of another result, and over which area."""
    found = result.contacts
    if found is None:
        return []
    area = "" if found.area_nm2 is None else f", over {found.area_nm2 / NM2_PER_UM2:.4g} um^2"
    all_of = f"{result.summary.objects} objects of {result.table.stem}"
    count = f"{found.touching} of {all_of} touch {found.name}{area}"
    return [f"{count}; one row per contact: {found.table}"]


def describe_interval(low: float, high: float) -> str:
    """Write the interval of a count, with a decimal only where that says something.

    Examples
    --------
    >>> describe_interval(4.795, 18.39), describe_interval(98.01, 145.97)
    ('4.8-18.4', '98.0-146')
    """
    return "-".join(f"{end:.1f}" if end < 100 else f"{end:.0f}" for end in (low, high))


def _cells(summary: Summary, sizes: Sizes | None) -> list[str]:
    cells = [
        str(summary.objects),
        describe_interval(summary.objects_low, summary.objects_high),
        str(summary.touching_border),
        f"{summary.volume_fraction:.4f}",
    ]
    if sizes is None:
        mean, median = f"{summary.mean_voxels:.1f}", f"{summary.median_voxels:.1f}"
        return [*cells, mean, median, str(summary.object_voxels)]
    found = (sizes.density, sizes.unbiased, sizes.mean, sizes.median, sizes.total)
    return [*cells, *(f"{value:.4g}" for value in found)]
