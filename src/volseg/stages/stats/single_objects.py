"""Marching cubes and centerlines, measured one object at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress
from volseg.engine.run import run_blocks
from volseg.geometry.grid import roi_size
from volseg.measures.object_table import SingleObjects
from volseg.measures.single_object import centerline, mesh_area
from volseg.measures.sums import Moments
from volseg.sources.labels import LabelSource
from volseg.types import Roi, VoxelSize

LARGEST_BOX = 1 << 25
"""Voxels of an object's box beyond which it is not measured on its own."""


@dataclass(frozen=True)
class ObjectBox:
    """One object: its row, its label, and the box that holds it."""

    row: int
    label: int
    box: Roi


@dataclass(frozen=True)
class MeasureObject:
    """Task of measuring one object: marching cubes and centerline."""

    source: LabelSource
    spacing: VoxelSize
    mesh: bool
    centerline: bool

    def __call__(self, item: ObjectBox) -> tuple[float, float, float]:
        """Measure one object; return its mesh's area, and its centerline's length and branches.

        Measurements that were not requested are NaN, and so are all of an object that is too large.
        """
        area = length = branches = math.nan
        if roi_size(item.box) > LARGEST_BOX:
            return area, length, branches
        mask = self.source[item.box] == item.label
        if self.mesh:
            area = mesh_area(mask, self.spacing)
        if self.centerline:
            length, branches = centerline(mask, self.spacing)
        return area, length, branches


def measure_singly(
    task: MeasureObject, moments: Moments, engine: EngineOptions, progress: Progress
) -> SingleObjects:
    """Measure one object after another."""
    found = np.full((len(moments.labels), 3), np.nan)

    def items() -> Iterable[ObjectBox]:
        corners = zip(moments.labels, moments.starts.tolist(), moments.stops.tolist(), strict=True)
        for k, (label, start, stop) in enumerate(corners):
            z, y, x = map(slice, start, stop)
            yield ObjectBox(k, int(label), (z, y, x))

    def on_result(item: ObjectBox, values: tuple[float, float, float]) -> None:
        found[item.row] = values

    job = Job(progress, len(found), "objects", "measuring")
    run_blocks(task, items(), engine, on_result=on_result, progress=job)
    areas, lengths, branches = found.T
    return SingleObjects(
        areas if task.mesh else None,
        lengths if task.centerline else None,
        branches if task.centerline else None,
    )
