"""Probabilities that labels are made from, and the maps by which touching objects are split."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from volseg.errors import VolumeError, command
from volseg.models.maps import CENTERLINE, CONTOUR, DISTANCE, OFFSET, OFFSETS
from volseg.stages.label.rules import states_size
from volseg.storage.attributes import is_fraction
from volseg.storage.volumes import Image, open_image, probabilities_path


def open_probabilities(volume: Path, name: str) -> Image:
    """Open complete probabilities."""
    image = _open_complete(volume, name)
    model, run = (image.attributes.get(key) or {} for key in ("model", "run"))
    threshold, least = model.get("threshold"), model.get("min_probability", 0)
    stated = isinstance(threshold, float) and 0 < threshold < 1 and states_size(model)
    if not stated or not is_fraction(least) or "roi" not in run:
        raise VolumeError(
            f"the attributes of {image.path} do not say any more how it was made; remove it, and "
            f"make it again: `{command('segment', volume, name=name)}`"
        )
    return image


def _open_complete(volume: Path, name: str) -> Image:
    path = probabilities_path(volume, name)
    if not path.exists():
        first = command("segment", volume, name=name)
        raise VolumeError(f"{volume} has no probabilities/{name}; run `{first}` first")
    image = open_image(path)
    noted = image.attributes
    if noted.get("complete") is False:  # what it is of is noted at the end
        raise VolumeError(f"{path} is incomplete; run the command that began it again")
    known = {"complete", "run", "fingerprint"} <= set(noted)
    if image.levels[0].dtype != np.uint8 or not known:
        raise VolumeError(f"{path} was not written by volseg segment; its meaning is not known")
    return image


GUIDES: Mapping[str, tuple[str, ...]] = {
    CENTERLINE: (CENTERLINE,),
    CONTOUR: (CONTOUR, DISTANCE),
    OFFSET: OFFSETS,
}
"""Maps that a way to split needs, or that help it."""
NEEDED = {CENTERLINE: {CENTERLINE}, CONTOUR: {CONTOUR}, OFFSET: set(OFFSETS[1:])}
"""Those without which it cannot be done; of offsets, any two."""
STORED = {
    CENTERLINE: ("--store-centerline",),
    CONTOUR: ("--split", CONTOUR, "--overwrite"),
    OFFSET: ("--split", OFFSET, "--overwrite"),
}
"""Flags that write them."""


def choose_guides(split: str, there: Collection[str]) -> tuple[str, ...]:
    """Choose, of the maps that are there, those by which objects are split; none if some lack.

    Examples
    --------
    >>> choose_guides("contour", ["distance"]), choose_guides("offset", ["offset-z", "offset-x"])
    ((), ('offset-z', 'offset-x'))
    """
    found = tuple(kind for kind in GUIDES.get(split, ()) if kind in there)
    enough = len(found) > 1 if split == OFFSET else NEEDED.get(split, set()) <= set(found)
    return found if enough else ()


def open_guides(image: Image, name: str, split: str) -> list[Image]:
    """Open the maps by which objects of a class are split; none where they are not."""
    if split not in GUIDES:
        return []
    stored = {kind: probabilities_path(image.path, f"{name}-{kind}") for kind in GUIDES[split]}
    found = choose_guides(split, [kind for kind, path in stored.items() if path.exists()])
    return [open_guide(image, name, kind, split) for kind in found or sorted(NEEDED[split])]


def open_guide(image: Image, name: str, kind: str, split: str) -> Image:
    """Open a complete map of a class, to split its objects by: ``probabilities/<name>-<kind>``."""
    volume, stored = image.path, f"{name}-{kind}"
    if not probabilities_path(volume, stored).exists():
        write = command("segment", volume, *STORED[split], name=name)
        raise VolumeError(
            f"{volume} has no probabilities/{stored}, which --split {split} needs; write it with "
            f"`{write}`, or use --split distance"
        )
    found, shape = _open_complete(volume, stored), image.levels[0].shape
    if found.levels[0].shape != shape:
        raise VolumeError(
            f"probabilities/{stored} has the shape {found.levels[0].shape}, the volume {shape}; "
            f"{split}s must be those of the whole volume, voxel by voxel"
        )
    return found
