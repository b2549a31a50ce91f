"""Help of commands: an example, their flags in groups, and a word on numbers without commas."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import click

from volseg.api.options import Measured, Network, Objects, Running
from volseg.api.train_options import Data, Intensities, Learning, Length

GROUPS = {
    "Basic": ("roi", "images"),
    "Data": (*Data.__annotations__, "fraction"),
    "Length of the run": ("config", *Length.__annotations__),
    "Network": (
        *(*Network.__annotations__, "overlap", "store_centerline"),
        *("architecture", "width", "start", "classes", "auxiliary", "ignore"),
    ),
    "Learning": (*Learning.__annotations__, *Intensities.__annotations__),
    "Objects": (*Objects.__annotations__, *Measured.__annotations__),
    "Running": (*Running.__annotations__, "block", "scratch", "dry_run"),
    "Resuming": ("overwrite", "repair"),
    "Output": ("as_json", "quiet", "verbose", "_click_default_help", "help"),
}
"""Parameters by group, the first of which that names one has it; all others are basic."""
FEW = 12
"""Flags that need no groups."""
NUMBER = re.compile(r"[\d.:]+,?")
"""A number, or a range of a region, and a comma that is not enough."""


class Command(click.Command):
    """A command whose help ends in an example and lists its flags in groups."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        if example:
            kwargs["epilog"] = f"\b\nExample:\n  {example}"
        super().__init__(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of a command; where they are wrong, look for numbers without commas."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            for flag, numbers in self._apart(given):
                whole = ",".join(number.rstrip(",") for number in numbers)
                raise click.UsageError(
                    f"{flag} takes its numbers with commas and without spaces: {flag} {whole}", ctx
                ) from error
            raise

    def _apart(self, args: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        """Find flags of numbers joined by commas that are followed by several words of numbers."""
        options = [p for p in self.params if isinstance(p, click.Option)]
        joined = {flag for p in options if "," in (p.metavar or "") for flag in p.opts}
        for place, word in enumerate(args):
            numbers = list(takewhile(NUMBER.fullmatch, args[place + 1 :]))
            if word in joined and len(numbers) > 1:
                yield word, numbers

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list of flags per group; a short list stays whole."""
        flags = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        records = [(flag.name, flag.get_help_record(ctx)) for flag in flags]
        shown = [(name, record) for name, record in records if record is not None]
        if len(shown) <= FEW:
            super().format_options(ctx, formatter)
            return
        lists: dict[str, list[tuple[str, str]]] = {title: [] for title in GROUPS}
        for name, record in shown:
            title = next((title for title, names in GROUPS.items() if name in names), "Basic")
            lists[title].append(record)
        for title, rows in lists.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
