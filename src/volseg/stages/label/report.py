"""Report on complete labels, from their attributes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.errors import VolumeError, command
from volseg.stages.label.plan import LabelPlan
from volseg.stages.label.rules import level_of
from volseg.storage.volumes import open_image
from volseg.types import FULL_PROBABILITY


@dataclass(frozen=True)
class LabelReport:
    """Objects that a run found.

    Attributes
    ----------
    objects : how many there are.
    threshold : probability from which a voxel was foreground.
    notes : what the user should know.
    """

    objects: int
    threshold: float
    seconds: float
    notes: tuple[str, ...] = ()


def report_on(plan: LabelPlan, seconds: float) -> LabelReport:
    """Report on complete labels.

    Raises
    ------
    VolumeError
        If their attributes do not say how many objects there are.
    """
    output, found = plan.path, open_image(plan.path).attributes
    run, notes, objects = found["run"], [], found.get("objects")
    if objects is None:
        raise VolumeError(
            f"the attributes of {output} do not say any more how many objects there are; remove "
            f"it, and make it again: `{command('label', plan.volume, name=plan.name)}`"
        )
    if large := found.get("too_large_to_split"):
        notes.append(
            f"{large} objects were not split, because their bounding boxes hold more than "
            f"{run.get('split_limit')} voxels"
        )
    if faint := found.get("below_min_probability"):
        notes.append(
            f"objects dropped because their mean probability is below "
            f"{run.get('min_probability')}: {faint}; to keep them: `{_keep_faint(output, run)}`"
        )
    return LabelReport(int(objects), plan.threshold, seconds, tuple(notes))


def _keep_faint(output: Path, run: Mapping[str, Any]) -> str:
    """Write the command that finds objects by the same rules, but for the lowest mean."""
    flags: list[object] = ["--threshold", _probability(run["threshold_of_255"])]
    if "seed_threshold_of_255" in run:
        flags += ["--seed-threshold", _probability(run["seed_threshold_of_255"])]
    flags += ["--connectivity", run["connectivity"], "--min-size", run["min_size"]]
    flags += ["--fill-holes"] if run.get("fill_holes") else []
    for flag in ("split", "split_depth"):
        flags += [f"--{flag.replace('_', '-')}", run[flag]] if flag in run else []
    flags += ["--min-probability", 0, "--overwrite"]
    return command("label", output.parents[1], *flags, name=output.name)


def _probability(level: int) -> float:
    """Write the shortest probability that stands for a stored level.

    Examples
    --------
    >>> _probability(128), _probability(100)
    (0.5, 0.39)
    """
    exact = level / FULL_PROBABILITY
    rounded = (round(exact, digits) for digits in range(1, 10))
    return next((p for p in rounded if p > 0 and level_of(p) == level), exact)
