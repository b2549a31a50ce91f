"""Copies as Zarr v2 beside what a volume holds as Zarr v3, for programs that know v2 alone.

In the folders of ``zarr.json`` stand ``.zgroup`` and ``.zattrs`` of groups and ``.zarray`` of
arrays, and beside the shards, ``c/0/0/0``, a file per chunk, ``0/0/0``. The attributes of an image
are there if its copy is complete: they are written last and removed first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from volseg.errors import ConflictError, StorageError
from volseg.storage.arrays import StoredArray
from volseg.storage.attributes import results_in
from volseg.storage.bounded import check_codecs, hold_codecs
from volseg.storage.files import discard, remove_file, write_file
from volseg.storage.ledger import Ledger, locked
from volseg.storage.locations import reason
from volseg.storage.ome import read_levels
from volseg.storage.remote import as_remote
from volseg.storage.stores import open_store, read_json
from volseg.storage.targets import BEGUN, going_on
from volseg.storage.volumes import PATIENCE, Image, open_image, scratch_path
from volseg.types import Roi

GROUP, ATTRIBUTES, ARRAY = ".zgroup", ".zattrs", ".zarray"
IS_GROUP = {"zarr_format": 2}
UNFINISHED = ".copying"
"""File in an image of which a copy is being written or removed; it holds the mark of the run."""
WRITERS: Mapping[str, tuple[str, ...]] = {
    "labels": ("label", "apply"),
    "probabilities": ("predict",),
}
"""Verbs whose runs replace a result, each under a lock of its own."""


def is_copied(path: Path) -> bool:
    """Tell whether a group of Zarr v3 has attributes of Zarr v2, too."""
    return (path / ATTRIBUTES).is_file() and (path / "zarr.json").is_file()


def is_unfinished(path: Path) -> bool:
    """Tell whether a copy of an image was begun, and neither finished nor removed."""
    return (path / UNFINISHED).is_file()


@contextmanager
def copying(
    volume: Path, image: Image, header: Mapping[str, Any], last: Mapping[Path, bytes]
) -> Iterator[tuple[Path, Ledger]]:
    """Lend an image's folder to write chunks of Zarr v2 in, and a ledger; see `resuming`.

    Parameters
    ----------
    image : the volume, or a result in it
    header : all that decides what is written; with another one it begins anew
    last : content of the files that make a copy of chunks, in their order

    Raises
    ------
    ConflictError
        If another process copies or replaces the same image, or has replaced it in the meantime;
        what was written into its successor is removed.
    """
    mark, path = image.path / UNFINISHED, _ledger_path(volume, image)
    with _alone(volume, image), going_on(path, header, overwrite=True) as ledger:
        _check_same(image)
        if BEGUN not in ledger.records or not _is_of(mark, ledger):
            check_foreign(image)
            ledger.restart()
            write_file(mark, ledger.mark.encode())
            _clear(image)
            ledger.record(BEGUN)
        try:
            yield image.path, ledger
        finally:  # blocks fail, too, when what they are written in goes away
            _check_own(image, ledger)
        for file, content in last.items():
            write_file(file, content)
        _check_own(image, ledger)  # runs of several classes replace under the lock of one
        settle_groups(volume)
        remove_file(mark)


def remove_copy(volume: Path, image: Image) -> None:
    """Remove the copy of an image, complete or not."""
    mark, path = image.path / UNFINISHED, _ledger_path(volume, image)
    with _alone(volume, image), going_on(path, {"removes": True}, overwrite=True) as ledger:
        write_file(mark, ledger.mark.encode())
        _clear(image)
        settle_groups(volume)
        remove_file(mark)


def settle_groups(volume: Path) -> None:
    """Make groups of Zarr v2, and the list of labels, agree with the copies that are there."""
    with locked(scratch_path(volume) / "labels.lock", patience=PATIENCE):
        copied = is_copied(volume)
        for kind in ("labels", "probabilities"):
            group = volume / kind
            if not (group / "zarr.json").is_file():
                continue  # of a volume of others, of Zarr v2 itself
            names = []
            for path in results_in(volume, kind):
                if is_copied(path):
                    names.append(path.name)
                    _write(path / GROUP, IS_GROUP)
                elif (path / "zarr.json").is_file():
                    _write(path / GROUP, None)
            _write(group / ATTRIBUTES, {"labels": names} if names and kind == "labels" else None)
            _write(group / GROUP, IS_GROUP if names else None)
            copied = copied or bool(names)
        if (volume / "zarr.json").is_file():
            _write(volume / GROUP, IS_GROUP if copied else None)


def settle_after(*replaced: Path) -> None:
    """Make groups agree after results were replaced or removed, whose copies went with them."""
    for volume in {path.parent.parent for path in replaced}:
        if (volume / GROUP).is_file():
            settle_groups(volume)


def copy_lies_elsewhere(image: Image) -> bool:
    """Tell whether a copy states other sizes, places or levels than the image has, or none."""
    found = read_json(image.path / ATTRIBUTES)
    try:
        levels, axes = read_levels(found[0]["multiscales"][0] if found else {})
    except (KeyError, TypeError, IndexError, AttributeError, ValueError):
        return True
    spaces = [image.space.at((0, 0, 0), factor) for factor in image.factors]
    ours = [(*space.scale, *space.origin) for space in spaces]
    theirs = [(*level.scale, *level.origin) for level in levels]
    units = tuple(axis["unit"] for axis in axes if axis.get("unit"))
    same = np.shape(ours) == np.shape(theirs) and np.allclose(ours, theirs)
    return not same or units != (image.space.units or ())


def read_copy(level: StoredArray, box: Roi) -> NDArray[Any]:
    """Read a box of an array from its copy."""
    try:
        found = read_json(level.path / ARRAY)
        if found is None:
            raise StorageError(f"there is no {level.path / ARRAY}")
        check_codecs(found[0])
        described = zarr.AsyncArray.from_dict(open_store(level.path), found[0])
        return np.asarray(zarr.Array(hold_codecs(described))[box])
    except Exception as error:
        why = reason(level.path, error, "what describes it is damaged")
        raise StorageError(f"cannot read the copy of {level.path}: {why}") from error


def size_of_copy(image: Image) -> tuple[int, int] | None:
    """Measure an image, which a copy of it takes about as well, and its copy as far as written.

    Returns
    -------
    bytes of both; None on object storage, where nothing runs full
    """
    if as_remote(image.path) is not None:
        return None
    own = copied = 0
    for level in image.levels:
        for folder, _, files in os.walk(level.path):
            begun = Path(folder).relative_to(level.path).parts[:1]
            size = sum((Path(folder) / name).stat().st_size for name in files)
            if begun and begun[0].isdigit():
                copied += size
            else:
                own += size
    return own, copied


def has_chunks(image: Image) -> bool:
    """Tell whether a copy has left chunks, and nothing that describes them."""
    described = any((level.path / ARRAY).is_file() for level in image.levels)
    return not described and any(True for level in image.levels for _ in _chunks(level.path))


def check_foreign(image: Image) -> None:
    """Refuse an image in whose folders another program wrote Zarr v2."""
    if is_unfinished(image.path):
        return
    file = image.path / ATTRIBUTES
    found, places = read_json(file), [level.path / ARRAY for level in image.levels]
    creator = found[0].get("_creator") if found and isinstance(found[0], dict) else None
    if isinstance(creator, dict) and creator.get("name") == "volseg":
        return
    if foreign := [place for place in (file, *places) if place.is_file()]:
        raise ConflictError(
            f"{foreign[0]} is of Zarr v2 and not of volseg; move it, or give --output COPY.zarr"
        )


def _chunks(level: Path) -> Iterator[Path]:
    """List the folders of chunks of Zarr v2 in an array's folder, if it is there."""
    return (path for path in (level.iterdir() if level.is_dir() else ()) if path.name.isdigit())


def _ledger_path(volume: Path, image: Image) -> Path:
    inner = image.path.parts[len(volume.parts) :] or ("raw",)
    return scratch_path(volume) / f"copy-{'-'.join(inner)}.jsonl"


@contextmanager
def _alone(volume: Path, image: Image) -> Iterator[None]:
    """Keep runs from replacing a result; `convert` replaces no volume in which a lock is held."""
    kind, name = image.path.parts[len(volume.parts) :] or ("raw", "")
    with ExitStack() as held:
        for verb in WRITERS.get(kind, ()):
            held.enter_context(locked(scratch_path(volume) / f"{verb}-{name}.lock"))
        yield


def _check_same(image: Image) -> None:
    """Refuse an image that is another one than was looked at before a lock was held."""
    now = open_image(image.path)
    before, after = (
        json.dumps([[level.shape for level in i.levels], i.attributes], sort_keys=True, default=str)
        for i in (image, now)
    )
    if before != after:
        raise ConflictError(f"{image.path} was changed in the meantime; give the command again")


def _check_own(image: Image, ledger: Ledger) -> None:
    """Remove what was written into an image's successor, and refuse to go on."""
    if _is_of(image.path / UNFINISHED, ledger):
        return
    _clear(image)
    raise ConflictError(f"{image.path} was replaced while it was copied; give the command again")


def _is_of(mark: Path, ledger: Ledger) -> bool:
    return mark.is_file() and mark.read_bytes() == ledger.mark.encode()


def _clear(image: Image) -> None:
    """Remove what a copy consists of; metadata first."""
    remove_file(image.path / ATTRIBUTES)
    for level in image.levels:
        remove_file(level.path / ARRAY)
    for level in image.levels:
        discard(*_chunks(level.path))
        if level.path.is_dir() and not any(level.path.iterdir()):
            discard(level.path)  # of a level that a successor does not have


def _write(path: Path, content: Mapping[str, Any] | None) -> None:
    """Write a small file of JSON, or remove it; another program's stays."""
    if path.is_file() and not path.read_bytes().startswith(b'{\n "'):
        return  # others indent in other ways
    if content is None:
        remove_file(path)
    else:
        write_file(path, json.dumps(content, indent=1).encode())
