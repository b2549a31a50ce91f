"""Conversion of tables to frozen dataclasses, with checked keys and types, and back; and names."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from volseg.errors import ParameterError
from volseg.types import Names

LONGEST = 4000
"""Characters of a text: paths of this length exist nowhere."""


def read_fields(kind: type, table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read the fields of a dataclass from a table; those that it does not name are left out.

    Parameters
    ----------
    kind : type
        A dataclass.
    table : as TOML or JSON give it: lists, not tuples
    where : what the table is called in messages

    Raises
    ------
    ParameterError
        If a key is unknown, or a value is of another type; names it.

    Examples
    --------
    >>> from volseg.training.config import TrainConfig
    >>> read_fields(TrainConfig, {"patch": [8, 16, 16], "ema": 0}, "recipe")
    {'patch': (8, 16, 16), 'ema': 0.0}
    """
    if not isinstance(table, Mapping):
        raise ParameterError(f"[{where}] is a table of settings, found {table!r}")
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]
    unknown = sorted(set(table) - set(names))
    if unknown:
        raise ParameterError(
            f"[{where}] has no settings called {', '.join(unknown)}; there are: {', '.join(names)}"
        )
    return {key: _read(hints[key], value, f"{where}.{key}") for key, value in table.items()}


def _read(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        kinds = [h for h in get_args(hint) if h is not type(None)]
        return _read(next((h for h in kinds if type(value) is h), kinds[0]), value, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return hint(**read_fields(hint, value, where))
    if get_origin(hint) is tuple:
        return _read_tuple(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_origin(hint) is Mapping and isinstance(value, dict):
        return value
    if isinstance(value, str) and len(value) > LONGEST:
        raise ParameterError(
            f"{where} has {len(value)} characters, expected at most {LONGEST}: {value[:40]!r}..."
        )
    if hint is Path and isinstance(value, str):
        return Path(value)
    if type(value) is not hint:
        raise ParameterError(f"{where} is of the type {hint.__name__}, found {value!r}")
    return value


def _read_tuple(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    kinds = get_args(hint)
    if isinstance(value, list) and kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if not isinstance(value, list) or len(value) != len(kinds):
        raise ParameterError(f"{where} is a list of {len(kinds)} values, found {value!r}")
    return tuple(_read(kind, entry, where) for kind, entry in zip(kinds, value, strict=True))


def plain(value: Any) -> Any:
    """Reduce a report to what JSON knows; a number that is not finite becomes null.

    Examples
    --------
    >>> plain({"size": (5.0, float("nan")), "count": 3})
    {'size': [5.0, None], 'count': 3}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, slice):
        return [plain(value.start), plain(value.stop)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def as_json(value: Any) -> Any:
    """Turn what JSON can hold into what it reads back: lists for tuples, texts for keys.

    Examples
    --------
    >>> as_json({"block": (64, 512, 512), 1: None})
    {'block': [64, 512, 512], '1': None}
    """
    return json.loads(json.dumps(value))


def split_names(text: str) -> Names:
    """Read names written as NAME,NAME,...; each counts once.

    Raises
    ------
    ParameterError
        If there are none, as where a variable of a shell is not set.

    Examples
    --------
    >>> split_names("mitochondria=1, membranes=2,")
    ('mitochondria=1', 'membranes=2')
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ParameterError(f"expected a name, or several separated by commas, found {text!r}")
    return names
