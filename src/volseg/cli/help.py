"""Help of commands: an example, and their flags in groups."""

from __future__ import annotations

from typing import Any

import click

GROUPS = {
    "Data": (
        "labels",
        "data",
        "validation_data",
        "validation",
        "slices",
        "images",
        "fraction",
    ),
    "Length of the run": ("config", "steps", "minutes", "epochs", "patience"),
    "Network": (
        "model",
        "architecture",
        "width",
        "start",
        "tta",
        "rotations",
        "views",
        "tile",
        "overlap",
        "store_centerline",
        "device",
        "precision",
    ),
    "Learning": (
        "loss",
        "patch",
        "batch",
        "gamma",
        "equalise",
        "optimizer",
        "schedule",
        "learning_rate",
        "validate_every",
        "seed",
    ),
    "Objects": (
        "threshold",
        "seed_threshold",
        "connectivity",
        "min_size",
        "min_probability",
        "fill_holes",
        "split",
        "split_depth",
    ),
    "Running": (
        "workers",
        "block",
        "scheduler",
        "cluster",
        "cluster_config",
        "dashboard",
        "block_timeout",
        "scratch",
        "dry_run",
    ),
    "Resuming": ("overwrite", "repair"),
    "Output": ("as_json", "quiet", "verbose", "_click_default_help", "help"),
}
"""Parameters by group; all others are basic."""
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
        grouped = {name for names in GROUPS.values() for name in names}
        basic = [record for name, record in shown if name not in grouped]
        lists = {
            title: [record for name, record in shown if name in names]
            for title, names in GROUPS.items()
        }
        for title, rows in {"Basic": basic, **lists}.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
