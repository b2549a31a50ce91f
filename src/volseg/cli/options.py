"""The flags that mean the same in every command, and how their texts are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from volseg.errors import ParameterError
from volseg.storage.locations import as_remote, parse_location
from volseg.types import VoxelSize, Zyx

if TYPE_CHECKING:
    from volseg.cli.session import Session
    from volseg.engine.options import EngineOptions

Command = TypeVar("Command", bound=Callable[..., Any])


def parse_sizes(text: str) -> Zyx:
    """Read three positive integers written as Z,Y,X.

    Raises
    ------
    BadParameter
        If the text is anything else.

    Examples
    --------
    >>> parse_sizes("64,512,512")
    (64, 512, 512)
    """
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected three whole numbers Z,Y,X, found {text!r}") from None
    if min(z, y, x) < 1:
        raise click.BadParameter(f"expected three numbers of at least 1, found {text!r}")
    return z, y, x


def parse_voxel_size(text: str) -> VoxelSize:
    """Read a voxel size written as Z,Y,X in nm, or one number for all three.

    Raises
    ------
    BadParameter
        If the text is anything else.

    Examples
    --------
    >>> parse_voxel_size("50,4.6,4.6"), parse_voxel_size("5")
    ((50.0, 4.6, 4.6), (5.0, 5.0, 5.0))
    """
    try:
        numbers = [float(part) for part in text.split(",")]
        z, y, x = numbers * 3 if len(numbers) == 1 else numbers
    except ValueError:
        raise click.BadParameter(f"expected Z,Y,X in nm, such as 50,4,4, found {text!r}") from None
    if not all(0 < n < float("inf") for n in (z, y, x)):
        raise click.BadParameter(f"expected three lengths above 0 nm, found {text!r}")
    return z, y, x


def _read_with(
    parse: Callable[[str], Any],
) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    def callback(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
        return None if text is None else parse(text)

    return callback


def sizes_option(flag: str, explanation: str) -> Callable[[Command], Command]:
    """Make a flag that takes three integers Z,Y,X."""
    return click.option(flag, metavar="Z,Y,X", callback=_read_with(parse_sizes), help=explanation)


voxel_size_option = click.option(
    "--voxel-size",
    metavar="Z,Y,X",
    callback=_read_with(parse_voxel_size),
    help="Voxel size in nm; overrides what the file says.",
)


def parse_place(text: str) -> Path:
    """Read a path, or a URL of object storage; see `volseg.storage.locations`.

    Raises
    ------
    BadParameter
        If it is a URL of something else.
    """
    try:
        return parse_location(text)
    except ParameterError as error:
        raise click.BadParameter(str(error)) from None


volume_argument = click.argument("volume", type=parse_place)
name_option = click.option(
    "--name", default="mitochondria", show_default=True, help="Name of the result in the volume."
)
threshold_option = click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    help="Probability from which a voxel is foreground.  [default: the model's]",
)
roi_option = click.option(
    "--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Only this region, in voxels; bounds may be empty."
)
overwrite_option = click.option(
    "--overwrite/--resume",
    default=False,
    show_default="resume",
    help="Replace a different result that is already there, or go on with the same one.",
)
workers_option = click.option(
    "--workers", type=click.IntRange(min=1), help="Blocks at a time.  [default: one per core]"
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the network runs.",
)


def _set_scratch(_context: click.Context, _parameter: click.Parameter, folder: str | None) -> None:
    if folder is not None:
        # where the command's stages, and the workers that it starts, look for it
        os.environ["VOLSEG_SCRATCH"] = folder


scratch_option = click.option(
    "--scratch",
    metavar="DIR",
    type=click.Path(file_okay=False),
    callback=_set_scratch,
    expose_value=False,
    help="Where ledgers and scratch of a volume on object storage lie.  [default: your cache]",
)


def note_scratch(session: Session, volume: Path) -> None:
    """Say where ledgers and scratch lie, if that is not in the volume itself."""
    from volseg.storage.volumes import scratch_path

    if as_remote(volume) is not None:
        session.note(f"note: ledger and scratch of {volume} are in {scratch_path(volume)}")


dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be done and what it takes; compute nothing."
)


def engine_flags(command: Command) -> Command:
    """Add the flags that say where and how blocks run, for `engine_options`."""
    flags = (
        workers_option,
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Use a running Dask scheduler, such as tcp://host:8786; not with --workers.",
        ),
        click.option(
            "--cluster",
            type=click.Choice(["local", "slurm", "lsf", "pbs"]),
            help="Start processes or a queue's jobs; not with --workers; see docs/clusters.md.",
        ),
        click.option(
            "--cluster-config",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="TOML that says how many workers, and what each of them is.",
        ),
        click.option(
            "--block-timeout",
            metavar="SECONDS",
            type=click.FloatRange(min=0, min_open=True),
            default=3600.0,
            show_default=True,
            help="After which a block's worker is taken to hang.",
        ),
    )
    for flag in reversed(flags):
        command = flag(command)
    return command


def engine_options(options: dict[str, Any]) -> EngineOptions:
    """Take the engine's options out of a command's."""
    from volseg.engine.clusters import read_cluster
    from volseg.engine.options import EngineOptions
    from volseg.storage.recipes import read_recipe

    kind, path = options.pop("cluster"), options.pop("cluster_config")
    if path is not None and kind is None:
        raise click.UsageError("--cluster-config says how a --cluster is; give both")
    table = {} if path is None else read_recipe(path)
    return EngineOptions(
        workers=options.pop("workers"),
        scheduler=options.pop("scheduler"),
        cluster=None if kind is None else read_cluster(kind, table, str(path)),
        block_seconds=options.pop("block_timeout"),
    )
