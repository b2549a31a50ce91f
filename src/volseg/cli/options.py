"""Define the flags that commands share, and parse their values."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from volseg import defaults
from volseg.errors import ParameterError
from volseg.storage.locations import parse_location, parse_path
from volseg.storage.remote import as_remote
from volseg.types import VoxelSize, Zyx

if TYPE_CHECKING:
    from volseg.cli.session import Session

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
    help="Set the voxel size in nm; overrides the file's.",
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


def parse_file(text: str) -> Path:
    """Read the path of a local file or folder; see `volseg.storage.locations.parse_path`.

    Raises
    ------
    BadParameter
        If it is empty or a URL.
    """
    if "://" in text:
        raise click.BadParameter(f"{text} is a URL; expected a file or folder of this machine")
    try:
        return parse_path(text)
    except ParameterError as error:
        raise click.BadParameter(str(error)) from None


volume_argument = click.argument("volume", type=parse_place)
name_option = click.option(
    "--name", default=defaults.NAME, show_default=True, help="Name of the result in the volume."
)
threshold_option = click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    help="Take voxels of at least this probability as foreground.  [default: the model's]",
)
roi_option = click.option(
    "--roi",
    metavar="Z0:Z1,Y0:Y1,X0:X1",
    help="Process this region only, in voxels; bounds are optional.",
)
overwrite_option = click.option(
    "--overwrite/--resume",
    default=False,
    show_default="resume",
    help="Replace a different result, or continue the same one.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Blocks to run at a time.  [default: one per core]",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default=defaults.DEVICE,
    show_default=True,
    help="Run the network on this device.",
)


block_option = sizes_option("--block", "Voxels of one task, rounded up to whole shards.")
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default=defaults.PRECISION,
    show_default=True,
    help="Evaluate the network in this type; this changes the result. auto: bfloat16 where the "
    "hardware multiplies it, float32 on CPUs of other machines.",
)


def _set_scratch(_context: click.Context, _parameter: click.Parameter, folder: Path | None) -> None:
    if folder is None:
        return
    if folder.is_file():
        raise click.BadParameter(f"{folder} is a file; expected a folder")
    # where the command's stages, and the workers that it starts, look for it
    os.environ["VOLSEG_SCRATCH"] = str(folder)


scratch_option = click.option(
    "--scratch",
    metavar="DIR",
    type=parse_file,
    callback=_set_scratch,
    expose_value=False,
    help="Keep ledger and scratch of a volume on object storage here.  [default: your cache]",
)


def note_scratch(session: Session, volume: Path) -> None:
    """Name the folder of ledgers and scratch, if it is not in the volume itself."""
    from volseg.storage.volumes import scratch_path

    if as_remote(volume) is not None:
        session.note(f"note: ledger and scratch of {volume} are in {scratch_path(volume)}")


dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print what a run would do and take; compute nothing."
)


def engine_flags(command: Command) -> Command:
    """Add the flags for workers, schedulers and clusters."""
    flags = (
        workers_option,
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Use a running Dask scheduler, such as tcp://host:8786; excludes --workers.",
        ),
        click.option(
            "--cluster",
            type=click.Choice(["local", "slurm", "lsf", "pbs"]),
            help="Start processes, or jobs of a queue; excludes --workers; see docs/clusters.md.",
        ),
        click.option(
            "--cluster-config",
            metavar="FILE",
            type=parse_file,
            help="Read the number and size of the workers from this TOML file.",
        ),
        click.option(
            "--block-timeout",
            metavar="SECONDS",
            type=click.FloatRange(min=0, min_open=True),
            default=defaults.BLOCK_TIMEOUT,
            show_default=True,
            help="Take a worker to hang when a block needs longer.",
        ),
    )
    for flag in reversed(flags):
        command = flag(command)
    return command
