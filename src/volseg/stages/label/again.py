"""Commands that find objects by the same rules as before, but for one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from volseg.errors import command
from volseg.stages.label.seeds import level_of
from volseg.types import FULL_PROBABILITY

DROPPED = {
    "max_volume_um3": (
        "--max-volume",
        "max_size",
        "above_max_volume",
        "they are larger than {} µm³",
    ),
    "max_section_um2": (
        "--max-section",
        "max_section",
        "above_max_section",
        "a section of them is larger than {} µm²",
    ),
    "min_probability": (
        "--min-probability",
        "min_probability",
        "below_min_probability",
        "their mean probability is below {}",
    ),
}
"""Rules whose losses are counted: flag, limit, attribute of the count, and reason."""


def keep_dropped(output: Path, run: Mapping[str, Any], rule: str) -> str:
    """Write the command that finds objects by the same rules, but for one."""
    flags: list[object] = ["--threshold", _probability(run["threshold_of_255"])]
    if "seed_threshold_of_255" in run:
        flags += ["--seed-threshold", _probability(run["seed_threshold_of_255"])]
    flags += ["--connectivity", run["connectivity"], "--min-size", run["min_size"]]
    switches = ("fill_holes", "complement")
    flags += [f"--{name.replace('_', '-')}" for name in switches if run.get(name)]
    for flag in ("split", "split_depth", "split_centres", "split_votes"):
        flags += [f"--{flag.replace('_', '-')}", run[flag]] if flag in run else []
    for flag in ("--split-sure", "--split-contour"):
        at = run.get(f"{flag[2:].replace('-', '_')}_of_255")
        flags += [flag, _probability(at)] if at else []
    # without the flag, the model's would hold
    kept = {"min_probability": 0, **{name: run[name] for name in run if name != rule}}
    for name, (flag, *_) in DROPPED.items():
        flags += [flag, kept[name]] if name in kept else []
    flags.append("--overwrite")
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
