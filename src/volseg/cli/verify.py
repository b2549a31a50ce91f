"""``volseg verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from volseg.api.judging import VerifyKeywords, verify
from volseg.cli.options import scratch_option, volume_argument, with_options
from volseg.cli.session import WORK_FAILED, Session
from volseg.cli.wording import counted, duration, scaled

if TYPE_CHECKING:
    from volseg.stages.verify.run import VerifyReport


@with_options("volseg verify vol.zarr --sample 4", VerifyKeywords)
@volume_argument
@scratch_option
def verify_command(session: Session, volume: Path, **options: Any) -> None:
    """Check that VOLUME and its results are readable, complete and consistent.

    Reads every voxel, compares pyramids and labels with what they were made from, and predicts a
    few blocks again. Changes nothing. Exit status 1 if anything is wrong; docs/verify.md says what
    is found, and what is not.
    """
    asked = click.get_current_context().get_parameter_source("sample")
    if options["quick"] and options["sample"] and asked is not ParameterSource.DEFAULT:
        raise click.UsageError("--quick compares nothing; leave out --quick or --sample")
    report = verify(volume, progress=session.progress(), **options)
    session.result(report, describe_report(volume, report))
    if not report.ok:
        raise SystemExit(WORK_FAILED)


def describe_report(volume: Path, report: VerifyReport) -> str:
    """Describe the findings."""
    looked = f"{', '.join(report.arrays)}; {scaled(report.voxels)} voxels read"
    after = f"after {duration(report.seconds)}"
    again = len(report.sampled)
    if again:
        looked += f", {counted(again, 'block')} predicted again"
    if report.ok:
        lines = [f"{volume} is intact: {looked}, {after}"]
    else:
        found = "1 thing is" if report.failures == 1 else f"{report.failures} things are"
        lines = [f"{volume} is damaged: {found} wrong in {looked}, {after}"]
    lines += [f"  {f.kind}: {f.place}: {f.message}" for f in report.findings]
    if report.failures > len(report.findings):
        lines.append(f"  and {report.failures - len(report.findings)} more like these")
    lines += [f"  to mend {a}" for a in report.advice]
    return "\n".join([*lines, *(f"  not verified: {s}" for s in report.skipped)])
