"""Rules of objects as a run has them on record, and the command that repeats all but one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from volseg.defaults import SPLIT_DEPTH
from volseg.errors import ParameterError, command
from volseg.stages.label.rules import ObjectRules
from volseg.types import probability_of

FLAGS = {
    "max_volume_um3": "--max-volume",
    "max_section_um2": "--max-section",
    "min_probability": "--min-probability",
    "median_nm": "--median",
}
"""Flags of rules that are not called as the rule is, and of the lowest mean."""


def recorded_rules(run: Mapping[str, Any]) -> ObjectRules:
    """Read the rules by which labels were made from what is on record of their run.

    Raises
    ------
    KeyError, TypeError, ValueError, ParameterError
        If what is on record is none.
    """
    names = ("seed_threshold", "split_sure", "split_contour")
    kept: dict[str, Any] = {
        name: probability_of(int(run[f"{name}_of_255"]))
        for name in names
        if f"{name}_of_255" in run
    }
    return ObjectRules(
        threshold=probability_of(int(run["threshold_of_255"])),
        connectivity=run["connectivity"],
        min_size=int(run["min_size"]),
        max_volume_um3=run.get("max_volume_um3"),
        max_section_um2=run.get("max_section_um2"),
        min_probability=float(run["min_probability"]) if "min_probability" in run else 0,
        faint_size=int(run.get("faint_size", 0)),
        median_nm=float(run.get("median_nm", 0)),
        fill_holes=bool(run.get("fill_holes", False)),
        complement=bool(run.get("complement", False)),
        split=run.get("split", "none"),
        split_depth=float(run.get("split_depth", SPLIT_DEPTH)),
        split_centres=run.get("split_centres") or None,
        split_votes=run.get("split_votes"),
        **kept,
    )


def repeat_without(
    output: Path, noted: Mapping[str, Any], rule: str, *, images: bool = False
) -> str:
    """Write the command that finds objects by the same rules, but for one.

    Parameters
    ----------
    images : labels are of unrelated images, and their volume does not say so

    Returns
    -------
    command : empty where what is on record of the labels is none.
    """
    try:
        rules, models = recorded_rules(noted["run"]), float(noted["model"].get("median_nm", 0))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ParameterError):
        return ""
    without = {rule.removesuffix("_of_255"), *(["faint_size"] * (rule == "min_probability"))}
    # without these flags, those of the model would hold
    least = 0 if rule == "min_size" else rules.min_size
    flags: list[object] = ["--threshold", rules.threshold, "--min-size", least]
    if rule == "min_probability" or not rules.min_probability:
        flags += ["--min-probability", 0]
    usual = ObjectRules(
        threshold=rules.threshold,
        min_size=rules.min_size,
        min_probability=0,
        faint_size=0,
        median_nm=models,
    )
    for name, value in vars(replace(rules, images=images)).items():
        if name not in without and value != getattr(usual, name):
            flags.append(FLAGS.get(name, f"--{name.replace('_', '-')}"))
            flags += [] if value is True else [value]
    flags.append("--overwrite")
    return command("label", output.parents[1], *flags, name=output.name)
