"""``volseg models export`` and ``volseg models import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volseg.api.models import export_model, import_model
from volseg.cli.help import Command
from volseg.cli.options import parse_file, sizes_option, voxel_size_option
from volseg.cli.session import Session, with_session
from volseg.cli.wording import extent, scaled
from volseg.errors import command
from volseg.types import Zyx

if TYPE_CHECKING:
    from volseg.exchange.export_model import ExportReport
    from volseg.exchange.import_model import ImportReport

replace_option = click.option("--overwrite", is_flag=True, help="Replace an existing --output.")


@click.command(
    "export",
    cls=Command,
    example="volseg models export emnet --format onnx --output emnet.onnx",
)
@click.argument("model")
@click.option(
    "--format",
    "form",
    type=click.Choice(["torchscript", "onnx", "bioimageio"]),
    required=True,
    help="Write a traced network (.pt, .onnx) or a BioImage.IO package (.zip).",
)
@click.option("--output", metavar="FILE", type=parse_file, required=True, help="File to write.")
@replace_option
@with_session
def export_command(session: Session, model: str, form: Any, output: Path, overwrite: bool) -> None:
    """Write MODEL for other programs, checked against the original.

    MODEL is a shipped name or the path of a .safetensors file. TorchScript and ONNX map intensities
    in -1..1 to probabilities; a BioImage.IO package says itself what it takes.
    """
    report = export_model(model, form=form, output=output, overwrite=overwrite)
    for note in report.notes:
        session.note(f"note: {note}")
    session.result(report, _exported(report))


def _exported(report: ExportReport) -> str:
    shape = extent(report.checked_on)
    return (
        f"{report.model} as {report.format} in {report.output}, {scaled(report.size_bytes)}B; "
        f"probabilities differ by {report.difference:.1g} at most (noise, {shape})"
    )


def parse_overlap(text: str) -> Zyx:
    """Read three integers written as Z,Y,X, of which some may be 0.

    Raises
    ------
    BadParameter
        If the text is anything else.

    Examples
    --------
    >>> parse_overlap("0,32,32")
    (0, 32, 32)
    """
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise click.BadParameter(f"expected three whole numbers Z,Y,X, found {text!r}")
    z, y, x = map(int, parts)
    return z, y, x


@click.command("import", cls=Command, example="volseg models import emnet.zip --output mine")
@click.argument("package", type=parse_file)
@click.option(
    "--output",
    metavar="DIR",
    type=parse_file,
    required=True,
    help="Write weights and card to this folder.",
)
@voxel_size_option
@sizes_option("--tile", "Network voxels that are evaluated at once.")
@click.option(
    "--overlap",
    metavar="Z,Y,X",
    callback=lambda _context, _parameter, text: None if text is None else parse_overlap(text),
    help="Network voxels that neighbouring tiles share; 0 for none.",
)
@replace_option
@with_session
def import_command(session: Session, package: Path, output: Path, **options: Any) -> None:
    """Make a model from PACKAGE, a BioImage.IO model that volseg exported.

    PACKAGE is a zip, a folder, or the .yaml file in it, on this disk. The same weights and card
    come back. Nothing is fetched, and no program in a package is run.
    """
    report = import_model(package, output=output, **options)
    session.result(report, _imported(report))


def _imported(report: ImportReport) -> str:
    return (
        f"{report.card.name}: {report.card.architecture}, {report.card.parameters} parameters; "
        f"next: {command('segment', 'VOLUME', '--model', report.output)}"
    )
