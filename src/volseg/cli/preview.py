"""``volseg preview``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.api.looking import PreviewKeywords, preview
from volseg.cli.options import volume_argument, with_options
from volseg.cli.session import Session
from volseg.cli.wording import counted, scaled
from volseg.errors import command

if TYPE_CHECKING:
    from volseg.stages.preview.run import PreviewReport
    from volseg.stages.preview.trial import Trial


@with_options("volseg preview vol.zarr", PreviewKeywords, models="--model")
@volume_argument
def preview_command(session: Session, volume: Path, **options: Any) -> None:
    """Try models and scales on a few places of VOLUME, in less than a minute.

    Draws a contact sheet: raw, then the outlines that the best trials found, each row one place.
    Ranks models and scales by how well they agree with one another, and prints the command to run.
    Writes nothing into VOLUME.
    """
    report = preview(volume, progress=session.progress(), **options)
    session.notes(report.notes)
    session.result(listed(report), describe_report(volume, report))


def describe_report(volume: Path, report: PreviewReport) -> str:
    """Describe the ranking, and say what to do next."""
    from volseg.scores.likeness import tell_tissue

    lines = ["model            zoom  score  certainty  agreement  foreground  voxels"]
    lines += [describe_trial(trial) for trial in report.trials]
    if any(trial.score > report.trials[0].score for trial in report.trials):
        lines.append(
            "the first is advised without the highest score: its model's training data are more "
            "like this tissue, or its zoom is nearer to 1"
        )
    if report.late:
        lines.append(
            f"left out for lack of time: {counted(report.late, 'trial')}; a better scale may be "
            f"among them, so give more --seconds"
        )
    if small := report.skipped - report.late:
        lines.append(f"left out, as slices are too small or too large: {counted(small, 'trial')}")
    lines.append(f"contact sheet, raw and then the trials in this order: {report.sheet}")
    lines += [told] if (told := tell_tissue(report.tissue)) else []
    lines.append(advise(volume, report))
    return "\n".join(lines)


def describe_trial(trial: Trial) -> str:
    """Describe a trial in one line."""
    name = Path(trial.model).stem
    return (
        f"{name:15}  {trial.zoom:4g}  {trial.score:5.2f}  {trial.certainty:9.2f}  "
        f"{trial.agreement:9.2f}  {trial.found:10.1%}  {scaled(trial.work):>6}"
    )


def advise(volume: Path, report: PreviewReport) -> str:
    """Name the command that segments, or the places to annotate."""
    best = report.trials[0]
    if report.sure:
        zoom = () if best.zoom == 1 else ("--zoom", f"{best.zoom:g}")
        views = () if report.views == "xy" else ("--views", report.views)
        return "next: " + command("segment", volume, "--model", best.model, *zoom, *views)
    where = "; ".join(f"z {z}, about y {y}, x {x}" for z, y, x in report.places)
    slices = ",".join(str(z) for z in sorted({z for z, _, _ in report.places}))
    words: tuple[str, ...] = ("--labels", "labels.tif", "--slices", slices, "--from", best.model)
    if report.notes:  # of an unknown voxel size, without which training is refused
        words = (*words, "--voxel-size", "Z,Y,X")
    return (
        f"no model is sure here: annotate slices at {where}, and train on them (docs/training.md): "
        f"{command('train', volume, '--output', 'mine', *words)}"
    )


def listed(report: PreviewReport) -> dict[str, Any]:
    """List what ``--json`` prints."""
    return {
        "trials": [
            {
                "model": trial.model,
                "zoom": trial.zoom,
                "score": trial.score,
                "certainty": trial.certainty,
                "agreement": trial.agreement,
                "foreground": trial.found,
                "network_voxels": trial.work,
            }
            for trial in report.trials
        ],
        "places": report.places,
        "sheet": report.sheet,
        "sure": report.sure,
        "tissue": dict(report.tissue),
        "skipped": report.skipped,
        "late": report.late,
        "notes": report.notes,
        "seconds": report.seconds,
    }
