"""Beside probabilities: scratch of their run, auxiliary maps of a class, the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volseg.errors import ModelError, ParameterError, VolumeError
from volseg.models.maps import AUXILIARY
from volseg.storage.attributes import section, uncorrected
from volseg.storage.cards import load_card, shipped_models
from volseg.storage.remote import as_remote
from volseg.storage.scratch import HandoverStore
from volseg.storage.volumes import Image, check_complete, open_image, probabilities_path
from volseg.types import Zyx

KIND = "output"
"""The parameter by which auxiliary maps differ from their class."""


@dataclass(frozen=True)
class Scratch:
    """Files that a run keeps until it is complete."""

    folder: Path
    name: str

    @property
    def ledger(self) -> Path:
        """Say where the ledger lies."""
        return self.folder / f"predict-{self.name}.jsonl"

    @property
    def store(self) -> HandoverStore:
        """Say where blocks exchange what they evaluated."""
        return HandoverStore(self.folder / f"predict-{self.name}")


def find_outdated(
    classes: Sequence[Path], scratch: Path, written: Sequence[Path] = ()
) -> tuple[Path, ...]:
    """List what goes with classes that a run replaces: no map outlives its class.

    Parameters
    ----------
    classes : images of classes, in one folder
    scratch : where runs keep their files
    written : what the run replaces itself
    """
    found: list[Path] = []
    beside = _names_in(classes[0].parent) if classes else set()
    for image in classes:
        for kind in AUXILIARY:
            path = image.with_name(f"{image.name}-{kind}")
            if path.name in beside and _holds_map(path, kind):
                kept = Scratch(scratch, path.name)
                found += [kept.ledger, kept.store.folder, *([] if path in written else [path])]
    return tuple(found)


def find_probabilities(volume: Path, name: str, shape: Zyx) -> Image | None:
    """Open the probabilities of a result; None without any.

    Raises
    ------
    VolumeError
        If they are incomplete, or of another kind.
    """
    path = probabilities_path(volume, uncorrected(volume, name))
    if not path.exists():
        return None
    image = check_complete(open_image(path))
    array = image.levels[0]
    if array.dtype != np.uint8 or array.shape != shape:
        raise VolumeError(
            f"{path} holds {array.dtype} of the shape {array.shape}, expected uint8 for 0..1 and "
            f"the shape {shape}"
        )
    return image


def find_recorded(
    record: Mapping[str, Any], model: str | None, beside: Iterable[Path] = ()
) -> str | None:
    """Find the weights that made a result: those that are named, shipped, or among others.

    Raises
    ------
    KeyError
        If none are on record.
    ModelError
        If those that are named cannot be used.
    ParameterError
        If those are not the ones on record.
    """
    wanted = record["sha256"]
    if model is not None:
        if (found := load_card(model).sha256) != wanted:
            raise ParameterError(
                f"{model} did not make the result: its sha256 is {found[:12]}..., on record is "
                f"{wanted[:12]}... of {record.get('name')}; name that one, or segment with this"
            )
        return model
    for candidate in (*shipped_models(), *map(str, beside)):
        with suppress(ModelError):  # not all that ends so is of volseg
            if load_card(candidate).sha256 == wanted:
                return candidate
    return None


def _names_in(folder: Path) -> set[str]:
    """List a folder: one request, where object storage would be asked for each map."""
    remote = as_remote(folder)
    if (remote is None and not folder.is_dir()) or (remote is not None and remote.read_only):
        return set()
    return {path.name for path in folder.iterdir()}


def _holds_map(path: Path, kind: str) -> bool:
    """Tell an auxiliary map from a class that somebody gave such a name."""
    try:
        return bool(section(open_image(path).attributes, "run").get(KIND) == kind)
    except VolumeError:
        return False
