"""``volseg run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click

from volseg.api.running import place_of
from volseg.api.whole import RunKeywords, plan_jobs, run
from volseg.cli.options import RESULT, min_size_option, reads, scratch_option, with_options
from volseg.cli.session import Session
from volseg.cli.stats import describe_stats, listed


@with_options("volseg run stack.tif --voxel-size 5,5,5", RunKeywords, **RESULT)
@click.argument("source")
@click.argument("volume", required=False, type=reads(place_of))
@min_size_option
@scratch_option
@click.option("--dry-run", is_flag=True, help="List the stacks and their volumes; compute nothing.")
def run_command(
    session: Session, source: str, volume: Path | None, dry_run: bool, **options: Any
) -> None:
    """Convert, segment, measure and report on SOURCE, a stack or a folder of stacks.

    SOURCE is what `volseg convert` takes. A folder or quoted glob is one stack if its first image
    has one page; if that has several pages, each file is a stack. A folder without images is a
    folder of stacks: of Zarr images and of folders of slices. Stacks of labels or masks among them
    are left out, and told. Prints one row per stack, and writes one report (see `volseg report`).

    VOLUME is the OME-Zarr folder to create, for a folder of stacks the folder of their volumes.
    [default: stack.zarr beside stack.tif; stacks-volseg beside stacks; a Zarr image is segmented
    where it is]

    The same command resumes an interrupted run.
    """

    def tell(text: str) -> None:
        session.notes([text])

    if dry_run:
        jobs, _ = plan_jobs(source, volume, cast("RunKeywords", options), tell)
        lines = [f"{job.source} -> {job.volume}" for job in jobs]
        session.result(jobs, "\n".join([*lines, "nothing was computed or written (--dry-run)"]))
        return
    report = run(source, volume, on_note=tell, progress=session.progress(), **options)
    for result in report.measured:
        session.notes(result.notes)
    found = {
        "volumes": [listed(r) for r in report.measured],
        "report": report.report,
        "left_out": report.left_out,
    }
    session.result(found, f"{describe_stats(report.measured)}\nreport: {report.report.path}")
