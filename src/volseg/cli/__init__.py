"""The command line: parse, call one stage, print.

Nothing here, nor what it imports at start-up, loads a heavy library: ``volseg --help`` is instant.
"""

from __future__ import annotations

import click

from volseg import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Count and measure mitochondria in electron-microscopy volumes of any size."""
