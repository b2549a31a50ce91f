"""Predict the middles of suspects again, flipped, and compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from volseg.engine.progress import NoProgress
from volseg.measures.suspects import Suspect
from volseg.models.explaining import average_flips, deviation
from volseg.stages.predict.loading import predictor_for
from volseg.stages.predict.region import Maps, blend_region
from volseg.stages.report.plan import Subject
from volseg.stages.verify.sample import plan_on_record
from volseg.types import Floats, Roi

RECOMPUTED = ("cpu", "openvino")
"""Devices of results that the CPU looks at again."""
SIDE = 128
"""Most voxels of a side of what is looked at."""
MOST = 20
"""Suspects that are looked at, the first ones: each takes about half a second."""


def measure_disagreement(subject: Subject, suspects: Sequence[Suspect]) -> dict[int, float]:
    """Measure how far a network of slices deviates from itself over flips, within suspects.

    Each is looked at in the slice through its middle. Networks of volumes would take minutes.

    Returns
    -------
    Mean standard deviation of the probability over the voxels of an object, by its row; empty if
    the network does not come with volseg, or sees volumes.
    """
    plan = None
    if subject.probabilities is not None and suspects:
        plan = plan_on_record(subject.path, subject.probabilities.path, None)
    if plan is None or not plan.counted or plan.choice.device not in RECOMPUTED:
        return {}
    precision = "float32" if plan.choice.precision == "int8" else plan.choice.precision
    choice = replace(plan.choice, device="cpu", precision=precision)
    choice = replace(choice, tta=False, rotations=False, centerline=False)
    predictor = predictor_for(choice)
    if predictor.dimensions == 3:
        return {}
    # slices along one axis: those along the others would take a hundred times as long
    lattices = plan.handover.lattices[:1]

    def flipped(tile: Floats, needed: Roi, axis: int) -> Maps:
        return average_flips(predictor, tile, needed, axis)

    found = {}
    for suspect in suspects[:MOST]:
        roi = _middle(subject, suspect.row, lattices[0].normal)
        handover = replace(plan.handover, lattices=lattices, roi=roi)
        maps = blend_region(replace(plan, handover=handover), flipped, NoProgress())
        inside = subject.labels.levels[0][roi] == subject.columns["label"][suspect.row]
        if maps and inside.any():
            found[suspect.row] = float(deviation(maps)[inside].mean())
    return found


def _middle(subject: Subject, row: int, normal: int) -> Roi:
    """Cut an object's box out of the slice through its centroid, no larger than `SIDE`."""
    sides = []
    for axis, name in enumerate("zyx"):
        start, stop = (int(subject.columns[f"bbox_{name}_{end}"][row]) for end in ("start", "stop"))
        at = min(max(int(subject.columns[f"centroid_{name}"][row]), start), stop - 1)
        first = max(start, min(at - SIDE // 2, stop - SIDE))
        side = slice(at, at + 1) if axis == normal else slice(first, min(first + SIDE, stop))
        sides.append(side)
    return sides[0], sides[1], sides[2]
