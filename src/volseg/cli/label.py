"""``volseg label``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from volseg.cli.options import (
    Command,
    engine_flags,
    engine_options,
    name_option,
    note_scratch,
    overwrite_option,
    scratch_option,
    sizes_option,
    threshold_option,
    volume_argument,
)
from volseg.cli.session import Session, with_session
from volseg.cli.wording import duration


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


def object_rules(command: Command) -> Command:
    """Add the flags that say what becomes an object."""
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
        default="26",
        show_default=True,
        help="Neighbours that are one object: over faces, also edges, also corners.",
    ),
    click.option(
        "--min-size",
        default="0",
        show_default=True,
        metavar="VOXELS|nm3",
        callback=lambda _context, _parameter, text: parse_min_size(text),
        help="Drop smaller objects: voxels, or a volume such as 62500nm3.",
    ),
    click.option(
        "--min-probability",
        type=click.FloatRange(0, 1),
        help="Drop objects whose mean probability is lower.  [default: the model's]",
    ),
    click.option(
        "--fill-holes", is_flag=True, help="Give an object the background that it encloses."
    ),
    click.option(
        "--split",
        type=click.Choice(["none", "distance", "centerline", "kmeans"]),
        default="none",
        show_default=True,
        help="Part objects that touch, by a watershed from maxima of the distance to their "
        "surface, from probabilities/NAME-centerline, or from the centres of K-means.",
    ),
    click.option(
        "--split-depth",
        type=click.FloatRange(0, min_open=True),
        default=2.0,
        show_default=True,
        metavar="VOXELS",
        help="With --split distance, by how much a neck is thinner than what it joins.",
    ),
)


AS_GIVEN = ("threshold", "seed_threshold", "min_probability", "fill_holes", "split", "split_depth")


def pop_rules(options: dict[str, Any]) -> dict[str, Any]:
    """Take the rules of objects out of a command's options, as `ObjectRules` names them."""
    return {
        "connectivity": int(options.pop("connectivity")),
        **options.pop("min_size"),
        **{key: options.pop(key) for key in AS_GIVEN},
    }


@click.command("label")
@volume_argument
@object_rules
@name_option
@engine_flags
@sizes_option("--block", "Voxels per task, rounded up to whole shards.")
@overwrite_option
@scratch_option
@with_session
def label_command(session: Session, volume: Path, name: str, **options: Any) -> None:
    """Find the objects in VOLUME/probabilities/NAME again, with other rules.

    `volseg segment` does this by itself. Writes VOLUME/labels/NAME; --overwrite replaces what is
    there.
    """
    from volseg.stages.label.rules import LabelOptions
    from volseg.stages.label.run import label

    engine = engine_options(options)
    rules = pop_rules(options)
    chosen = LabelOptions(**rules, **options, engine=engine)
    note_scratch(session, volume)
    report = label(volume, name, chosen, session.progress())
    for note in report.notes:
        session.note(f"note: {note}")
    where = volume / "labels" / name
    text = f"{report.objects} objects in {where}, after {duration(report.seconds)}"
    session.result(report, f"{text}; next: volseg stats {volume}")
