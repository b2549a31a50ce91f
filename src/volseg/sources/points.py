"""Points that somebody clicked: CSV with named axes, or as napari saves a layer of points."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from volseg.errors import ParameterError, SourceError, own_words
from volseg.types import VoxelSize

AXES = (("z", "y", "x"), ("z_nm", "y_nm", "x_nm"), ("axis-0", "axis-1", "axis-2"))
"""Names of columns: in voxels, in nm, and in voxels as napari names them."""
SAID = ("mark", "label", "kind", "yes")
"""Names of the column that says what a point marks, the first of them that there is."""
WORDS = {
    **dict.fromkeys(("yes", "y", "true", "1", "mitochondrion"), True),
    **dict.fromkeys(("no", "not", "n", "false", "0", "none"), False),
}


@dataclass(frozen=True)
class Point:
    """A click.

    Attributes
    ----------
    place : voxel (z, y, x).
    yes : whether there is a mitochondrion.
    name : of the file and row, for messages.
    """

    place: tuple[int, int, int]
    yes: bool
    name: str


def read_points(path: Path, yes: bool | None, voxel_size: VoxelSize | None) -> list[Point]:
    """Read points from a CSV file with a header.

    Columns are z, y and x in voxels; z_nm, y_nm and x_nm; or axis-0, axis-1 and axis-2 as napari
    saves them, in voxels. A column of `SAID` says yes or no; a file without one needs ``yes``.

    Parameters
    ----------
    yes : what all its points say, which no column may contradict; None leaves it to the column
    voxel_size : nm (z, y, x) of the volume
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            named = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = named
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = own_words(error, "it is no CSV, or not in UTF-8")
        raise SourceError(f"cannot read points of {path}: {why}") from error
    axes = next((names for names in AXES if set(names) <= set(named)), None)
    if axes == AXES[2]:
        # of points in layers that have a channel or a time too, those axes come first
        a, b, c = sorted(name for name in named if re.fullmatch(r"axis-[0-9]", name))[-3:]
        axes = a, b, c
    if axes is None:
        raise SourceError(
            f"{path} has the columns {', '.join(named) or 'none'}; points have z,y,x in voxels, "
            f"z_nm,y_nm,x_nm, or axis-0,axis-1,axis-2 as napari saves them"
        )
    if axes == AXES[1] and voxel_size is None:
        raise ParameterError(
            f"{path} is in nm and the voxel size is unknown; give z,y,x in voxels, or convert "
            f"again with --voxel-size"
        )
    said = next((name for name in SAID if name in named), None)
    if said is None and yes is None:
        raise ParameterError(
            f"{path} has no column {SAID[0]!r} of yes and no; if all its points mean one thing, "
            f"give --points yes={path} or --points no={path}"
        )
    sides = voxel_size if axes == AXES[1] and voxel_size is not None else (1.0, 1.0, 1.0)
    points = []
    for line, row in enumerate(rows, 2):
        name = f"{path.name}, line {line}"
        place = _place(row, axes, sides, name)
        points.append(Point(place, _meant(row, said, yes, name), name))
    if not points:
        raise SourceError(f"{path} holds no points")
    return points


def _place(
    row: Mapping[str, str | None], axes: Sequence[str], sides: VoxelSize, name: str
) -> tuple[int, int, int]:
    found = [row[axis] for axis in axes]
    try:
        z, y, x = (float(text or "") / side for text, side in zip(found, sides, strict=True))
        if not all(map(math.isfinite, (z, y, x))):
            raise ValueError
    except ValueError:
        raise SourceError(f"{name}: {', '.join(map(str, found))} are no coordinates") from None
    # the middle of a voxel has whole coordinates
    return math.floor(z + 0.5), math.floor(y + 0.5), math.floor(x + 0.5)


def _meant(row: Mapping[str, str | None], column: str | None, yes: bool | None, name: str) -> bool:
    """Tell what a point says: all of its file alike, or by a column."""
    word = (row[column] or "").strip().lower() if column is not None else ""
    said = WORDS.get(word)
    if yes is None and said is None:
        raise SourceError(f"{name}: {column} is {word!r}, expected yes or no")
    if yes is None or said is None:
        return bool(yes or said)
    if said != yes:
        given, other = ("yes", "no") if yes else ("no", "yes")
        raise ParameterError(
            f"{name}: {column} is {word!r}, and --points {given}=FILE calls all points {given}; "
            f"leave {given}= out, or move those that mean {other} to a file of their own"
        )
    return yes
