"""Make flags of options, and parse their values."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

import click

from volseg.api.keywords import REQUIRED, Option, options_of
from volseg.api.running import file_of, place_of
from volseg.api.train_options import Pair
from volseg.cli.help import Command
from volseg.cli.session import with_session
from volseg.errors import ParameterError
from volseg.fields import split_names
from volseg.types import Names, VoxelSize, Zyx

if TYPE_CHECKING:
    from volseg.cli.session import Session

Value = TypeVar("Value")
MOST_NUMBERS = 1_000_000
"""Of a range of slices or objects."""


def parse_sizes(text: str, least: int = 1) -> Zyx:
    """Read three integers written as Z,Y,X.

    Examples
    --------
    >>> parse_sizes("64,512,512"), parse_sizes("0,32,32", 0)
    ((64, 512, 512), (0, 32, 32))
    """
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected three whole numbers Z,Y,X, found {text!r}") from None
    if min(z, y, x) < least:
        raise click.BadParameter(f"expected three numbers of at least {least}, found {text!r}")
    return z, y, x


def parse_voxel_size(text: str) -> VoxelSize:
    """Read a voxel size written as Z,Y,X in nm, or one number for all three.

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


def parse_min_size(text: str) -> dict[str, float]:
    """Read the smallest size of an object: voxels, or a volume that ends in nm3.

    Examples
    --------
    >>> parse_min_size("500"), parse_min_size("62500nm3")
    ({'min_size': 500}, {'min_size_nm3': 62500.0})
    """
    number = text.strip().removesuffix("nm3")
    try:
        found = float(number) if text.strip().endswith("nm3") else int(number)
    except ValueError:
        found = -1
    if not 0 <= found < float("inf"):
        raise click.BadParameter(
            f"expected voxels, such as 500, or a volume, such as 62500nm3, found {text!r}"
        )
    return {"min_size": found} if isinstance(found, int) else {"min_size_nm3": found}


def parse_pair(text: str) -> Pair:
    """Split ``VOLUME=LABELS`` at its last equals sign.

    Examples
    --------
    >>> parse_pair("vol.zarr=mitochondria")
    ('vol.zarr', 'mitochondria')
    """
    volume, _, labels = text.rpartition("=")
    if not volume or not labels:
        raise click.BadParameter(f"expected VOLUME=LABELS, found {text!r}")
    return volume, labels


def parse_slices(text: str) -> tuple[int, ...]:
    """Read numbers of slices or objects written as 3,17,40 or 5-9.

    Examples
    --------
    >>> parse_slices("3,17,20-22")
    (3, 17, 20, 21, 22)
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            numbers = range(int(first), int(last if dash else first) + 1)
        except ValueError:
            message = f"expected numbers, such as 3,17,20-22, found {text!r}"
            raise click.BadParameter(message) from None
        if not 0 < len(numbers) <= MOST_NUMBERS:
            raise click.BadParameter(
                f"a range runs up, such as 20-22, to {MOST_NUMBERS} numbers at most, found {part!r}"
            )
        found += numbers
    return tuple(found)


def reads(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """Let click say why a text cannot be read."""

    def read(text: str) -> Value:
        try:
            return parse(text)
        except ParameterError as error:
            raise click.BadParameter(str(error)) from None

    return read


READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    Zyx: (parse_sizes, "Z,Y,X"),
    VoxelSize: (parse_voxel_size, "Z,Y,X"),
    Pair: (parse_pair, "VOLUME=LABELS"),
    Sequence[int]: (parse_slices, "Z,Z,..."),
    Names: (split_names, "NAME,NAME,..."),
}
"""Parsers of texts by type, and the placeholders of these texts in help."""
METAVARS = {
    **dict.fromkeys(("roi", "validation"), "Z0:Z1,Y0:Y1,X0:X1"),
    **dict.fromkeys(("model", "start", "truth", "mask"), "NAME|PATH"),
    "corrections": "FILE",
    **dict.fromkeys(("labels", "output", "config", "cluster_config"), "PATH"),
    "scheduler": "ADDRESS",
    "block_timeout": "SECONDS",
    "split_depth": "VOXELS",
    "split_centres": "N",
    "ignore": "VALUE",
    **dict.fromkeys(("painted", "simulate"), "NAME|PATH"),
    "points": "[yes=|no=]CSV",
    "sheet": "PNG",
    **dict.fromkeys(("marked_no", "marked_yes"), "N,N,..."),
    **dict.fromkeys(("min_size", "faint_size"), "VOXELS"),
    "max_volume_um3": "UM3",
    "max_section_um2": "UM2",
    "median_nm": "NM",
    "architecture": "NAME",
    "sample": "N",
    "at": "OBJECT",
}
"""Placeholders of values in help, where the type does not tell."""
RESULT = {
    "overwrite": "--overwrite/--resume",
    "min_size": "",
    "min_size_nm3": "",
    "max_volume_um3": "--max-volume",
    "max_section_um2": "--max-section",
    "median_nm": "--median",
}
"""Flags of commands that make a result, which take both sizes by `min_size_option`."""


def with_options(
    example: str, group: type | None = None, **flags: str
) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function; each option of a group becomes a flag.

    Parameters
    ----------
    example : command that ends the help
    group : see `volseg.api.options`
    flags : names of flags that differ from their options; "" for none
    """

    def make(function: Callable[..., None]) -> click.Command:
        command = with_session(function)
        options = sorted(
            options_of(group) if group else [], key=lambda o: o.default is not REQUIRED
        )
        for option in reversed(options):
            flag = flags.get(option.name, f"--{option.name.replace('_', '-')}")
            command = flag_of(option, flag)(command) if flag else command
        return click.command(cls=Command, example=example)(command)

    return make


def flag_of(option: Option, flag: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make the flag of an option."""
    (kind, *_), settings = option.kinds, dict[str, Any]()
    if get_origin(kind) is Sequence:
        (kind,) = get_args(kind)
    metavar = METAVARS.get(option.name)
    if kind is bool:
        settings = {"is_flag": True, "show_default": flag.partition("/--")[2] or False}
    elif kind in READERS:
        settings["type"], usual = READERS[kind]
        metavar = metavar or usual
    elif get_origin(kind) is Literal:
        settings["type"] = click.Choice(get_args(kind))
    else:
        settings["type"] = kind
    if option.default is REQUIRED:
        settings["required"] = True
    elif option.default == ():
        settings["multiple"] = True
    elif option.default is not None:
        settings = {"show_default": True, **settings, "default": option.default}
    return click.option(flag, option.name, metavar=metavar, help=option.words, **settings)


def _take_size(context: click.Context, _parameter: click.Parameter, text: str | None) -> None:
    context.params.update({} if text is None else parse_min_size(text))


min_size_option = click.option(
    "--min-size",
    metavar="VOXELS|nm3",
    callback=_take_size,
    expose_value=False,
    help="Drop smaller objects: voxels, or a volume such as 62500nm3.  [default: the model's]",
)
volume_argument = click.argument("volume", type=reads(place_of))


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
    type=reads(file_of),
    callback=_set_scratch,
    expose_value=False,
    help="Keep ledger and scratch of a volume on object storage here.  [default: your cache]",
)


def note_scratch(session: Session, volume: Path) -> None:
    """Name the folder of ledgers and scratch, if it is not in the volume itself."""
    from volseg.storage.remote import as_remote
    from volseg.storage.volumes import scratch_path

    if as_remote(volume) is not None:
        session.note(f"note: ledger and scratch of {volume} are in {scratch_path(volume)}")
