"""Standard streams that are closed, or that nothing can be written to any more."""

from __future__ import annotations

import os
import sys
from typing import TextIO

import click

from volseg.errors import StorageError, own_words


def open_missing() -> None:
    """Open the standard streams that a process was begun without, to nowhere.

    Else the next file that is opened takes their place, and what a library writes to them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def say(text: str, stream: TextIO | None = None, *, ended: bool = True) -> None:
    """Write a message to standard error, or a stream; if its disk is full, work goes on without.

    Raises
    ------
    BrokenPipeError
        If whoever reads it has gone.
    """
    into = stream or sys.stderr
    try:
        click.echo(text, file=into, nl=ended)
    except BrokenPipeError:
        raise
    except OSError:
        if into is sys.stderr:  # what it still holds would fail again when the process ends
            sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def answer(text: str) -> None:
    """Write what a command found to standard output.

    Raises
    ------
    StorageError
        If it cannot be written, as where the disk is full.
    BrokenPipeError
        If whoever reads it has gone.
    """
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        raise StorageError(f"cannot write to standard output: {own_words(error)}") from error
