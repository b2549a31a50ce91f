"""Everything volseg raises on purpose.

VolsegError
├── InputError            unusable input or wrong usage: exit status 2, nothing was written
│   ├── ParameterError    an option or argument out of range
│   ├── ShapeError        arrays that do not fit each other
│   ├── SourceError       a source stack that cannot be read
│   ├── VolumeError       no usable volume at a path, or not the array asked for
│   ├── VoxelSizeError    voxel sizes that contradict each other, or an unknown unit
│   ├── ModelError        weights or a card that cannot be used
│   └── ConflictError     a different result already stands where this one would go
└── WorkError             the work itself failed or is incomplete: exit status 1
    ├── BlockError        blocks failed; the message names them
    ├── StorageError      reading or writing failed: a full disk, a damaged chunk
    └── TrainingError     training cannot go on: a loss that is not finite

Notice                    a warning that only tells what was asked for

What reads or writes raises `StorageError` where that fails: a full disk, no permission, a damaged
chunk. What runs blocks raises `BlockError` where some fail. What finds, opens or reads a thing
raises that thing's error where it is missing or cannot be used: `SourceError`, `VolumeError`,
`ModelError`. What takes an option, or needs a package that may be missing, raises
`ParameterError`; what compares arrays `ShapeError`; what would replace another's result, or work on
it while somebody does, `ConflictError`. What plans a verb, or runs one, may raise any
`InputError`, and what parses a word of the command line click's `BadParameter`. Docstrings of what
users of Python call name errors, others only where there is more to say.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

from volseg.defaults import NAME


class VolsegError(Exception):
    """Base of all errors that volseg raises on purpose."""


class InputError(VolsegError):
    """The input or the usage is wrong; nothing was written."""


class ParameterError(InputError):
    """An option or argument is out of range."""


class ShapeError(InputError):
    """Arrays do not fit each other."""


class SourceError(InputError):
    """A source stack cannot be read."""


class VolumeError(InputError):
    """There is no usable volume, or not the array that was asked for."""


class VoxelSizeError(InputError):
    """Voxel sizes contradict each other, or a unit is unknown."""


class ModelError(InputError):
    """Weights or a card cannot be used."""


class ConflictError(InputError):
    """A different result already stands where this one would go."""


class WorkError(VolsegError):
    """The work failed or is incomplete."""


class BlockError(WorkError):
    """Blocks failed; the message names them.

    Attributes
    ----------
    missing : what is missing now, as far as it is known: `volseg.geometry.grid.Block`.
    """

    def __init__(self, message: str, missing: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.missing = missing

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel with what is missing."""
        return type(self), (str(self), self.missing)


class StorageError(WorkError):
    """Reading or writing failed."""


class TrainingError(WorkError):
    """Training cannot go on."""


class Notice(UserWarning):
    """Message that the user asked for; nothing is wrong."""


def command(*words: object, name: str = NAME) -> str:
    """Write a volseg command that can be pasted into a shell, for messages that suggest one.

    Parameters
    ----------
    words : verb, arguments and flags
    name : of the result; named where it is not the default

    Examples
    --------
    >>> command("stats", "my vol.zarr"), command("label", "vol.zarr", name="nuclei")
    ("volseg stats 'my vol.zarr'", 'volseg label vol.zarr --name nuclei')
    """
    named = () if name == NAME else ("--name", name)
    return shlex.join(["volseg", *map(str, words), *named])


def own_words(error: BaseException, otherwise: str = "the system gives no reason") -> str:
    """Say why something failed, in no library's words: in volseg's, or the operating system's.

    Examples
    --------
    >>> own_words(OSError(28, "No space left on device"), "it is damaged")
    'No space left on device'
    >>> own_words(ValueError("ufunc 'add' did not contain a loop"), "it is damaged")
    'it is damaged'
    """
    if isinstance(error, VolsegError):
        return str(error)
    return getattr(error, "strerror", None) or otherwise


def require(library: str, extra: str, words: str) -> None:
    """Refuse what needs a library that is not installed, and name the extra that brings it.

    Examples
    --------
    >>> require("no_such_library", "measure", "outlines need one")
    Traceback (most recent call last):
        ...
    volseg.errors.ParameterError: outlines need one: pip install 'volseg[measure]'
    """
    package, _, inner = library.partition(".")  # to look for what is in it, it is imported
    if find_spec(package) is None or (inner and find_spec(library) is None):
        raise ParameterError(f"{words}: pip install 'volseg[{extra}]'")


def list_some(items: Sequence[object], most: int, separator: str = ", ") -> str:
    """Write the first of several things for messages, and how many more there are.

    Examples
    --------
    >>> list_some("abcde", 3), list_some("abc", 3), list_some("abcde", 2, "; ")
    ('a, b, c and 2 more', 'a, b, c', 'a; b; and 3 more')
    """
    shown, left = separator.join(map(str, items[:most])), len(items) - most
    link = "; and" if separator == "; " else " and"
    return f"{shown}{link} {left} more" if left > 0 else shown


def list_slices(positions: Iterable[int], most: int = 8) -> str:
    """Write positions of slices for messages, as people do.

    Examples
    --------
    >>> list_slices([3, 4, 5, 9]), list_slices(range(0, 40, 2), 3)
    ('3-5, 9', '0, 2, 4 and 17 more')
    """
    runs: list[list[int]] = []
    for z in positions:
        if runs and runs[-1][-1] == z - 1:
            runs[-1].append(z)
        else:
            runs.append([z])
    shown = ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs[:most])
    left = sum(len(r) for r in runs[most:])
    return f"{shown} and {left} more" if left else shown
