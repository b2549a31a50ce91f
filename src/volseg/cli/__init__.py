"""The command line: parse, call one function of the api, print.

Nothing here, nor what it imports at start-up, loads a heavy library: ``volseg --help`` is instant.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from volseg import __version__
from volseg.cli.apply import apply_command
from volseg.cli.convert import convert_command
from volseg.cli.evaluate import evaluate_command
from volseg.cli.explain import explain_command
from volseg.cli.export import export_command
from volseg.cli.info import info_command
from volseg.cli.label import label_command
from volseg.cli.models import models_command
from volseg.cli.preview import preview_command
from volseg.cli.report import report_command
from volseg.cli.run import run_command
from volseg.cli.segment import segment_command
from volseg.cli.stats import stats_command
from volseg.cli.streams import answer
from volseg.cli.teach import teach_command
from volseg.cli.train import train_command
from volseg.cli.verify import verify_command
from volseg.cli.view import view_command
from volseg.errors import StorageError

EXAMPLE = """\b
The main job, in one command and in three:
  volseg run stack.tif --voxel-size 5,5,5
\b
  volseg convert stack.tif vol.zarr --voxel-size 5,5,5
  volseg segment vol.zarr --model emnet
  volseg stats vol.zarr
"""


class Commands(click.Group):
    """Commands whose wrong usage is reported in JSON too, where that was asked for.

    A command that cannot be parsed has no `Session` to do that.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember ``--json`` before the arguments are used up."""
        ctx.obj = "--json" in args
        with reported(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with reported(ctx):
            return super().invoke(ctx)


@contextmanager
def reported(ctx: click.Context) -> Iterator[None]:
    """Print a usage error as JSON, if that was asked for, before click prints it."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.ClickException as error:
        if ctx.obj:
            report = {"error": error.format_message(), "kind": type(error).__name__}
            with suppress(StorageError):
                answer(json.dumps(report))
        raise


@click.group(cls=Commands, epilog=EXAMPLE, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Count and measure mitochondria in electron-microscopy volumes of any size."""


for _command in (
    run_command,
    convert_command,
    info_command,
    preview_command,
    segment_command,
    label_command,
    stats_command,
    evaluate_command,
    report_command,
    view_command,
    explain_command,
    apply_command,
    export_command,
    models_command,
    train_command,
    teach_command,
    verify_command,
):
    main.add_command(_command)
