"""Look again at objects: where their network is unsure of them, and for thin necks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from volseg.engine.progress import NoProgress
from volseg.geometry.grid import coarsen, grow
from volseg.measures.object_table import box_of_row
from volseg.measures.suspects import Suspect
from volseg.models.devices import choose_device
from volseg.models.explaining import average_flips, deviation
from volseg.objects.seeding import has_neck
from volseg.stages.predict.loading import predictor_for
from volseg.stages.predict.plan import PredictPlan
from volseg.stages.predict.region import Maps, blend_region
from volseg.stages.report.plan import Subject
from volseg.stages.verify.sample import plan_on_record
from volseg.types import Floats, Mask, Roi, zyx

SIDE = {2: 128, 3: 48}
"""Most voxels of a side of what networks of slices and of volumes look at."""
MOST = {2: 20, 3: 5}
"""Suspects that they look at, the first ones: each takes one to several seconds."""
POINTS = 6
"""Voxels at which views are compared: whole slices along all axes would take a hundred times as
long as one, because each crosses the others in a line."""
LEAST_ROUND = 200
"""Objects of a volume that are looked at for necks, the least spherical first."""
LARGEST = 1 << 18
"""Voxels of an object's box, at the level at which it is looked at."""
SMALLEST = 200
"""Voxels below which the form of an object is not known well enough."""


@dataclass(frozen=True)
class Disagreement:
    """Mean standard deviation of the probability over the voxels of an object, by its row.

    Attributes
    ----------
    flips, views : over flips of one slice or box; over slices along several axes.
    """

    flips: dict[int, float] = field(default_factory=dict)
    views: dict[int, float] = field(default_factory=dict)


def measure_disagreement(subject: Subject, suspects: Sequence[Suspect]) -> Disagreement:
    """Measure how far a network deviates from itself over flips and views, within suspects.

    Each is looked at in the slice through its middle.

    Returns
    -------
    Disagreement
        Empty if it is not known which network it was, or that does not come with volseg and was
        not named.
    """
    plan, found = None, Disagreement()
    if subject.probabilities is not None and suspects:
        plan = plan_on_record(subject.path, subject.probabilities.path, subject.model)
    if plan is None or not plan.counted:
        return found
    choice = replace(plan.choice, device=choose_device("auto").type, precision="float32")
    choice = replace(choice, tta=False, rotations=False, maps=plan.choice.maps[:1])
    plan = replace(plan, choice=choice)
    dimensions, lattices = predictor_for(plan.choice).dimensions, plan.handover.lattices
    for suspect in suspects[: MOST[dimensions]]:
        roi = _middle(subject, suspect.row, lattices[0].normal, SIDE[dimensions])
        inside = subject.labels.levels[0][roi] == subject.columns["label"][suspect.row]
        if inside.any():
            _note(found.flips, suspect.row, _compare_flips(plan, roi, inside))
            if len(lattices) > 1:
                _note(found.views, suspect.row, _compare_views(plan, roi, inside))
    return found


def _note(found: dict[int, float], row: int, deviations: Floats) -> None:
    if deviations.size:
        found[row] = float(deviations.mean())


def _compare_flips(plan: PredictPlan, roi: Roi, inside: Mask) -> Floats:
    """Find the deviation over flips, of slices along the first of several axes."""
    predictor = predictor_for(plan.choice)

    def flipped(tile: Floats, needed: Roi, axis: int) -> Maps:
        return average_flips(predictor, tile, needed, axis)

    handover = replace(plan.handover, lattices=plan.handover.lattices[:1], roi=roi)
    maps = blend_region(replace(plan, handover=handover), flipped, NoProgress())
    return deviation(maps)[inside] if maps else np.zeros(0, np.float32)


def _compare_views(plan: PredictPlan, roi: Roi, inside: Mask) -> Floats:
    """Find the deviation over views, at a few voxels of an object that lie evenly."""
    voxels = np.argwhere(inside)
    chosen = voxels[np.linspace(0, len(voxels) - 1, min(POINTS, len(voxels))).astype(int)]
    deviations: Floats = see_along_axes(plan, chosen + [s.start for s in roi]).std(axis=1)
    return deviations


def see_along_axes(plan: PredictPlan, voxels: NDArray[np.int64]) -> Floats:
    """Predict voxels along each axis of a plan by itself.

    Returns
    -------
    float32, shape (n, axes)
        Probabilities, whose mean is that of the plan; without voxels that are no tissue.
    """
    predictor, views = predictor_for(plan.choice), len(plan.handover.lattices)

    def seen(tile: Floats, needed: Roi, axis: int) -> Maps:
        return {f"view-{axis}": predictor(tile, needed, axis) * np.float32(views)}

    found = []
    for voxel in voxels:
        z, y, x = (slice(int(n), int(n) + 1) for n in voxel)
        handover = replace(plan.handover, roi=(z, y, x))
        maps = blend_region(replace(plan, handover=handover), seen, NoProgress())
        if len(maps) == views:
            found.append([values.item() for values in maps.values()])
    return np.array(found, np.float32).reshape(-1, views)


def _middle(subject: Subject, row: int, normal: int, most: int) -> Roi:
    """Cut an object's box out of the slice through its centroid, no larger than ``most``."""
    sides = []
    for axis, s in enumerate(box_of_row(subject.columns, row)):
        centroid = int(subject.columns[f"centroid_{'zyx'[axis]}"][row])
        at = min(max(centroid, s.start), s.stop - 1)
        first = max(s.start, min(at - most // 2, s.stop - most))
        side = slice(at, at + 1) if axis == normal else slice(first, min(first + most, s.stop))
        sides.append(side)
    return zyx(sides)


def find_necks(subject: Subject) -> frozenset[int]:
    """List the rows of objects with a thin neck; none without scikit-image or shapes.

    Each is read at the finest level at which its box is small.
    """
    columns = subject.columns
    if "sphericity" not in columns or find_spec("skimage") is None:
        return frozenset()
    known = np.isfinite(columns["sphericity"]) & (columns["voxels"] >= SMALLEST)
    rows = np.flatnonzero(known)
    order = np.argsort(columns["sphericity"][rows], kind="stable")[:LEAST_ROUND]
    return frozenset(int(row) for row in rows[order] if _look(subject, int(row)))


def _look(subject: Subject, row: int) -> bool:
    columns, image = subject.columns, subject.labels
    size = subject.summary.voxel_size or (1.0, 1.0, 1.0)
    for array, factors in zip(image.levels, image.factors, strict=True):
        box = grow(coarsen(box_of_row(columns, row), factors), (0, 0, 0), array.shape)
        if np.prod([s.stop - s.start for s in box]) > LARGEST:
            continue
        spacing = [s * f for s, f in zip(size, factors, strict=True)]
        mask = array[box] == columns["label"][row]
        return has_neck(mask, zyx(spacing))
    return False
