"""Corrections of objects that somebody made by hand, as JSON or a mapping of the same form."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from volseg.errors import ParameterError
from volseg.storage.locations import parse_location
from volseg.storage.recipes import read_given
from volseg.storage.remote import as_remote
from volseg.storage.stores import parse_json
from volseg.types import Zyx, zyx

MOST_BYTES = 64 << 20
"""Of a file of corrections, which is read into memory whole."""
MOST_LISTED = 10_000
"""Objects that a record lists one by one; more would make metadata that nobody can read."""
MOST_PACKED = 1 << 30
"""Bytes of packed numbers, unpacked: those of 134 million objects."""
Target: TypeAlias = int | Zyx
"""An object: its label, or a voxel (z, y, x) that it holds."""
Value = TypeVar("Value")
WHOLE, REAL = (int, np.integer), (int, float, np.integer, np.floating)
"""Types of numbers, of which bool is none here."""


@dataclass(frozen=True)
class Split:
    """An object that becomes several, one for each seed; each seed is a voxel of it."""

    object: Target
    seeds: tuple[Zyx, ...]


@dataclass(frozen=True)
class Painting:
    """Labels of a region that are put over those that stand.

    Attributes
    ----------
    path : of a Zarr array or image, a TIFF, or whatever else labels are read from.
    origin : of the region in the volume.
    object : all that is painted becomes a part of this one; None for new objects.
    instances : take labels of one value as one object, not as a mask.
    """

    path: Path
    origin: Zyx = (0, 0, 0)
    object: Target | None = None
    instances: bool = False


@dataclass(frozen=True)
class Corrections:
    """Operations on the objects of one result; all labels and voxels are those before them.

    Attributes
    ----------
    fingerprint : of that result; None if it is not stated.
    delete : objects that become background.
    merge : objects of each group become one.
    split, add : see `Split` and `Painting`; paintings come last, each over those before it.
    """

    fingerprint: str | None = None
    delete: tuple[Target, ...] = ()
    merge: tuple[tuple[Target, ...], ...] = ()
    split: tuple[Split, ...] = ()
    add: tuple[Painting, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Write the operations as they are read, for the record; places are absolute."""
        add = [
            {
                "path": str(p.path.absolute()),
                "origin": list(p.origin),
                **({} if p.object is None else {"object": _plain(p.object)}),
                **({"instances": True} if p.instances else {}),
            }
            for p in self.add
        ]
        split = [
            {"object": _plain(s.object), "seeds": [list(seed) for seed in s.seeds]}
            for s in self.split
        ]
        delete, merge = [*map(_plain, self.delete)], [[*map(_plain, g)] for g in self.merge]
        written = {"delete": delete, "merge": merge, "split": split, "add": add}
        return {kind: entries for kind, entries in written.items() if entries}


def pack_deleted(operations: Mapping[str, Any]) -> dict[str, Any]:
    """Write many numbers of deleted objects as one text, which is read as they are.

    Examples
    --------
    >>> packed = pack_deleted({"delete": [*range(3, 300_003, 3)]})
    >>> len(packed["delete"]) < 2000, len(read_corrections(packed).delete)
    (True, 100000)
    """
    deleted = operations.get("delete", [])
    if len(deleted) <= MOST_LISTED or not all(isinstance(target, int) for target in deleted):
        return dict(operations)
    steps = np.diff(np.array(deleted, np.uint64), prepend=np.uint64(0)).astype("<u8")
    # most steps are small: their bytes of one place lie together
    planes = steps.view(np.uint8).reshape(-1, 8).T.tobytes()
    return {**operations, "delete": base64.b64encode(zlib.compress(planes)).decode()}


def count_entries(operation: Any) -> int:
    """Count the entries of an operation on record, packed or not; 0 where it is none."""
    try:
        return len(_unpack(operation) if isinstance(operation, str) else operation)
    except (TypeError, ValueError):
        return 0


def _unpack(text: str) -> list[int]:
    """Read what `pack_deleted` wrote.

    Raises
    ------
    ValueError
        If it did not.
    """
    try:
        stream = zlib.decompressobj()
        planes = stream.decompress(base64.b64decode(text, validate=True), MOST_PACKED)
    except zlib.error as error:
        raise ValueError("no zlib stream") from error
    if not stream.eof or len(planes) % 8:
        raise ValueError("too long, or cut off")
    steps = np.frombuffer(planes, np.uint8).reshape(8, -1).T.copy().view("<u8")
    found: list[int] = np.cumsum(steps.ravel(), dtype=np.uint64).tolist()
    return found


def _is_number(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _plain(target: Target) -> int | list[int]:
    return target if isinstance(target, int) else list(target)


def read_corrections(given: Path | Mapping[str, Any]) -> Corrections:
    """Read corrections from a JSON file, or a mapping of the same form.

    Paths in a file are relative to its folder.

    Examples
    --------
    >>> read_corrections({"delete": [3], "merge": [[4, [0, 20, 30]]]}).merge
    ((4, (0, 20, 30)),)
    >>> read_corrections({"delete": [np.uint32(3), [np.int64(0), np.float32(1.6), 2]]}).delete
    (3, (0, 2, 2))
    """
    if isinstance(given, Mapping):
        return _Reader("corrections", Path()).read(given)
    try:
        content = parse_json(read_given(given, MOST_BYTES, "no corrections"))
    except ValueError as error:
        raise ParameterError(f"{given} cannot be read as JSON: {error}") from error
    return _Reader(str(given), given.parent).read(content)


@dataclass(frozen=True)
class _Reader:
    """Reads entries, and names those that are of another form."""

    name: str
    folder: Path

    def read(self, content: Any) -> Corrections:
        kinds: dict[str, Callable[[str, Any], Any]]
        kinds = {"delete": self._target, "merge": self._group, "split": self._split}
        kinds["add"] = self._painting
        found = self._table("", content, {"fingerprint", *kinds})
        stated = found.get("fingerprint")
        if stated is not None and not isinstance(stated, str):
            raise self._wrong("fingerprint", "that of the result, a text", stated)
        if isinstance(packed := found.get("delete"), str):
            try:
                found = {**found, "delete": _unpack(packed)}
            except ValueError:
                raise self._wrong("delete", "a list", packed) from None
        operations = {k: self._list(k, found[k], read) for k, read in kinds.items() if k in found}
        if not any(operations.values()):
            raise ParameterError(f"{self.name} holds no corrections: {', '.join(kinds)}")
        return Corrections(stated, **operations)

    def _split(self, at: str, value: Any) -> Split:
        found = self._table(at, value, {"object", "seeds"}, {"object", "seeds"})
        seeds = self._list(f"{at}.seeds", found["seeds"], self._voxel)
        if len(seeds) < 2:
            raise self._wrong(f"{at}.seeds", "two voxels or more", found["seeds"])
        return Split(self._target(f"{at}.object", found["object"]), seeds)

    def _painting(self, at: str, value: Any) -> Painting:
        found = self._table(at, value, {"path", "origin", "object", "instances"}, {"path"})
        path, instances = found["path"], found.get("instances", False)
        if not isinstance(path, str):
            raise self._wrong(f"{at}.path", "the path of labels", path)
        if not isinstance(instances, bool):
            raise self._wrong(f"{at}.instances", "true or false", instances)
        place, target = parse_location(path), found.get("object")
        return Painting(
            place if as_remote(place) is not None else self.folder / place,
            self._voxel(f"{at}.origin", found.get("origin", [0, 0, 0])),
            None if target is None else self._target(f"{at}.object", target),
            instances,
        )

    def _group(self, at: str, value: Any) -> tuple[Target, ...]:
        found = self._list(at, value, self._target)
        if len(found) < 2:
            raise self._wrong(at, "two objects or more", value)
        return found

    def _target(self, at: str, value: Any) -> Target:
        if _is_number(value, WHOLE) and 0 < value < 2**64:
            return int(value)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return self._voxel(at, value)
        raise self._wrong(at, "a label above 0, or a voxel [z, y, x]", value)

    def _voxel(self, at: str, value: Any) -> Zyx:
        """Read a voxel; of positions between the centres of voxels, the nearest."""
        listed = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3
        numbers = listed and all(_is_number(v, REAL) and abs(v) < 2**53 for v in value)
        if not numbers:
            raise self._wrong(at, "a voxel [z, y, x]", value)
        return zyx(math.floor(v + 0.5) for v in value)

    def _list(self, at: str, value: Any, read: Callable[[str, Any], Value]) -> tuple[Value, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise self._wrong(at, "a list", value)
        return tuple(read(f"{at}[{k}]", entry) for k, entry in enumerate(value))

    def _table(
        self, at: str, value: Any, known: set[str], needed: Iterable[str] = ()
    ) -> Mapping[str, Any]:
        keys = ", ".join(sorted(known))
        if isinstance(value, Mapping) and (unknown := [k for k in value if k not in known]):
            raise self._wrong(at or "all of it", f"an object with some of {keys}", unknown)
        if not isinstance(value, Mapping) or not set(needed) <= set(value) <= known:
            raise self._wrong(at or "all of it", f"an object with some of {keys}", value)
        return value

    def _wrong(self, at: str, expected: str, found: Any) -> ParameterError:
        shown = repr(found)
        shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
        return ParameterError(f"{self.name}: {at}: expected {expected}, found {shown}")
