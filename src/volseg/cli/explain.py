"""``volseg explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volseg.api.looking import ExplainKeywords, explain
from volseg.cli.options import volume_argument, with_options
from volseg.cli.session import Session
from volseg.cli.wording import duration
from volseg.errors import command

SHOWN = 5


@with_options("volseg explain vol.zarr --roi 0:4,100:356,100:356", ExplainKeywords)
@volume_argument
def explain_command(session: Session, volume: Path, **options: Any) -> None:
    """Explain what a network finds in a region of VOLUME.

    Writes VOLUME/explanations/NAME: uncertainty over flips and views, saliency, Seg-Grad-CAM,
    coefficients of attention gates, and the strongest filters, as layers that report and view show.
    """
    report = explain(volume, progress=session.progress(), **options)
    session.notes(report.notes)
    mean, most = report.uncertainty
    lines = [
        f"{report.path}: {', '.join(report.layers)}, after {duration(report.seconds)}",
        f"found: {report.found:.1%} of the region",
        f"deviation of the probability over flips and views: mean {mean:.3f}, highest {most:.3f}",
    ]
    if report.filters:
        listed = ", ".join(f"{k} ({added:+.2f})" for k, added in report.filters[:SHOWN])
        lines.append(f"strongest filters, with what they add to the mean logit: {listed}")
    if report.sheet is not None:
        lines.append(f"contact sheet: {report.sheet}")
    lines.append(f"next: {command('view', volume, name=report.path.name)}")
    session.result(report, "\n".join(lines))
