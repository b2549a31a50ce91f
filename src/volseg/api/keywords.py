"""Read groups of options: for the signature and help of a function, and for flags."""

import functools
import inspect
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from types import NoneType, UnionType
from typing import Annotated, Any, Required, TypeVar, Union, cast, get_args, get_origin

from volseg import defaults
from volseg.engine.memory import keep_freed_memory
from volseg.errors import ParameterError, VoxelSizeError
from volseg.types import VoxelSize, Zyx, zyx

Function = TypeVar("Function", bound=Callable[..., Any])
Group = TypeVar("Group", bound=type)

ENTRY = re.compile(r"^ {4}(\w+) : (.+(?:\n {8}.+)*)", re.MULTILINE)
FLAG = re.compile(r"--([a-z][a-z-]+)")
TITLE = "\n\n    Other Parameters\n    ----------------\n"
LAST = ("progress", "on_note", "on_row")
REQUIRED = inspect.Parameter.empty
NUMBERS: dict[Any, Callable[[Any], Any]] = {Zyx: operator.index, VoxelSize: float}
"""Readers of the numbers of options that are three along (z, y, x)."""


@dataclass(frozen=True)
class Option:
    """An option of a function.

    Attributes
    ----------
    name : keyword in Python
    annotation : type as it is written
    kinds : types of its values, without None
    words : description, which names other options by their flags
    default : `REQUIRED` where a value must be given
    """

    name: str
    annotation: Any
    kinds: tuple[Any, ...]
    words: str
    default: Any


def described(group: Group) -> Group:
    """Join the options of a group, which is a `TypedDict`, with their words in its docstring.

    What is joined is inherited, for a `TypedDict` does not know its bases when the program runs.
    """
    for name, words in ENTRY.findall(group.__doc__ or ""):
        hint = group.__annotations__[name]
        group.__annotations__[name] = Annotated[hint, re.sub(r"\n +", " ", words)]
    return group


def options_of(group: type) -> list[Option]:
    """List the options of a group, with those that it inherits."""
    return [_read(name, hint) for name, hint in group.__annotations__.items()]


def _read(name: str, hint: Any) -> Option:
    words = ""  # `python -OO` drops docstrings
    if get_origin(hint) is Annotated:
        hint, words = hint.__origin__, hint.__metadata__[-1]
    required = get_origin(hint) is Required
    if required:
        (hint,) = get_args(hint)
    kinds = get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)
    default = REQUIRED if required else _default(name, kinds)
    return Option(name, hint, tuple(k for k in kinds if k is not NoneType), words, default)


def _default(name: str, kinds: Sequence[Any]) -> Any:
    if NoneType in kinds:
        return None
    if bool in kinds:
        return False
    if any(get_origin(kind) is Sequence for kind in kinds):
        return ()
    return getattr(defaults, name.upper())


def takes(group: type) -> Callable[[Function], Function]:
    """Show the options that a function takes by ``**options: Unpack[group]`` as its parameters.

    A call with other keywords, or without one that is required, raises TypeError.
    """

    def show(function: Function) -> Function:
        own, found = inspect.signature(function), options_of(group)
        kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        added = [
            inspect.Parameter(
                o.name, inspect.Parameter.KEYWORD_ONLY, default=o.default, annotation=o.annotation
            )
            for o in found
        ]
        reads = {o.name: NUMBERS[k] for o in found for k in o.kinds if k in NUMBERS}
        parameters = sorted([*kept, *added], key=lambda p: (p.kind, p.name in LAST))
        shown = own.replace(parameters=parameters)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            shown.bind(*args, **options)  # or TypeError
            keep_freed_memory()  # before zarr starts threads
            options = {name: _plain(value) for name, value in options.items()}
            for name in options.keys() & {"voxel_size", *reads}:
                options[name] = read_three(name, options[name], reads.get(name, float))
            return function(*args, **options)

        entries = [f"    {o.name}\n        {FLAG.sub(_keyword, o.words)}\n" for o in found]
        call.__signature__ = shown  # type: ignore[attr-defined]
        call.__doc__ = "".join([(function.__doc__ or "").rstrip(), TITLE, *entries])
        return cast("Function", call)

    return show


def _plain(value: Any) -> Any:
    """Make a number of NumPy the shortest one of Python: records in JSON know no other.

    Examples
    --------
    >>> import numpy as np
    >>> _plain(np.float32(0.6)), _plain(np.int64(9))
    (0.6, 9)
    """
    if getattr(value, "shape", None) != ():
        return value
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    return float(str(value)) if kind == "f" else value.item()


def read_three(name: str, value: Any, number: Callable[[Any], Any] = operator.index) -> Any:
    """Take three numbers from any sequence, or one length for all axes; None stays None.

    Examples
    --------
    >>> read_three("block", [8, 64, 64]), read_three("voxel_size", 5, float)
    ((8, 64, 64), (5.0, 5.0, 5.0))
    """
    if value is None:
        return None
    several = [value] * 3 if number is float and isinstance(value, Real) else value
    try:
        found = zyx(number(n) for n in several)
    except (TypeError, ValueError):
        found = None
    if found is None or isinstance(value, str):
        raise ParameterError(f"{name} is three numbers along (z, y, x), found {value!r}")
    if number is float and not all(0 < n < math.inf for n in found):
        raise VoxelSizeError(f"a voxel size is three positive numbers in nm, found {value}")
    return found


def _keyword(flag: re.Match[str]) -> str:
    return f"``{flag[1].replace('-', '_')}``"
