"""``volseg models``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from volseg.api.models import list_models, show_model
from volseg.cli.models_transfer import export_command, import_command
from volseg.cli.options import with_options
from volseg.cli.session import Session
from volseg.cli.wording import scaled, voxels_of
from volseg.fields import plain

if TYPE_CHECKING:
    from volseg.storage.weights import Card


@click.group("models")
def models_command() -> None:
    """List the shipped models, show their cards, exchange models."""


@with_options("volseg models list")
def list_command(session: Session) -> None:
    """List the shipped models."""
    cards = list_models()
    session.result([_brief(card) for card in cards], "\n".join(map(_line, cards)))


def _brief(card: Card) -> dict[str, Any]:
    names = ("name", "architecture", "width", "parameters", "voxel_size", "scores")
    return {name: plain(getattr(card, name)) for name in names}


def _line(card: Card) -> str:
    """Describe a model, and list its scores indented below."""
    what = f"{card.architecture}, {scaled(card.parameters)} parameters"
    lines = [f"{card.name}: {what}, {voxels_of(card.voxel_size)}"]
    scores = [f"  {name}: {_words(value)}" for name, value in card.scores.items()]
    return "\n".join(lines + (scores or ["  nothing was measured"]))


def _words(value: Any) -> str:
    """Write a score, or several.

    Examples
    --------
    >>> _words([0.91984, 0.95]), _words("a.zarr, held out")
    ('0.9198, 0.95', 'a.zarr, held out')
    """
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@with_options("volseg models show emnet")
@click.argument("model")
def show_command(session: Session, model: str) -> None:
    """Show the card of MODEL: its network, training data and scores."""
    card = plain(show_model(model))
    session.result(card, "\n".join(_entries(card)))


def _entries(entries: dict[str, Any], indent: str = "") -> list[str]:
    """Write nested entries one a line."""
    lines = []
    for name, value in entries.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_entries(value, indent + "  ")]
        else:
            words = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name}: {words}")
    return lines


for _command in (export_command, import_command, list_command, show_command):
    models_command.add_command(_command)
