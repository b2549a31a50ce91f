"""Attributes of Zarr groups: small JSON files, replaced at once or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import VolumeError
from volseg.storage.files import write_file
from volseg.storage.remote import as_remote
from volseg.storage.stores import describe_group, find_zip, read_entry

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
    return _attributes_in(*_read_metadata(path))


def read_node(path: Path) -> tuple[bool, dict[str, Any]]:
    """Read, from as few files as can be, whether there is an array, and the attributes.

    Raises
    ------
    VolumeError
        If they are not valid JSON.
    """
    file, content = _read_metadata(path)
    attributes = _attributes_in(file, content)
    if file.name == "zarr.json" and content is not None:
        return isinstance(content, dict) and content.get("node_type") == "array", attributes
    return (path / ".zarray").is_file(), attributes


def _attributes_in(file: Path, content: Any) -> dict[str, Any]:
    if file.name == "zarr.json":
        content = content.get("attributes", {}) if isinstance(content, dict) else {}
    return content if isinstance(content, dict) else {}


def _read_metadata(path: Path) -> tuple[Path, Any]:
    """Find the file that holds a group's attributes, Zarr v3's or v2's, and what is in it.

    Without either, it is the file of v3 and None.
    """
    for file in (path / "zarr.json", path / ".zattrs"):
        content = _read_json(file)
        if content is not None:
            return file, content[0]
    return path / "zarr.json", None


def read_array_metadata(path: Path) -> dict[str, Any] | None:
    """Read what describes an array, Zarr v3 or v2; None where there is none.

    Raises
    ------
    VolumeError
        If it is not valid JSON.
    """
    found = _read_json(path / "zarr.json")
    if found is not None:
        content = found[0]
        array = isinstance(content, dict) and content.get("node_type") == "array"
        return content if array else None
    found = _read_json(path / ".zarray")
    if found is not None and not isinstance(found[0], dict):
        raise VolumeError(f"{path / '.zarray'} does not describe an array")
    return found[0] if found is not None else None


def _read_json(file: Path) -> tuple[Any] | None:
    """Read a file of JSON; None if there is none."""
    try:
        content = _read_small(file)
        return None if content is None else (parse_json(content.decode()),)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise VolumeError(f"{file} is not valid JSON: {error}") from error
    except OSError as error:
        raise VolumeError(f"cannot read {file}: {error.strerror or error}") from error


def _read_small(file: Path) -> bytes | None:
    if as_remote(file) is not None:
        return file.read_bytes()
    zipped = find_zip(file)
    if zipped is not None:
        return read_entry(*zipped, METADATA_BYTES)
    found = file.stat()
    if not S_ISREG(found.st_mode):
        return None
    if found.st_size > METADATA_BYTES:
        raise VolumeError(f"{file} has more than {METADATA_BYTES} bytes: this is no metadata")
    return file.read_bytes()


def write_group(path: Path, attributes: Mapping[str, Any]) -> None:
    """Write a group's metadata, Zarr v3; it is replaced at once or not at all.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    write_file(path / "zarr.json", describe_group(attributes))


def _write_metadata(path: Path, content: Mapping[str, Any]) -> None:
    write_file(path, json.dumps(content, indent=1).encode())


def change_group(path: Path, attributes: Mapping[str, Any]) -> None:
    """Replace some of a group's attributes, in the version of Zarr that it has; the rest stays.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    file, content = _read_metadata(path)
    changed = {**_attributes_in(file, content), **attributes}
    if file.name == ".zattrs":
        _write_metadata(file, changed)
    elif isinstance(content, dict) and content:
        _write_metadata(file, {**content, "attributes": changed})
    elif content is None and (path / ".zgroup").is_file():
        _write_metadata(path / ".zattrs", changed)
    else:
        write_group(path, changed)


def update_attributes(path: Path, attributes: Mapping[str, Any], *without: str) -> None:
    """Change some of what volseg noted of an image, and remove some; the rest stays."""
    noted = {**read_attributes(path).get("volseg", {}), **attributes}
    change_group(path, {"volseg": {k: v for k, v in noted.items() if k not in without}})


def listed_labels(volume: Path) -> list[str]:
    """Name the labels that a volume's ``labels`` group lists, as OME-Zarr 0.5 or 0.4 does."""
    found = read_attributes(volume / "labels")
    listed = found.get("ome", found)
    names = listed.get("labels") if isinstance(listed, dict) else None
    return sorted(map(str, names)) if isinstance(names, list) else []


def list_label(volume: Path, name: str, version: str) -> None:
    """Add a name to what a volume's ``labels`` group lists; one of OME-Zarr 0.4 stays so."""
    group, names = volume / "labels", sorted({*listed_labels(volume), name})
    if (group / ".zgroup").is_file() and not (group / "zarr.json").is_file():
        change_group(group, {"labels": names})
        return
    found = read_attributes(group).get("ome")
    ome = found if isinstance(found, dict) else {}
    change_group(group, {"ome": {"version": version, **ome, "labels": names}})


def written_at(path: Path) -> str | None:
    """Find when the metadata of a group were last written, ISO 8601 in UTC; None if unknown."""
    file = path / "zarr.json"
    if as_remote(path) is not None or not file.is_file():
        return None
    return datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="seconds")
