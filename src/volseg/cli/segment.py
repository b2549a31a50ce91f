"""``volseg segment``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volseg.api.making import estimate, segment
from volseg.api.options import SegmentKeywords
from volseg.cli.options import (
    RESULT,
    min_size_option,
    note_scratch,
    scratch_option,
    volume_argument,
    with_options,
)
from volseg.cli.session import Session
from volseg.cli.wording import counted, duration, scaled
from volseg.errors import command

if TYPE_CHECKING:
    from volseg.stages.segment.estimate import SegmentEstimate


@with_options("volseg segment vol.zarr --model emnet --min-size 500", SegmentKeywords, **RESULT)
@volume_argument
@min_size_option
@scratch_option
@click.option(
    "--dry-run", is_flag=True, help="Print what a run would do and take; compute nothing."
)
def segment_command(session: Session, volume: Path, dry_run: bool, **options: Any) -> None:
    """Find the mitochondria of VOLUME.

    Writes VOLUME/probabilities/NAME, and the objects to VOLUME/labels/NAME. The same command
    resumes an interrupted run.
    """
    if options["repair"] and (dry_run or options["overwrite"]):
        raise click.UsageError("--repair keeps what is intact; leave out --overwrite and --dry-run")
    if dry_run:
        plan = estimate(volume, **options)
        session.result(plan, describe_estimate(plan))
        return
    note_scratch(session, volume)
    report = segment(
        volume, on_note=lambda text: session.notes([text]), progress=session.progress(), **options
    )
    for mended in report.mended:
        session.note(f"repaired {mended}")
    session.notes(dict.fromkeys(n for each in report.classes.values() for n in each.notes))
    names = list(report.classes)
    name = names[0]
    found = f"{counted(report.label.objects, 'object')} in {volume / 'labels' / name}"
    for other in names[1:]:
        found += f", {report.classes[other].objects} in {other}"
    found += f"; {report.label.expected}" if report.label.expected else ""
    after = f"after {duration(report.seconds)}"
    if report.predict.tiles:
        after += f"; tiles held {report.predict.work:.2f} times the voxels"
    text = f"{found}, {after}; next: {command('stats', volume, name=name)}"
    session.result(report, text)


def describe_estimate(plan: SegmentEstimate) -> str:
    """Describe what a run would take."""
    seconds = plan.seconds
    timed = (
        f"about {duration(seconds)}, from one tile evaluated just now" if seconds else "not known"
    )
    each = f", in each of {plan.processes} workers" if plan.processes > 1 else ""
    blocks, tiles = counted(plan.blocks, "block"), counted(plan.tiles, "tile")
    lines = [
        f"{scaled(plan.voxels)} voxels in {blocks}, {tiles} of the network",
        f"work       tiles hold {plan.work:.2f} times the voxels",
        f"device     {plan.device}, {plan.precision}",
        f"time       {timed}",
        f"memory     {scaled(plan.memory_bytes)}B at most{each}",
        f"disk       at most {scaled(plan.disk_bytes)}B, before compression",
        *(f"note: {note}" for note in plan.notes),
        "nothing was computed or written (--dry-run)",
    ]
    return "\n".join(lines)
