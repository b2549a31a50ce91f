"""``volseg label``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from volseg import defaults
from volseg.api.making import label
from volseg.cli.help import Command
from volseg.cli.options import (
    Command as AnyCommand,
)
from volseg.cli.options import (
    block_option,
    engine_flags,
    name_option,
    note_scratch,
    overwrite_option,
    scratch_option,
    threshold_option,
    volume_argument,
)
from volseg.cli.session import Session, with_session
from volseg.cli.wording import duration
from volseg.errors import command


def parse_min_size(text: str) -> dict[str, float]:
    """Read the smallest size of an object: voxels, or a volume that ends in nm3.

    Raises
    ------
    BadParameter
        If the text is neither.

    Examples
    --------
    >>> parse_min_size("500"), parse_min_size("62500nm3")
    ({'min_size': 500}, {'min_size_nm3': 62500.0})
    """
    number = text.strip().removesuffix("nm3")
    try:
        found = float(number) if text.strip().endswith("nm3") else int(number)
    except ValueError:
        found = -1
    if not 0 <= found < float("inf"):
        raise click.BadParameter(
            f"expected voxels, such as 500, or a volume, such as 62500nm3, found {text!r}"
        )
    return {"min_size": found} if isinstance(found, int) else {"min_size_nm3": found}


def object_rules(command: AnyCommand) -> AnyCommand:
    """Add the flags of the rules for objects."""
    for option in reversed(RULES):
        command = option(command)
    return command


RULES = (
    threshold_option,
    click.option(
        "--seed-threshold",
        type=click.FloatRange(0, 1, min_open=True),
        help="Keep objects with a voxel of at least this probability.  [default: all]",
    ),
    click.option(
        "--connectivity",
        type=click.Choice(["6", "18", "26"]),
        default=str(defaults.CONNECTIVITY),
        show_default=True,
        help="Join neighbours over faces (6), also edges (18), also corners (26).",
    ),
    click.option(
        "--min-size",
        metavar="VOXELS|nm3",
        callback=lambda _context, _parameter, text: {} if text is None else parse_min_size(text),
        help="Drop smaller objects: voxels, or a volume such as 62500nm3.  [default: the model's]",
    ),
    click.option(
        "--min-probability",
        type=click.FloatRange(0, 1),
        help="Drop objects whose mean probability is lower.  [default: the model's]",
    ),
    click.option("--fill-holes", is_flag=True, help="Add enclosed background to its object."),
    click.option(
        "--split",
        type=click.Choice(["none", "distance", "centerline", "kmeans"]),
        default=defaults.SPLIT,
        show_default=True,
        help="Separate touching objects by a watershed from maxima of the distance to their "
        "surface, from probabilities/NAME-centerline, or from the centres of K-means.",
    ),
    click.option(
        "--split-depth",
        type=click.FloatRange(0, min_open=True),
        default=defaults.SPLIT_DEPTH,
        show_default=True,
        metavar="VOXELS",
        help="Cut necks that are thinner by this much, with --split distance.",
    ),
)


def take_rules(options: dict[str, Any]) -> dict[str, Any]:
    """Name the rules of objects as the api does."""
    number, least = int(options.pop("connectivity")), options.pop("min_size")
    return {**options, "connectivity": number, **least}


@click.command(
    "label", cls=Command, example="volseg label vol.zarr --threshold 0.6 --min-size 500 --overwrite"
)
@volume_argument
@object_rules
@name_option
@engine_flags
@block_option
@overwrite_option
@scratch_option
@with_session
def label_command(session: Session, volume: Path, name: str, **options: Any) -> None:
    """Find the objects in VOLUME/probabilities/NAME by other rules, without predicting again.

    `volseg segment` includes this step. Writes VOLUME/labels/NAME; --overwrite replaces objects
    found by different rules.
    """
    note_scratch(session, volume)
    report = label(volume, name=name, progress=session.progress(), **take_rules(options))
    for note in report.notes:
        session.note(f"note: {note}")
    where = volume / "labels" / name
    text = f"{report.objects} objects in {where}, after {duration(report.seconds)}"
    session.result(report, f"{text}; next: {command('stats', volume, name=name)}")
