"""Help of commands: an example, and their flags in groups."""

from __future__ import annotations

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


class Command(click.Command):
    """A command whose help ends in an example and lists its flags in groups."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        if example:
            kwargs["epilog"] = f"\b\nExample:\n  {example}"
        super().__init__(*args, **kwargs)

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
