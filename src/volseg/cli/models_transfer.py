"""``volseg models export`` and ``volseg models import``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from volseg.api.models import ExportKeywords, ImportKeywords, export_model, import_model
from volseg.cli.options import parse_sizes, with_options
from volseg.cli.session import Session
from volseg.cli.wording import extent, scaled
from volseg.errors import command

if TYPE_CHECKING:
    from volseg.exchange.export_model import ExportReport
    from volseg.exchange.import_model import ImportReport


@with_options(
    "volseg models export emnet --format onnx --output emnet.onnx", ExportKeywords, form="--format"
)
@click.argument("model")
def export_command(session: Session, model: str, **options: Any) -> None:
    """Write MODEL for other programs, checked against the original.

    MODEL is a shipped name or the path of a .safetensors file. TorchScript and ONNX map intensities
    in -1..1 to probabilities; a BioImage.IO package says itself what it takes.
    """
    report = export_model(model, **options)
    session.notes(report.notes)
    session.result(report, _exported(report))


def _exported(report: ExportReport) -> str:
    shape = extent(report.checked_on)
    return (
        f"{report.model} as {report.format} in {report.output}, {scaled(report.size_bytes)}B; "
        f"probabilities differ by {report.difference:.1g} at most (noise, {shape})"
    )


@with_options("volseg models import emnet.zip --output mine", ImportKeywords, overlap="")
@click.argument("package")
@click.option(
    "--overlap",
    metavar="Z,Y,X",
    type=lambda text: parse_sizes(text, 0),
    help="Network voxels that neighbouring tiles share; 0 for none.",
)
def import_command(session: Session, package: str, **options: Any) -> None:
    """Make a model from PACKAGE, a BioImage.IO model that volseg exported.

    PACKAGE is a zip, a folder, or the .yaml file in it, on this disk. The same weights and card
    come back. Nothing is fetched, and no program in a package is run.
    """
    report = import_model(package, **options)
    session.result(report, _imported(report))


def _imported(report: ImportReport) -> str:
    return (
        f"{report.card.name}: {report.card.architecture}, {report.card.parameters} parameters; "
        f"next: {command('segment', 'VOLUME', '--model', report.output)}"
    )
