"""Results that stand on disk: are they this run's, are they complete, and how they are removed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg import __version__
from volseg.differences import tell_apart
from volseg.errors import ConflictError, VolumeError, command
from volseg.objects.dropped import DroppedObjects
from volseg.storage.arrays import ArraySpec
from volseg.storage.attributes import read_notes, section, update_attributes
from volseg.storage.copies import settle_after
from volseg.storage.files import AWAY, beside, discard, left_behind, replace_folder
from volseg.storage.ledger import MARK, Ledger
from volseg.storage.ome import Space
from volseg.storage.remote import as_remote
from volseg.storage.stores import is_zarr
from volseg.storage.tables import withdraw_table
from volseg.storage.volumes import SLICES, Image, create_image, open_image

NETWORK_FLAGS = ("device", "precision", "batch")
"""Parameters of a run that ``auto`` may choose differently elsewhere; each is a flag."""
GPU = "gpu"
"""Parameter of a run that no flag sets: the kind of GPU."""
PARTING = ("block", "shard")
"""Parameters that divide a run into tasks and files; a complete result does not depend on them."""
ELSEWHERE = "choose another --name"
"""Advice where another result has the name of the one that is asked for."""


def is_complete(
    output: Path,
    header: Mapping[str, Any],
    *,
    overwrite: bool,
    same_blocks: bool = False,
    model: str = "",
    elsewhere: str = ELSEWHERE,
) -> bool:
    """Tell whether this very result is already there.

    Parameters
    ----------
    output : an image whose attributes hold ``run``, the header it was made with, and ``complete``
    header : everything that decides the result of the run at hand
    overwrite : whether another result may be replaced
    same_blocks : whether a complete one must have been made in the same blocks
    model, elsewhere : name of the network, and how both results are had, for messages

    Raises
    ------
    ConflictError
        If another result is there and may not be replaced, or something that cannot be opened.
    """
    found = _noted(output)
    if found is None:
        if not overwrite:
            _check_remnant(output, header, elsewhere)
        return False
    if found.get("run") == header:
        return bool(found.get("complete"))
    if found.get("complete") and _result(found.get("run")) == _result(header):
        if not same_blocks:
            return True
        raise ConflictError(
            f"{output} {tell_apart(found['run'], header, (model, model))}; give the --block that "
            f"it was made with"
        )
    if overwrite:
        return False
    theirs, ours = found.get("run"), header
    if found.get("complete"):
        theirs, ours = _result(theirs), _result(ours)
    raise ConflictError(
        f"{output} {tell_apart(theirs, ours, (_model_of(found), model))}; "
        f"{_same_flags(found.get('run'), header)}{elsewhere}, or give --overwrite to replace it"
    )


def _model_of(notes: Mapping[str, Any]) -> str:
    """Read the name of the network that made a result; empty if none is on record."""
    name = section(notes, "model").get("name")
    return name if isinstance(name, str) else ""


def _same_flags(theirs: Any, ours: Mapping[str, Any]) -> str:
    """Advise to run the network as before, where nothing else differs."""
    if not isinstance(theirs, Mapping):
        return ""
    differing = {key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key)}
    if not differing <= {*NETWORK_FLAGS, GPU}:
        return ""
    # versions that kept no kind, and workers elsewhere, cannot be gone on with here
    if GPU in differing - set(theirs) and "device" not in differing:
        return ""
    flags = sorted(differing - {GPU})
    given = [" ".join(f"--{key} {theirs[key]}" for key in flags if key in theirs)]
    given += [f"no --{key}" for key in flags if key not in theirs]
    ways = [f"give {' and '.join(filter(None, given))}"] if flags else []
    if GPU in differing & set(theirs):
        ways.append(f"run it on a GPU of the kind {theirs[GPU]}")
    return f"{' and '.join(ways)} to go on with it, "


def note_begun(ledger: Ledger, header: Mapping[str, Any]) -> dict[str, Any]:
    """Note of an image that a run begins: it is incomplete, and by whom and how it is made."""
    return {"complete": False, "version": __version__, MARK: ledger.mark, "run": header}


def is_told_of(output: Path, ledger: Ledger) -> bool:
    """Tell whether an unfinished image is the one whose blocks a ledger has on record.

    It is not if somebody removed or replaced it; then what is on record is no more.

    Raises
    ------
    ConflictError
        If it lies on object storage, and the ledger of its run with another machine's scratch.
    """
    found = _noted(output)
    if found is None:
        return False
    if found.get(MARK) == ledger.mark:
        return True
    if as_remote(output) is not None and MARK in found:
        raise ConflictError(
            f"{output} was begun by a run whose scratch is not {ledger.path.parent}; go on where "
            f"it was begun, or with its --scratch, or give --overwrite to discard it"
        )
    return False


def _noted(output: Path) -> Mapping[str, Any] | None:
    """Read what volseg noted of an image; None where there is none that can be opened."""
    if not is_zarr(output):
        return None
    try:
        return open_image(output).attributes
    except VolumeError:
        return None


def recorded_run(output: Path) -> Mapping[str, Any]:
    """Read the header of the run that made, or makes, an image; empty where none can be read."""
    return section(_noted(output) or {}, "run")


def _check_remnant(output: Path, header: Mapping[str, Any], elsewhere: str) -> None:
    """Refuse what cannot be opened, unless a killed run of this header has left it.

    Such a run leaves an image without all of its arrays, or a folder without any metadata.
    """
    if not is_zarr(output) and not output.is_file():
        return
    try:
        if read_notes(output).get("run") == header:
            return
        open_image(output)
    except VolumeError as error:
        raise ConflictError(
            f"{output} is in the way and not of this run ({error}); move it, {elsewhere}, "
            f"or give --overwrite to replace it"
        ) from error


def _result(header: Any) -> Any:
    """Keep what decides a complete result."""
    if not isinstance(header, Mapping):
        return header
    return {key: value for key, value in header.items() if key not in PARTING}


def finish(output: Path, ledger: Ledger, header: Mapping[str, Any]) -> None:
    """Mark an image as complete, unless it is.

    Raises
    ------
    ConflictError
        If another run has begun it anew in the meantime.
    """
    if is_complete(output, header, overwrite=False):
        return
    if not is_told_of(output, ledger):
        raise ConflictError(
            f"{output} was removed or begun anew while it was written; give the command again"
        )
    update_attributes(output, {"complete": True, "fingerprint": fingerprint(header)}, MARK)


def check_place(image: Image) -> None:
    """Check that results have a place beside what they are made from.

    Raises
    ------
    VolumeError
        If the image is a result itself, or a plain array.
    """
    path = image.path
    if "run" in image.attributes:
        raise VolumeError(f"{path} is a result of volseg; name the volume that it was made from")
    if image.levels[0].path == path:
        raise VolumeError(
            f"{path} is a plain Zarr array, which has no place for results and no voxel size; make "
            f"a volume of it: `"
            + command("convert", path, "VOLUME.zarr", "--voxel-size", "Z,Y,X")
            + "`"
        )


@dataclass(frozen=True)
class NewImage:
    """An image to be created; see `volseg.storage.volumes.create_image`."""

    path: Path
    spec: ArraySpec
    space: Space
    attributes: Mapping[str, Any]
    label: bool = False

    def create(self, place: Path) -> None:
        """Create it, empty, at another place for the time being."""
        create_image(
            place,
            self.spec,
            self.space,
            label=self.label,
            name=self.path.name,
            attributes=self.attributes,
        )


def _discard_results(*paths: Path) -> None:
    """Discard results, and what was published of them where they are tables."""
    for path in paths:
        if path.suffix == ".parquet" and not path.stem.endswith(SLICES):
            withdraw_table(path)
    discard(*paths)


def create_images(images: Sequence[NewImage], *outdated: Path) -> None:
    """Create images, empty, in place of what stands there, and remove what they make outdated.

    Nothing is removed before all images are created; if one cannot be, all stays as it was. On
    object storage, which cannot rename, what stands there is removed first.
    """
    replaced = [*outdated, *(image.path for image in images)]
    if any(as_remote(image.path) is not None for image in images):
        _discard_results(*outdated)
        discard(*(image.path for image in images))
        for image in images:
            image.create(image.path)
        settle_after(*replaced)
        return
    staged = {beside(image.path): image for image in images}
    new_groups = {i.path.parent for i in images if not i.path.parent.exists()}
    for image in images:
        if image.path.parent.exists():
            discard(*left_behind(image.path), *left_behind(image.path, AWAY))
    try:
        for place, image in staged.items():
            image.create(place)
    except BaseException:
        discard(*staged)
        for group in new_groups:
            _remove_empty_group(group)
        raise
    _discard_results(*outdated)
    for place, image in staged.items():
        replace_folder(image.path, place)
    settle_after(*replaced)


def _remove_empty_group(path: Path) -> None:
    """Remove a group that holds nothing but its metadata."""
    if path.is_dir() and {p.name for p in path.iterdir()} <= {"zarr.json"}:
        discard(path)


def fingerprint(header: Mapping[str, Any]) -> str:
    """Hash everything that decides a result."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:32]


def dropped_from(labels: Image) -> DroppedObjects:
    """Read what is on record of the objects that rules dropped from labels."""
    return DroppedObjects.read(labels.attributes, labels.voxel_size, planar=labels.space.planar)
