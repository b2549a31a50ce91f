"""Keep marks in the volume they were made on, round by round, so that they can be undone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError, VolumeError
from volseg.objects.intervals import Intervals
from volseg.storage.files import make_folder, remove_file
from volseg.storage.tables import read_columns, write_table
from volseg.storage.volumes import table_path
from volseg.types import Zyx


def _nothing() -> NDArray[np.int64]:
    return np.zeros((0, 2), np.int64)


@dataclass(frozen=True)
class Mark:
    """A statement about voxels: all of them are of a mitochondrion, or none is.

    Attributes
    ----------
    name : what the user said, for messages and the record.
    spans : the voxels that are learned.
    object : number of the object that is marked; 0 for a seed or a painted region.
    whole : all voxels of that object, where only a section of it is learned; or empty.
    """

    yes: bool
    name: str
    spans: Intervals
    object: int = 0
    whole: Intervals = field(default_factory=_nothing)

    @property
    def meant(self) -> Intervals:
        """The voxels of all that is marked."""
        return self.whole if len(self.whole) else self.spans


@dataclass(frozen=True)
class Round:
    """Marks that were made at one time.

    Attributes
    ----------
    marks : what was said.
    made_on : fingerprint of the labels, and hash of the weights, that were judged.
    """

    marks: tuple[Mark, ...]
    made_on: Mapping[str, str]


def notebook_path(volume: Path, name: str) -> Path:
    """Say where a volume keeps the marks on a result."""
    return volume / "marks" / table_path(volume, name).name


def load_rounds(volume: Path, name: str, shape: Zyx) -> list[Round]:
    """Read the marks on a result, the first round first; none where there are none."""
    path = notebook_path(volume, name)
    if not path.exists():
        return []
    columns, _, notes = read_columns(path)
    try:
        told = json.loads(notes["rounds"])
        if json.loads(notes["shape"]) != list(shape):
            raise VolumeError(f"{path} is of a volume of the shape {notes['shape']}, not {shape}")
        spans = np.stack([columns["start"], columns["stop"]], axis=1).astype(np.int64)
        if len(spans) and not 0 <= spans.min() <= spans.max() <= np.prod(shape):
            raise ValueError("voxels outside of the volume")
        return [
            Round(
                tuple(
                    Mark(
                        m["yes"],
                        m["name"],
                        spans[slice(*m["rows"])],
                        m["object"],
                        spans[slice(*m.get("whole", (0, 0)))],
                    )
                    for m in entry["marks"]
                ),
                entry["made on"],
            )
            for entry in told
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise VolumeError(f"{path} holds no marks of volseg; remove it") from error


def save_rounds(volume: Path, name: str, rounds: Sequence[Round], shape: Zyx) -> None:
    """Replace the marks on a result; without any, their file is removed."""
    path = notebook_path(volume, name)
    if not rounds:
        remove_file(path)
        return
    told: list[dict[str, Any]] = []
    row, spans = 0, [np.zeros((0, 2), np.int64)]
    for entry in rounds:
        marks = []
        for mark in entry.marks:
            middle = row + len(mark.spans)
            rows = {"rows": [row, middle], "whole": [middle, middle + len(mark.whole)]}
            marks.append({"yes": mark.yes, "name": mark.name, "object": mark.object, **rows})
            row = middle + len(mark.whole)
            spans += [mark.spans, mark.whole]
        told.append({"marks": marks, "made on": dict(entry.made_on)})
    every = np.concatenate(spans)
    make_folder(path.parent)
    columns = {"start": every[:, 0].copy(), "stop": every[:, 1].copy()}
    units = dict.fromkeys(columns, "voxel")
    write_table(path, columns, units, {"rounds": json.dumps(told), "shape": json.dumps(shape)})


def forget(volume: Path, name: str, shape: Zyx) -> tuple[int, int]:
    """Drop the marks of the last round; return how many those were, and how many are left."""
    rounds = load_rounds(volume, name, shape)
    if not rounds:
        raise ParameterError(f"{volume} holds no marks on {name}: there is nothing to forget")
    save_rounds(volume, name, rounds[:-1], shape)
    return len(rounds[-1].marks), sum(len(entry.marks) for entry in rounds[:-1])
