"""``volseg segment``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volseg.cli.label import object_rules, pop_rules
from volseg.cli.options import (
    device_option,
    dry_run_option,
    engine_flags,
    engine_options,
    name_option,
    note_scratch,
    overwrite_option,
    roi_option,
    scratch_option,
    sizes_option,
    volume_argument,
)
from volseg.cli.session import Session, with_session
from volseg.cli.wording import duration, scaled

if TYPE_CHECKING:
    from volseg.stages.segment import SegmentEstimate, SegmentOptions


@click.command("segment")
@volume_argument
@click.option(
    "--model",
    help="A shipped model (see `volseg models list`) or the path of a .safetensors file.  "
    "[default: unet2d; emnet where centerlines are wanted]",
)
@click.option(
    "--tta", is_flag=True, help="Average over flips: 8 times the work, 4 for networks of slices."
)
@click.option(
    "--rotations", is_flag=True, help="With --tta, over quarter turns in (y, x) too: twice that."
)
@click.option(
    "--views",
    type=click.Choice(["xy", "ortho"]),
    help="Slices that a 2D network sees; ortho averages those along all axes of cubic voxels.  "
    "[default: xy; without --model, ortho where voxels are cubes]",
)
@click.option(
    "--store-centerline",
    is_flag=True,
    help="Also write probabilities/NAME-centerline (EM-Net only); --split centerline does, too.",
)
@object_rules
@name_option
@roi_option
@device_option
@engine_flags
@sizes_option("--block", "Voxels per task, rounded up to whole shards.")
@sizes_option(
    "--tile", "Network voxels evaluated at once, where memory is short; it decides the result."
)
@overwrite_option
@click.option(
    "--repair",
    is_flag=True,
    help="Make what is damaged in a complete result again, and nothing else.",
)
@scratch_option
@dry_run_option
@with_session
def segment_command(
    session: Session,
    volume: Path,
    dry_run: bool,
    repair: bool,
    **prediction: Any,
) -> None:
    """Find the mitochondria of VOLUME.

    Writes VOLUME/probabilities/NAME and the objects to VOLUME/labels/NAME. A run that was
    interrupted goes on where it was when the same command is given again.
    """
    from volseg.stages.predict.plan import PredictOptions, choose_model
    from volseg.stages.segment import SegmentOptions, estimate, segment

    if repair and (dry_run or prediction["overwrite"]):
        raise click.UsageError("--repair keeps what is intact; leave out --overwrite and --dry-run")
    engine = engine_options(prediction)
    rules = pop_rules(prediction)
    if prediction["model"] is None:
        lines = prediction["store_centerline"] or rules["split"] == "centerline"
        model, views, chosen = choose_model(volume, prediction["views"], centerline=lines)
        prediction |= {"model": model, "views": views}
        session.note(f"note: {chosen}")
    prediction["views"] = prediction["views"] or "xy"
    options = SegmentOptions(PredictOptions(**prediction, engine=engine), repair=repair, **rules)
    if dry_run:
        plan = estimate(volume, options)
        session.result(plan, describe_estimate(plan))
        return
    note_scratch(session, volume)
    report = segment(volume, options, session.progress())
    for mended in report.mended:
        session.note(f"repaired {mended}")
    for note in (*report.predict.notes, *report.label.notes):
        session.note(f"note: {note}")
    session.result(report, _summary(volume, options, report.label.objects, report.seconds))


def _summary(volume: Path, options: SegmentOptions, objects: int, seconds: float) -> str:
    where = volume / "labels" / options.predict.name
    return f"{objects} objects in {where}, after {duration(seconds)}; next: volseg stats {volume}"


def describe_estimate(plan: SegmentEstimate) -> str:
    """Put in words what a run would take."""
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
