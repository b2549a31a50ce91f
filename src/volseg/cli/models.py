"""``volseg models``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from volseg.api.models import (
    ExportKeywords,
    ImportKeywords,
    export_model,
    import_model,
    list_models,
    show_model,
)
from volseg.cli.cards import describe_briefly, describe_card
from volseg.cli.options import parse_sizes, with_options
from volseg.cli.session import Session
from volseg.cli.wording import scaled
from volseg.errors import command
from volseg.fields import plain
from volseg.types import extent

if TYPE_CHECKING:
    from volseg.exchange.export_model import ExportReport
    from volseg.exchange.import_model import ImportReport
    from volseg.storage.cards import Card


@click.group("models")
def models_command() -> None:
    """List the shipped models, show their cards, exchange models."""


@with_options("volseg models list")
def list_command(session: Session) -> None:
    """List the shipped models."""
    cards = list_models()
    session.result([_brief(card) for card in cards], "\n".join(map(describe_briefly, cards)))


def _brief(card: Card) -> dict[str, Any]:
    names = ("name", "architecture", "width", "parameters", "voxel_size", "scores")
    return {name: plain(getattr(card, name)) for name in names}


@with_options("volseg models show emnet")
@click.argument("model")
def show_command(session: Session, model: str) -> None:
    """Show the card of MODEL: its terms, scores and training; --json prints all that it holds."""
    card = show_model(model)
    session.result(card, describe_card(card))


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


for _command in (export_command, import_command, list_command, show_command):
    models_command.add_command(_command)
