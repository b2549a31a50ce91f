"""Attributes of Zarr groups: small JSON files, replaced at once or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import VolumeError
from volseg.storage.files import write_file
from volseg.storage.remote import as_remote
from volseg.storage.stores import describe_group, read_json

NOTED: Mapping[str, type | tuple[type, ...]] = {
    "version": str,
    "complete": bool,
    "mark": str,
    "fingerprint": str,
    "run": dict,
    "model": dict,
    "source": dict,
    "histogram": dict,
    "survey": dict,
    "objects": int,
    "highest": int,
    "corrections": dict,
    "too_large_to_split": int,
    "dropped": dict,
    "kept_objects": dict,
    "roi": list,
}
"""Entries that volseg writes for an image and reads again; unknown ones may be null."""


def is_fraction(value: Any) -> bool:
    """Tell whether what was read from JSON is a number from 0 to 1.

    Examples
    --------
    >>> [is_fraction(v) for v in (0, 0.5, 1, True, float("nan"), 10**400, "0.5", None)]
    [True, True, True, False, False, False, False, False]
    """
    return type(value) in (int, float) and 0 <= value <= 1


def check_notes(path: Path, notes: Any) -> Mapping[str, Any]:
    """Check that what volseg noted of an image is of the types that it writes."""
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
    """
    try:
        counts = np.asarray(noted["counts"], np.int64)
        values = np.asarray(noted["values"], np.float64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise VolumeError(
            f"the histogram of {path} cannot be used; convert the source again"
        ) from error
    sound = values.ndim == 1 and np.isfinite(values).all() and counts.min(initial=0) >= 0
    if not sound or values.shape != counts.shape or not counts.any():
        raise VolumeError(
            f"the histogram of {path} has {counts.shape} counts for {values.shape} intensities, "
            f"expected one each, none negative, not all 0; convert the source again"
        )
    return counts, values


def read_tissue(
    path: Path, histogram: Mapping[str, Any], survey: Mapping[str, Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read a histogram without the background noted with it, unless there is nothing else."""
    counts, values = read_histogram(path, histogram)
    left = counts.copy()
    try:
        for area in survey.get("background", []):
            left[values == float(area["counted_as"])] -= int(area["voxels"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise VolumeError(
            f"the background noted of {path} cannot be used; remove its attribute "
            f"volseg.survey, and it is made again"
        ) from error
    left = np.maximum(left, 0)
    return (left if left.any() else counts), values


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def read_attributes(path: Path) -> dict[str, Any]:
    """Read a group's attributes, Zarr v3 or v2; empty where there are none."""
    return _attributes_in(*_read_metadata(path))


def read_notes(path: Path) -> dict[str, Any]:
    """Read what volseg noted in a group's attributes; empty where there is nothing."""
    return section(read_attributes(path), "volseg")


def section(content: Any, name: str) -> dict[str, Any]:
    """Take an object within what was read from JSON; an empty one where there is none.

    Examples
    --------
    >>> section({"run": {"block": 64}, "model": None}, "run"), section({"model": None}, "model")
    ({'block': 64}, {})
    """
    found = content.get(name) if isinstance(content, Mapping) else None
    return found if isinstance(found, dict) else {}


def read_node(path: Path) -> tuple[bool, dict[str, Any]]:
    """Read, from as few files as can be, whether there is an array, and the attributes."""
    file, content = _read_metadata(path)
    attributes = _attributes_in(file, content)
    if file.name == "zarr.json" and content is not None:
        return isinstance(content, dict) and content.get("node_type") == "array", attributes
    return read_json(path / ".zarray") is not None, attributes


def _attributes_in(file: Path, content: Any) -> dict[str, Any]:
    if file.name == "zarr.json":
        return section(content, "attributes")
    return content if isinstance(content, dict) else {}


def _read_metadata(path: Path) -> tuple[Path, Any]:
    """Find the file that holds a group's attributes, Zarr v3's or v2's, and what is in it.

    Without either, it is the file of v3 and None.
    """
    for file in (path / "zarr.json", path / ".zattrs"):
        content = read_json(file)
        if content is not None:
            return file, content[0]
    return path / "zarr.json", None


def write_group(path: Path, attributes: Mapping[str, Any]) -> None:
    """Write a group's metadata, Zarr v3; it is replaced at once or not at all."""
    write_file(path / "zarr.json", describe_group(attributes))


def _write_metadata(path: Path, content: Mapping[str, Any]) -> None:
    write_file(path, json.dumps(content, indent=1).encode())


def change_group(path: Path, attributes: Mapping[str, Any]) -> None:
    """Replace some of a group's attributes, in the version of Zarr that it has; the rest stays."""
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
    noted = {**read_notes(path), **attributes}
    change_group(path, {"volseg": {k: v for k, v in noted.items() if k not in without}})


def listed_labels(volume: Path) -> list[str]:
    """Name the labels that a volume's ``labels`` group lists, as OME-Zarr 0.5 or 0.4 does."""
    found = read_attributes(volume / "labels")
    listed = found.get("ome", found)
    names = listed.get("labels") if isinstance(listed, dict) else None
    return sorted(map(str, names)) if isinstance(names, list) else []


def results_in(volume: Path, kind: str, pattern: str = "*") -> list[Path]:
    """List what stands in a volume's ``probabilities``, ``labels`` or ``tables``, sorted.

    What lies behind http cannot be listed: there it is what the ``labels`` group names.
    """
    remote = as_remote(volume)
    if remote is None or not remote.read_only:
        found = (volume / kind).glob(pattern)
        return sorted(path for path in found if not path.name.startswith("."))
    ending = ".parquet" if kind == "tables" else ""
    known = [volume / kind / f"{name}{ending}" for name in listed_labels(volume)]
    return [path for path in known if path.exists()]


def uncorrected(volume: Path, name: str) -> str:
    """Name the result that labels were made of by corrections; their own name where by none."""
    origin = section(read_notes(volume / "labels" / name), "corrections").get("uncorrected")
    return origin if isinstance(origin, str) else name


def list_label(volume: Path, name: str, version: str) -> None:
    """Add a name to what a volume's ``labels`` group lists; one of OME-Zarr 0.4 stays so."""
    group, names = volume / "labels", sorted({*listed_labels(volume), name})
    if (group / ".zgroup").is_file() and not (group / "zarr.json").is_file():
        change_group(group, {"labels": names})
        return
    ome = section(read_attributes(group), "ome")
    change_group(group, {"ome": {"version": version, **ome, "labels": names}})


def written_at(path: Path) -> str | None:
    """Find when the metadata of a group were last written, ISO 8601 in UTC; None if unknown."""
    file = path / "zarr.json"
    if as_remote(path) is not None or not file.is_file():
        return None
    return datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="seconds")
