"""Attributes of Zarr groups: small JSON files, replaced at once or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import StorageError, VolumeError
from volseg.io.locations import as_remote

METADATA_BYTES = 64 << 20
"""Metadata is read into memory whole, so a larger file is refused."""
NOTED: Mapping[str, type | tuple[type, ...]] = {
    "version": str,
    "complete": bool,
    "mark": str,
    "fingerprint": str,
    "run": dict,
    "model": dict,
    "source": dict,
    "histogram": dict,
    "objects": int,
    "too_large_to_split": int,
    "below_min_probability": int,
    "roi": list,
}
"""What volseg notes of an image, as far as it reads it again; what it does not know may be null."""


def is_fraction(value: Any) -> bool:
    """Tell whether what was read from JSON is a number from 0 to 1.

    Examples
    --------
    >>> [is_fraction(v) for v in (0, 0.5, 1, True, float("nan"), 10**400, "0.5", None)]
    [True, True, True, False, False, False, False, False]
    """
    return type(value) in (int, float) and 0 <= value <= 1


def parse_json(text: str) -> Any:
    """Read JSON.

    Raises
    ------
    ValueError
        If it is none, nested more deeply than Python follows, or holds half a character.

    Examples
    --------
    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
        ...
    ValueError: it is nested too deeply
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if "\\ud" in text.lower():
        # one half of a surrogate pair is text that can be neither printed nor written
        json.dumps(found, ensure_ascii=False).encode()
    return found


def check_notes(path: Path, notes: Any) -> Mapping[str, Any]:
    """Check that what volseg noted of an image is of the types that it writes.

    Raises
    ------
    VolumeError
        If it is not.
    """
    if not isinstance(notes, dict):
        raise VolumeError(f"{path}: its volseg attributes are {_short(notes)}, expected an object")
    for name, kind in NOTED.items():
        found = notes.get(name)
        if found is not None and not isinstance(found, kind):
            raise VolumeError(
                f"{path}: its attribute volseg.{name} is {_short(found)}, which volseg does not "
                f"write; make it again, or remove the attribute"
            )
    return notes


def read_histogram(
    path: Path, noted: Mapping[str, Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read how often each intensity of an image occurs, as noted at its conversion.

    Returns
    -------
    counts, values : int64 and float64, shape (n,)

    Raises
    ------
    VolumeError
        If that is no histogram.
    """
    try:
        counts = np.asarray(noted["counts"], np.int64)
        values = np.asarray(noted["values"], np.float64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise VolumeError(f"the histogram of {path} cannot be used: {error!r}") from error
    sound = values.ndim == 1 and np.isfinite(values).all() and counts.min(initial=0) >= 0
    if not sound or values.shape != counts.shape or not counts.any():
        raise VolumeError(
            f"the histogram of {path} has {counts.shape} counts for {values.shape} intensities, "
            f"expected one each, none negative, not all 0; convert the source again"
        )
    return counts, values


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def read_attributes(path: Path) -> dict[str, Any]:
    """Read a group's attributes, Zarr v3 or v2; empty where there are none.

    Raises
    ------
    VolumeError
        If they are not valid JSON.
    """
    for name, inner in (("zarr.json", "attributes"), (".zattrs", None)):
        file = path / name
        if not file.is_file():
            continue
        if as_remote(file) is None and file.stat().st_size > METADATA_BYTES:
            raise VolumeError(f"{file} has more than {METADATA_BYTES} bytes: this is no metadata")
        try:
            content = parse_json(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise VolumeError(f"{file} is not valid JSON: {error}") from error
        except OSError as error:
            raise VolumeError(f"cannot read {file}: {error.strerror or error}") from error
        found = content.get(inner, {}) if inner and isinstance(content, dict) else content
        return found if isinstance(found, dict) else {}
    return {}


def write_group(path: Path, attributes: Mapping[str, Any]) -> None:
    """Write a group's metadata; it is replaced at once or not at all.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    content = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    remote = as_remote(path)
    if remote is not None:
        (remote / "zarr.json").write_bytes(json.dumps(content, indent=1).encode())
        return
    temporary = path / ".zarr.json.tmp"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path / "zarr.json")
    except OSError as error:
        raise StorageError(f"cannot write {path / 'zarr.json'}: {error.strerror}") from error


def update_attributes(path: Path, attributes: Mapping[str, Any], *without: str) -> None:
    """Change some of what volseg noted of an image, and remove some; the rest stays."""
    existing = read_attributes(path)
    noted = {**existing.get("volseg", {}), **attributes}
    kept = {name: value for name, value in noted.items() if name not in without}
    write_group(path, {**existing, "volseg": kept})
