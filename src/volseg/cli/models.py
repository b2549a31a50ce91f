"""``volseg models``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from volseg.cli.session import Session, plain, with_session
from volseg.cli.wording import voxels_of

if TYPE_CHECKING:
    from volseg.io.weights import Card


@click.group("models")
def models_command() -> None:
    """List the models that come with volseg, and show their cards."""


@models_command.command("list")
@with_session
def list_command(session: Session) -> None:
    """List the models that come with volseg."""
    from volseg.io.weights import load_card, shipped_models

    cards = [load_card(name) for name in shipped_models()]
    session.result([_brief(card) for card in cards], "\n".join(map(_line, cards)))


def _brief(card: Card) -> dict[str, Any]:
    names = ("name", "architecture", "width", "parameters", "voxel_size", "scores")
    return {name: plain(getattr(card, name)) for name in names}


def _line(card: Card) -> str:
    size = voxels_of(card.voxel_size)
    return f"{card.name}: {card.architecture}, {card.parameters} parameters, {size}"


@models_command.command("show")
@click.argument("model")
@with_session
def show_command(session: Session, model: str) -> None:
    """Show the card of MODEL: what it is, what it was trained on, how well it does."""
    from volseg.io.weights import load_card

    card = plain(load_card(model))
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
