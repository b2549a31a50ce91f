"""Survey: what the slices of a volume are like, noted once, before a network sees any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.errors import VolumeError, command, list_slices, list_some
from volseg.storage.attributes import read_histogram
from volseg.storage.volumes import Image
from volseg.types import Doubles, Zyx
from volseg.voxels.background import choose_background, code_of
from volseg.voxels.defects import (
    OTHER,
    SAME,
    Columns,
    correlate_neighbours,
    find_defects,
    find_missing,
    is_uneven,
)
from volseg.voxels.greys import FEW
from volseg.voxels.slices import QUANTILES, SliceNotes, compare_thumbnails

GROUP = 16
"""Slices whose cells are noted together: what changes within a slice, changes slowly along z."""
DIGITS = 6

FOUND = {
    "missing": "slices that hold one value, or next to it",
    "repeated": "slices equal to the one before",
    "blurred": "slices much less sharp than those around them",
    "shifted": "slices that lie shifted against the one before",
    "jumps": "slices much brighter or darker than the one before",
}


@dataclass(frozen=True, eq=False)
class Survey:
    """Notes on the slices of a volume.

    Attributes
    ----------
    cells : float64, shape (groups of slices, y, x, 2): brightness of each cell; one cell if small.
    """

    background: tuple[float, ...]
    slices: Columns
    cells: Doubles

    @property
    def missing(self) -> tuple[int, ...]:
        """List the slices that hold nothing."""
        return tuple(np.flatnonzero(find_missing(self.slices)).tolist())

    @property
    def empty(self) -> bool:
        """Tell whether no slice holds anything."""
        return len(self.missing) == len(self.slices.sharpness)


def describe_histogram(counts: NDArray[Any], values: NDArray[Any]) -> dict[str, Any]:
    """Put a histogram in the form in which it stands in a volume."""
    present = np.flatnonzero(counts)
    return {"values": values[present].tolist(), "counts": counts[present].tolist()}


def describe_background(
    areas: dict[float, int],
    counts: NDArray[Any],
    values: NDArray[Any],
    dtype: Any,
    declared: float | None = None,
) -> list[dict[str, Any]]:
    """Put background in the form in which it stands in a volume: its values, and how much there is.

    Doubles are counted with others that are close, so what they are counted as stands there, too.
    """
    return [
        {"value": value, "counted_as": values[code_of(value, dtype)].item(), "voxels": areas[value]}
        for value in choose_background(areas, counts, dtype, declared)
    ]


def describe_slices(parts: Sequence[SliceNotes], shape: Zyx) -> dict[str, Any]:
    """Put notes on all slices, in order, in the form in which they stand in a volume."""
    likeness = [p.likeness.copy() for p in parts]
    for before, after, found in zip(parts, parts[1:], likeness[1:], strict=False):
        found[0] = compare_thumbnails(before.ends[1], after.ends[0], shape[1:])
    checksums = np.concatenate([p.checksums for p in parts])
    cells = np.concatenate([p.cells for p in parts])
    groups = [np.median(cells[z : z + GROUP], axis=0) for z in range(0, len(cells), GROUP)]
    columns = {
        "quantiles": np.concatenate([p.quantiles for p in parts]),
        "sharpness": np.concatenate([p.sharpness for p in parts]),
        "constant": np.concatenate([p.constant for p in parts]),
        "likeness": np.concatenate(likeness),
        "cells": np.array(groups),
    }
    repeats = np.flatnonzero(checksums[1:] == checksums[:-1]) + 1
    return {name: _rounded(column) for name, column in columns.items()} | {
        "repeats": repeats.tolist()
    }


def _rounded(column: Doubles) -> Any:
    flat = [float(f"{v:.{DIGITS}g}") for v in column.reshape(-1).tolist()]
    return np.reshape(flat, column.shape).tolist()


def read_survey(image: Image) -> Survey | None:
    """Read what is noted of a volume's slices; None where nothing is, or they are unrelated."""
    noted = image.attributes.get("survey")
    if not noted or image.space.planar:
        return None
    depth = image.levels[0].shape[0]
    try:
        slices = noted["slices"]
        repeats = np.zeros(depth, bool)
        repeats[np.asarray(slices["repeats"], int)] = True
        columns = Columns(
            _column(slices, "quantiles", (depth, len(QUANTILES))),
            _column(slices, "sharpness", (depth,)),
            _column(slices, "constant", (depth,)),
            _column(slices, "likeness", (depth, 4)),
            repeats,
        )
        cells = np.asarray(slices["cells"], np.float64)
        if cells.ndim != 4 or len(cells) != -(-depth // GROUP) or cells.shape[3] != 2:
            raise ValueError(f"cells of shape {cells.shape}")
        values = tuple(float(area["value"]) for area in noted["background"])
        return Survey(values, columns, cells)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise VolumeError(
            f"the survey of {image.path} cannot be used; remove its attribute "
            f"volseg.survey, and it is made again"
        ) from error


def _column(slices: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Doubles:
    column = np.asarray(slices[name], np.float64)
    if column.shape != shape or not np.isfinite(column).all():
        raise ValueError(f"{name} of shape {column.shape}, expected {shape}")
    return column


def describe_findings(survey: Survey) -> dict[str, Any]:
    """List what is wrong with the slices: background, and positions by kind."""
    defects = {kind: list(found) for kind, found in find_defects(survey.slices) if found}
    return {"background": list(survey.background), "uneven": is_uneven(survey.slices), **defects}


def advise(image: Image) -> tuple[str, ...]:
    """Say what is wrong with a volume's slices, and what helps; of a mask, that it is no image."""
    if not image.attributes.get("survey"):
        return ()
    if few := _tell_few(image):
        return few
    survey = read_survey(image)
    if survey is None:
        return ()
    if survey.empty:
        return ("all voxels of each slice are alike: the volume is empty",)
    findings = describe_findings(survey)
    said = [f"{FOUND[k]}: {list_slices(found)}" for k, found in findings.items() if k in FOUND]
    if survey.background:
        values = ", ".join(f"{v:g}" for v in survey.background)
        said.insert(0, f"large areas that hold the value {values} are background")
    if findings["uneven"]:
        said.append(
            f"slices differ in brightness; make them alike: `"
            f"{command('segment', 'VOLUME', '--normalise', 'slices')}`"
        )
    if (best := correlate_neighbours(survey.slices)[1]) < OTHER:
        said.insert(  # what else there is may follow from it
            0,
            f"neighbouring slices have little in common (correlation {best:.2f}); of unrelated "
            f"images, make a volume with `{command('convert', 'SOURCE', 'VOLUME', '--images')}`",
        )
    return tuple(said)


def tell_astray(image: Image) -> tuple[str, ...]:
    """Say which coarser levels are not used, as they lie elsewhere than level 0."""
    if not image.astray:
        return ()
    again = command("convert", image.path, "NEW.zarr")
    note = (
        f"coarser levels that are not used, because their translations lie elsewhere than that of "
        f"level 0: {list_some(image.astray, 8)}; if that is wrong, `{again}` makes them anew"
    )
    return (note,)


def _tell_few(image: Image) -> tuple[str, ...]:
    """Say that there are so few grey values that this is a mask, it seems, and no image."""
    histogram = image.attributes.get("histogram")
    if not histogram:
        return ()
    counts, values = read_histogram(image.path, histogram)
    found = values[counts > 0]
    if not 1 < len(found) <= FEW:
        return ()
    known = " or ".join(f"{value:g}" for value in found)
    note = (
        f"all voxels are {known}: is this a mask, and not the image? Masks go to --labels of "
        f"stats and train, to --mask of segment, and to --truth of evaluate"
    )
    return (note,)


def usual_median(nm: float, image: Image) -> dict[str, float]:
    """Take the median of slices that a card asks for, where each shows much of what the next does.

    It is taken, too, where nobody has looked at the slices; of unrelated images there is none.
    """
    survey = read_survey(image)
    apart = survey is not None and correlate_neighbours(survey.slices)[0] < SAME
    return {} if not nm or image.space.planar or apart else {"median_nm": nm}
