"""``volseg label``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
def label_command(session: Session, volume: Path, name: str, **options: Any) -> None:
    """Find the objects in VOLUME/probabilities/NAME again, with another threshold or size.

    `volseg segment` does this by itself. Writes VOLUME/labels/NAME; --overwrite replaces what is
    there.
    """
    from volseg.stages.label import LabelOptions, label

    engine = engine_options(options.pop("workers"), options.pop("scheduler"))
    report = label(volume, name, LabelOptions(**options, engine=engine), session.progress())
    where = volume / "labels" / name
    text = f"{report.objects} objects in {where}, after {duration(report.seconds)}"
    session.result(report, f"{text}; next: volseg stats {volume}")
