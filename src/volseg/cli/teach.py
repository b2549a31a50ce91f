"""``volseg teach``."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volseg.api.teaching import TeachKeywords, forget_marks, teach
from volseg.cli.options import volume_argument, with_options
from volseg.cli.session import Session
from volseg.cli.wording import counted, duration
from volseg.errors import ParameterError, command

if TYPE_CHECKING:
    from volseg.stages.teach.run import TeachReport

FLAGS = {"marked_no": "--not", "marked_yes": "--yes"}
MARKS = (*FLAGS, "points", "painted", "simulate")
UNIT = re.compile("_(um2|um3|nm)$")
"""Endings of names of options, which their flags have not."""
FEW, MEASURED = 400, 1310
"""Steps of the shortest lessons that were measured, and of most (decision 0080)."""


@with_options("volseg teach vol.zarr --not 12,40 --yes 7", TeachKeywords, **FLAGS)
@volume_argument
@click.option("--forget", is_flag=True, help="Drop the marks of the last call; teach nothing.")
def teach_command(session: Session, volume: Path, forget: bool, **options: Any) -> None:
    """Teach the network what is no mitochondrion in VOLUME, by a few marks, in minutes.

    Marks are numbers of objects of VOLUME/labels/NAME, points or painted regions; all else is
    left open. Writes new weights beside VOLUME, draws the marked places before and after, and
    prints the commands that use them. The marks are kept in VOLUME.
    """
    name = options["name"]
    if forget:
        if any(options[kind] for kind in MARKS):
            raise ParameterError("--forget drops the marks of the last call, and takes no others")
        dropped, left = forget_marks(volume, name=name)
        found = {"dropped": dropped, "left": left}
        session.result(found, f"{counted(dropped, 'mark')} dropped, {left} left")
        return
    report = teach(volume, progress=session.progress(), **options)
    session.result(report, describe_report(volume, name, report))


def describe_report(volume: Path, name: str, report: TeachReport) -> str:
    """Say what was learned, and what to do next."""
    marks = f"marks: {report.marked_no} no, {report.marked_yes} yes"
    lines = [f"{marks}; nothing was trained"]
    if report.weights is not None:
        steps, parent = counted(report.steps, "step"), Path(report.parent).stem
        lines = [f"{marks}; {steps} from {parent}, {report.strength:.0%} of the change is kept"]
        lines.append("called mitochondria, of the voxels that are marked")
        for word, before, after in zip(("no", "yes"), report.before, report.after, strict=True):
            if not math.isnan(before):
                lines.append(f"  {word:3}  {before:6.1%} before, {after:6.1%} after")
        lines.append(f"weights: {report.weights}, after {duration(report.seconds)}")
        lines += _describe_few(steps, report)
    if report.sheet is not None:
        lines.append(f"marks, before and after: {report.sheet}")
    lines += _describe_suspects(volume, name, report)
    if report.max_section_um2 is not None:
        lines.append(
            f"the size of sections tells the marks apart: try --max-section "
            f"{report.max_section_um2:g}, too (docs/instances.md)"
        )
    if report.rule is not None:
        again = command("apply", volume, "--keep", report.rule, name=name)
        lines.append(f"{report.rule} tells the marked objects apart; to drop the others: {again}")
    if report.weights is not None:
        flags: list[object] = ["--model", report.weights]
        for option, value in report.segment.items():
            flag = f"--{UNIT.sub('', option).replace('_', '-')}"
            flags += [flag] if value is True else [flag, value]
        again = f"{name}-taught"
        lines.append("next: " + command("segment", volume, *flags, "--overwrite", name=again))
        kept = command("apply", volume, "--confirmed-by", again, "--overwrite", name=name)
        lines.append(f"then, to keep the objects of {name} that are found again: {kept}")
    if report.marked_no:
        # the outcome has a name of its own, so nothing else is replaced
        dropped = command("apply", volume, "--marks", "--overwrite", name=name)
        lines.append(f"to drop the marked objects in all slices: {dropped}")
    return "\n".join(lines)


def _describe_few(steps: str, report: TeachReport) -> list[str]:
    if report.steps >= FEW:
        return []
    minutes = math.ceil(report.seconds / max(report.steps, 1) * MEASURED / 60)
    again = f"the same command with --steps {MEASURED}, as was measured"
    return [f"{steps} may teach little: {again}, takes less than {minutes} min here"]


def _describe_suspects(volume: Path, name: str, report: TeachReport) -> list[str]:
    if not report.suspects:
        return [f"to see suspects here: {command('stats', volume, name=name)}"]
    shown = [
        f"  object {s.object} at z {s.place[0]}, y {s.place[1]}, x {s.place[2]}, {s.size}: "
        f"{', '.join(s.reasons)}"
        for s in report.suspects
    ]
    return ["not marked, and worth a look, with --not or --yes:", *shown]
