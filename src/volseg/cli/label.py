"""``volseg label``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volseg.api.making import LabelKeywords, label
from volseg.cli.options import (
    RESULT,
    min_size_option,
    note_scratch,
    scratch_option,
    volume_argument,
    with_options,
)
from volseg.cli.session import Session
from volseg.cli.wording import counted, duration
from volseg.errors import command


@with_options(
    "volseg label vol.zarr --threshold 0.6 --min-size 500 --overwrite", LabelKeywords, **RESULT
)
@volume_argument
@min_size_option
@scratch_option
def label_command(session: Session, volume: Path, **options: Any) -> None:
    """Find the objects in VOLUME/probabilities/NAME by other rules, without predicting again.

    `volseg segment` includes this step. With --probabilities, those of another program take the
    place of a prediction. Writes VOLUME/labels/NAME; --overwrite replaces objects found by
    different rules.
    """
    note_scratch(session, volume)
    name, report = options["name"], label(volume, progress=session.progress(), **options)
    session.notes(report.notes)
    text = f"{counted(report.objects, 'object')} in {volume / 'labels' / name}"
    text += f"; {report.expected}" if report.expected else ""
    after = f"after {duration(report.seconds)}"
    session.result(report, f"{text}, {after}; next: {command('stats', volume, name=name)}")
