"""Tell what rules for objects dropped, from what labels have on record of it. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeGuard

from volseg.types import FULL_PROBABILITY, VoxelSize

UNITS = {"volume_um3": "µm³", "area_um2": "µm²"}
LEAST = 1e-4
"""Part of the foreground below which no number is told."""
LARGE_PART = 0.1
"""Part of all foreground from which it is told that a rule drops much."""


@dataclass(frozen=True)
class Dropped:
    """Objects that one rule dropped; one that breaks several counts for the first of `RULES`.

    Attributes
    ----------
    objects : how many.
    voxels : of all of them; 0 where only their number is on record.
    largest : voxels of the largest one.
    """

    objects: int
    voxels: int = 0
    largest: int = 0


@dataclass(frozen=True)
class Kept:
    """Objects that no rule dropped, before holes are filled and objects split.

    Attributes
    ----------
    voxels : of all of them.
    median : voxels of the median object, the smaller one of two; 0 without any.
    """

    voxels: int
    median: int


@dataclass(frozen=True)
class Rule:
    """A rule that drops objects.

    Attributes
    ----------
    limit : its name among `volseg.objects.joining.Limits`; of seeds, that of the marks.
    why : reason, with a place for the limit.
    bounds_size : whether what it drops is large or small by definition.
    """

    limit: str
    why: str
    bounds_size: bool = False


RULES: Mapping[str, Rule] = {
    "min_size": Rule("min_size", "they have fewer than {} voxels"),
    "seed_threshold_of_255": Rule("seeded", "none of their voxels has a probability of {:.2g}"),
    "max_volume_um3": Rule("max_size", "they are larger than {} µm³", bounds_size=True),
    "max_section_um2": Rule(
        "max_section", "a section of them is larger than {} µm²", bounds_size=True
    ),
    "min_probability": Rule("min_probability", "their mean probability is below {}"),
}
"""Rules by the names that the record of a run has for their limits, in the order of counting."""
COUNTED: Mapping[str, str] = {
    "max_volume_um3": "above_max_volume",
    "max_section_um2": "above_max_section",
    "min_probability": "below_min_probability",
}
"""Attributes of earlier labels that have nothing but the number of objects that a rule dropped."""
WHOLE = range(1 << 63)
"""Numbers that are taken for a count."""


@dataclass(frozen=True)
class DroppedObjects:
    """Record of the objects that rules dropped from labels.

    Attributes
    ----------
    by_rule : only rules that dropped some.
    kept : None where it is not on record.
    limits : of each rule.
    voxel_size : nm (z, y, x); None if unknown.
    planar : whether slices are unrelated images, of which thickness means nothing.
    """

    by_rule: Mapping[str, Dropped]
    kept: Kept | None
    limits: Mapping[str, Any]
    voxel_size: VoxelSize | None
    planar: bool = False

    @classmethod
    def read(
        cls, attributes: Mapping[str, Any], voxel_size: VoxelSize | None, *, planar: bool = False
    ) -> DroppedObjects:
        """Read the attributes of labels; what is damaged counts as not on record."""
        noted, run = attributes.get("dropped"), attributes.get("run")
        noted, run = (x if isinstance(x, Mapping) else {} for x in (noted, run))
        held = [rule for rule in RULES if is_limit(run.get(rule))]
        found = {rule: _whole_numbers(noted.get(rule), Dropped) for rule in held}
        some = {rule: Dropped(*n) for rule, n in found.items() if n and 0 < n[0] <= n[1]}
        kept = _whole_numbers(attributes.get("kept_objects"), Kept)
        if not noted and not kept:
            counts = {rule: attributes.get(COUNTED.get(rule, "")) for rule in held}
            some = {rule: Dropped(n) for rule, n in counts.items() if _is_count(n) and n}
        return cls(some, Kept(*kept) if kept else None, run, voxel_size, planar)

    def describe(self) -> dict[str, dict[str, Any]]:
        """List, for JSON, how many objects each rule dropped and their size, and tell it."""
        return {
            rule: {
                **{name: n for name, n in vars(found).items() if n},
                **_extent(found.voxels, self.voxel_size, planar=self.planar),
                "told": self.tell(rule),
            }
            for rule, found in self.by_rule.items()
        }

    def size(self, voxels: int) -> str:
        """Write a number of voxels as a volume, of images as an area, if their size is known."""
        return tell_size(voxels, self.voxel_size, planar=self.planar)

    def tell(self, rule: str) -> str:
        """Say how many objects a rule dropped, how large they are, and if that is much."""
        found, limit = self.by_rule[rule], self.limits[rule]
        limit = limit / FULL_PROBABILITY if rule.endswith("of_255") else limit
        why, size = RULES[rule].why.format(limit), self.size(found.voxels)
        if rule == "min_probability" and is_limit(largest := self.limits.get("faint_size")):
            why += f" and they have at most {largest} voxels"
        told = f"objects dropped because {why}: {found.objects} ({size}"
        if self.kept is None:
            return f"{told})"
        every = self.kept.voxels + sum(each.voxels for each in self.by_rule.values())
        told += f", {tell_part(found.voxels, every)})"
        if RULES[rule].bounds_size:
            return told
        if not self.kept.voxels:
            return f"{told}, and none is left"
        if found.largest > self.kept.median:
            largest = self.size(found.largest)
            return f"{told}; the largest, of {largest}, is larger than half of those kept"
        return f"{told}, which is much" if found.voxels > LARGE_PART * every else told


def tell_size(voxels: int, voxel_size: VoxelSize | None, *, planar: bool = False) -> str:
    """Write a number of voxels as a volume, of images as an area, if their size is known.

    Examples
    --------
    >>> tell_size(8000, (50.0, 5.0, 5.0)), tell_size(8000, (1.0, 5.0, 5.0), planar=True)
    ('0.01 µm³', '0.2 µm²')
    >>> tell_size(1, None), tell_size(0, None)
    ('1 voxel', 'of unknown size')
    """
    if not voxels:
        return "of unknown size"
    for unit, extent in _extent(voxels, voxel_size, planar=planar).items():
        return f"{extent:.3g} {UNITS[unit]}"
    return f"{voxels} voxel{'s' * (voxels != 1)}"


def _extent(voxels: int, voxel_size: VoxelSize | None, *, planar: bool) -> dict[str, float]:
    if voxel_size is None or not voxels:
        return {}
    sides = [side / 1000 for side in voxel_size]
    if planar:
        return {"area_um2": voxels * math.prod(sides[1:])}
    return {"volume_um3": voxels * math.prod(sides)}


def tell_part(voxels: int, every: int) -> str:
    """Say which part of the foreground some objects are.

    Examples
    --------
    >>> tell_part(25, 1000), tell_part(1, 10**6)
    ('2.50% of the foreground', 'under 0.01% of the foreground')
    """
    part = voxels / every
    return f"{f'{part:.2%}' if part > LEAST else f'under {LEAST:.2%}'} of the foreground"


def read_dropped(noted: Any) -> Dropped | None:
    """Read what one rule dropped, of earlier labels without its voxels; None where it is none.

    Examples
    --------
    >>> read_dropped({"objects": 2, "voxels": 9}), read_dropped(2), read_dropped("2")
    (Dropped(objects=2, voxels=9, largest=0), Dropped(objects=2, voxels=0, largest=0), None)
    """
    found = noted if isinstance(noted, Mapping) else {"objects": noted, "voxels": 0}
    objects, voxels = found.get("objects"), found.get("voxels")
    return Dropped(objects, voxels) if _is_count(objects) and _is_count(voxels) else None


def _whole_numbers(noted: Any, kind: type) -> list[int]:
    """Read the fields of a class of whole numbers; none where one is missing or is none."""
    found: list[Any] = []
    if isinstance(noted, Mapping):
        found = [noted.get(f.name) for f in fields(kind)]
    return found if all(map(_is_count, found)) else []


def _is_count(noted: Any) -> TypeGuard[int]:
    return type(noted) is int and noted in WHOLE


def is_limit(noted: Any) -> TypeGuard[float]:
    """Tell whether what was read from JSON is the limit of a rule that holds."""
    return type(noted) in (int, float) and 0 < noted < WHOLE.stop
