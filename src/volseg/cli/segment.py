"""``volseg segment``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volseg.api.making import estimate, segment
from volseg.cli.help import Command
from volseg.cli.label import object_rules, take_rules
from volseg.cli.options import (
    block_option,
    device_option,
    dry_run_option,
    engine_flags,
    name_option,
    note_scratch,
    overwrite_option,
    precision_option,
    roi_option,
    scratch_option,
    sizes_option,
    volume_argument,
)
from volseg.cli.session import Session, with_session
from volseg.cli.wording import duration, scaled
from volseg.errors import command

if TYPE_CHECKING:
    from volseg.stages.estimate import SegmentEstimate


@click.command(
    "segment", cls=Command, example="volseg segment vol.zarr --model emnet --min-size 500"
)
@volume_argument
@click.option(
    "--model",
    metavar="NAME|PATH",
    help="Use this shipped model (`volseg models list`) or .safetensors file.  "
    "[default: unet2d; emnet if centerlines are needed]",
)
@click.option(
    "--tta", is_flag=True, help="Average over flips: 8 times the work, 4 for 2D networks."
)
@click.option(
    "--rotations",
    is_flag=True,
    help="With --tta, average over quarter turns in (y, x) too.",
)
@click.option(
    "--views",
    type=click.Choice(["xy", "ortho"]),
    help="Show a 2D network slices along z, or average over slices along all three axes of cubic "
    "voxels.  [default: xy; without --model, ortho for cubic voxels]",
)
@click.option(
    "--store-centerline",
    is_flag=True,
    help="Also write probabilities/NAME-centerline (EM-Net only); implied by --split centerline.",
)
@object_rules
@name_option
@roi_option
@device_option
@precision_option
@engine_flags
@block_option
@sizes_option("--tile", "Evaluate smaller tiles where memory is short; this changes the result.")
@overwrite_option
@click.option(
    "--repair",
    is_flag=True,
    help="Replace the damaged parts of a complete result, and nothing else.",
)
@scratch_option
@dry_run_option
@with_session
def segment_command(
    session: Session, volume: Path, name: str, dry_run: bool, repair: bool, **options: Any
) -> None:
    """Find the mitochondria of VOLUME.

    Writes VOLUME/probabilities/NAME, and the objects to VOLUME/labels/NAME. The same command
    resumes an interrupted run.
    """
    if repair and (dry_run or options["overwrite"]):
        raise click.UsageError("--repair keeps what is intact; leave out --overwrite and --dry-run")
    chosen = {**take_rules(options), "name": name}
    if dry_run:
        plan = estimate(volume, **chosen)
        session.result(plan, describe_estimate(plan))
        return
    note_scratch(session, volume)
    report = segment(
        volume,
        repair=repair,
        on_note=lambda text: _note(session, text),
        progress=session.progress(),
        **chosen,
    )
    for mended in report.mended:
        session.note(f"repaired {mended}")
    for note in report.label.notes:
        _note(session, note)
    found = f"{report.label.objects} objects in {volume / 'labels' / name}"
    text = f"{found}, after {duration(report.seconds)}; next: {command('stats', volume, name=name)}"
    session.result(report, text)


def _note(session: Session, text: str) -> None:
    session.note(f"note: {text}")


def describe_estimate(plan: SegmentEstimate) -> str:
    """Describe what a run would take."""
    seconds = plan.seconds
    timed = (
        f"about {duration(seconds)}, from one tile evaluated just now" if seconds else "not known"
    )
    each = f", in each of {plan.processes} workers" if plan.processes > 1 else ""
    lines = [
        f"{scaled(plan.voxels)} voxels in {plan.blocks} blocks, {plan.tiles} tiles of the network",
        f"device     {plan.device}, {plan.precision}",
        f"time       {timed}",
        f"memory     {scaled(plan.memory_bytes)}B at most{each}",
        f"disk       at most {scaled(plan.disk_bytes)}B, before compression",
        *(f"note: {note}" for note in plan.notes),
        "nothing was computed or written (--dry-run)",
    ]
    return "\n".join(lines)
