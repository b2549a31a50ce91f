"""Attributes of Zarr groups: small JSON files, replaced at once or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from volseg.errors import StorageError, VolumeError

METADATA_BYTES = 64 << 20
"""Metadata is read into memory whole, so a larger file is refused."""


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
        if file.stat().st_size > METADATA_BYTES:
            raise VolumeError(f"{file} has more than {METADATA_BYTES} bytes: this is no metadata")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise VolumeError(f"{file} is not valid JSON: {error}") from error
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


def update_attributes(path: Path, attributes: Mapping[str, Any]) -> None:
    """Change some of what volseg noted of an image; the rest stays."""
    existing = read_attributes(path)
    write_group(path, {**existing, "volseg": {**existing.get("volseg", {}), **attributes}})
