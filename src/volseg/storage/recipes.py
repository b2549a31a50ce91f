"""Recipes of training runs, as TOML: read with care, written so that a run can be repeated."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from volseg.errors import ParameterError
from volseg.storage.files import write_file

AT_LINE = re.compile(r"line (\d+), column (\d+)")
RECIPE_BYTES = 1 << 20
"""A recipe is read into memory whole, so a file that is larger than this is refused."""


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe, or another TOML file of settings."""
    try:
        return tomllib.loads(read_given(path, RECIPE_BYTES, "this is no file of settings"))
    except RecursionError as error:
        raise ParameterError(f"{path} cannot be read as TOML: it is nested too deeply") from error
    except ValueError as error:
        found = AT_LINE.search(str(error))
        where = (
            f"line {found[1]}, column {found[2]}" if found else "its end, or text that is no UTF-8,"
        )
        raise ParameterError(
            f"{path} cannot be read as TOML: {where} is not understood, such as a name that is "
            f"given twice, or a text without quotes"
        ) from error


def read_given(path: Path, most: int, otherwise: str) -> str:
    """Read a small file of text that a user gives; ``otherwise`` says what a larger one is not."""
    try:
        if path.stat().st_size > most:
            raise ParameterError(f"{path} has more than {most} bytes: {otherwise}")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ParameterError(f"there is no file {path}") from error
    except OSError as error:
        raise ParameterError(f"cannot read {path}: {error.strerror}") from error


def write_recipe(path: Path, recipe: Mapping[str, Any], comment: str) -> None:
    """Write a recipe, replacing an older one only when complete."""
    heading = "".join(f"# {line}\n" for line in comment.splitlines())
    write_file(path, (heading + format_toml(recipe)).encode(), parents=False)


def format_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Write a mapping as TOML; what is None is left out.

    Parameters
    ----------
    table : of text, numbers, truth values, sequences of them, mappings, and sequences of mappings
    prefix : name of the table, with those it lies in

    Examples
    --------
    >>> print(format_toml({"seed": 1, "clip": None, "data": [{"raw": "a b"}]}), end="")
    seed = 1
    <BLANKLINE>
    [[data]]
    raw = "a b"
    """
    plain, nested = [], []
    for key, value in table.items():
        name = f"{prefix}.{_key(key)}" if prefix else _key(key)
        if isinstance(value, Mapping):
            nested.append(f"\n[{name}]\n{format_toml(value, name)}")
        elif _holds_tables(value):
            nested += [f"\n[[{name}]]\n{format_toml(entry, name)}" for entry in value]
        elif value is not None:
            plain.append(f"{_key(key)} = {_value(value)}\n")
    return "".join([*plain, *nested])


def _holds_tables(value: Any) -> bool:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def _key(text: str) -> str:
    bare = text.replace("_", "").replace("-", "")
    return text if bare.isalnum() and bare.isascii() else _text(text)


def _text(text: str) -> str:
    """Write text as JSON does, but for what TOML wants escaped, or not escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _value(value: Any) -> str:
    if isinstance(value, (bool, int)):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (str, Path)):
        return _text(str(value))
    return f"[{', '.join(map(_value, value))}]"
