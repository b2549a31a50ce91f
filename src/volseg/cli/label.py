"""``volseg label``."""

from __future__ import annotations

from pathlib import Path

import click

from volseg.cli.options import (
    engine_options,
    min_size_option,
    name_option,
    overwrite_option,
    scheduler_option,
    sizes_option,
    threshold_option,
    volume_argument,
    workers_option,
)
from volseg.cli.session import Session, with_session
from volseg.cli.wording import duration
from volseg.types import Zyx


@click.command("label")
@volume_argument
@threshold_option
@min_size_option
@name_option
@workers_option
@scheduler_option
@sizes_option("--block", "Voxels per task, rounded up to whole shards.")
@overwrite_option
@with_session
def label_command(
    session: Session,
    volume: Path,
    threshold: float | None,
    min_size: int,
    name: str,
    workers: int | None,
    scheduler: str | None,
    block: Zyx | None,
    overwrite: bool,
) -> None:
    """Find the objects in VOLUME/probabilities/NAME again, with another threshold or size.

    `volseg segment` does this by itself. Writes VOLUME/labels/NAME; --overwrite replaces what is
    there.
    """
    from volseg.stages.label import LabelOptions, label

    options = LabelOptions(
        threshold=threshold,
        min_size=min_size,
        block=block,
        engine=engine_options(workers, scheduler),
        overwrite=overwrite,
    )
    report = label(volume, name, options, session.progress())
    where = volume / "labels" / name
    text = f"{report.objects} objects in {where}, after {duration(report.seconds)}"
    session.result(report, f"{text}; next: volseg stats {volume}")
