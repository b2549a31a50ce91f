"""Find the objects that corrections are about, and refuse what cannot be meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from volseg.errors import ParameterError, list_some
from volseg.geometry.grid import describe, full_roi, roi_size
from volseg.measures.sums import Moments
from volseg.objects.union_find import connected_groups
from volseg.sources.corrections import Target
from volseg.stages.apply.plan import ApplyPlan
from volseg.stages.label.rules import SPLIT_LIMIT
from volseg.types import Roi, Zyx, zyx

SHOWN = 5
"""Mistakes that a message names at most."""


@dataclass(frozen=True)
class SplitObject:
    """An object that is split: its label, the box that holds it, and the seeds within the box."""

    label: int
    box: Roi
    seeds: tuple[Zyx, ...]


@dataclass(frozen=True)
class Resolved:
    """Corrections of known objects.

    Attributes
    ----------
    known : the objects before, with their voxels and boxes.
    renamed : labels that become others; 0 for those that are deleted.
    onto : of each painting, the label that it becomes a part of; None for new objects.
    """

    known: Moments
    renamed: Mapping[int, int]
    cuts: tuple[SplitObject, ...]
    onto: tuple[int | None, ...]

    @property
    def highest(self) -> int:
        """The highest label before."""
        return int(self.known.labels.max(initial=0))


def box_of(known: Moments, label: int) -> Roi:
    """Find the box of an object."""
    row = int(np.searchsorted(known.labels, np.uint64(label)))
    ends = zip(known.starts[row].tolist(), known.stops[row].tolist(), strict=True)
    return zyx(slice(a, b) for a, b in ends)


def resolve(plan: ApplyPlan, known: Moments) -> Resolved:
    """Find the objects that corrections are about."""
    finder = _Finder(plan, known)
    wanted = plan.corrections
    deleted = finder.find_all("delete", wanted.delete)
    groups = [finder.find_all(f"merge[{k}]", group) for k, group in enumerate(wanted.merge)]
    split = [finder.find(f"split[{k}].object", s.object) for k, s in enumerate(wanted.split)]
    onto = [finder.find(f"add[{k}].object", p.object) for k, p in enumerate(wanted.add)]
    finder.check_groups(groups)
    finder.check_contradictions(deleted, groups, split, onto)
    if plan.image.space.planar:
        finder.check_images(groups, onto)
    renamed = {**_join(groups), **dict.fromkeys(deleted, 0)}
    cuts = []
    for k, (label, asked) in enumerate(zip(split, wanted.split, strict=True)):
        if label is not None:
            box = box_of(known, label)
            finder.check_seeds(f"split[{k}]", label, box, asked.seeds)
            starts = [s.start for s in box]
            seeds = [tuple(np.subtract(seed, starts).tolist()) for seed in asked.seeds]
            cuts.append(SplitObject(label, box, tuple(seeds)))
    finder.refuse()
    return Resolved(known, renamed, tuple(cuts), tuple(o and renamed.get(o, o) for o in onto))


def _join(groups: Iterable[list[int]]) -> dict[int, int]:
    """Give merged objects the lowest label of all that belong together."""
    # of small and very large ones NumPy would make floats
    labels = np.unique(np.array([label for group in groups for label in group], np.uint64))
    pairs = [(group[0], other) for group in groups for other in group[1:]]
    if not pairs:
        return {}
    places = np.searchsorted(labels, np.array(pairs, np.uint64))
    whole, group_of = connected_groups(len(labels), places)
    lowest = np.full(whole, labels.max())
    np.minimum.at(lowest, group_of, labels)
    joined = zip(labels.tolist(), lowest[group_of].tolist(), strict=True)
    return {label: first for label, first in joined if label != first}


@dataclass
class _Finder:
    """Finds objects, and collects what is wrong."""

    plan: ApplyPlan
    known: Moments
    wrong: list[str] = field(default_factory=list)

    def find_all(self, at: str, targets: Iterable[Target]) -> list[int]:
        """Find several objects; each is listed once."""
        found = [self.find(f"{at}[{k}]", target) for k, target in enumerate(targets)]
        return list(dict.fromkeys(label for label in found if label is not None))

    def find(self, at: str, target: Target | None) -> int | None:
        """Find one object; None if there is none."""
        if target is None:
            return None
        if not isinstance(target, int):
            label = self._label_at(at, target)
            if label == 0:
                self.wrong.append(f"{at}: there is no object at {list(target)}")
            return label or None
        row = int(np.searchsorted(self.known.labels, np.uint64(target)))
        if row == len(self.known.labels) or self.known.labels[row] != target:
            self.wrong.append(f"{at}: there is no object {target}")
            return None
        return target

    def _label_at(self, at: str, voxel: Zyx) -> int | None:
        shape = self.plan.source.shape
        if not all(0 <= v < n for v, n in zip(voxel, shape, strict=True)):
            self.wrong.append(f"{at}: {list(voxel)} lies outside {describe(full_roi(shape))}")
            return None
        z, y, x = (slice(v, v + 1) for v in voxel)
        return max(int(self.plan.source[z, y, x].item()), 0)

    def check_groups(self, groups: list[list[int]]) -> None:
        """Refuse groups of one object."""
        asked = self.plan.corrections.merge
        for k, (group, targets) in enumerate(zip(groups, asked, strict=True)):
            if len(group) == 1 and not any(m.startswith(f"merge[{k}]") for m in self.wrong):
                self.wrong.append(f"merge[{k}]: {list(targets)} are all of object {group[0]}")

    def check_images(self, groups: list[list[int]], onto: list[int | None]) -> None:
        """Refuse objects that would lie in several unrelated images."""
        for k, group in enumerate(groups):
            if len(held := set().union(*map(self._slices_of, group))) > 1:
                self.wrong.append(f"merge[{k}]: the objects lie in the images {sorted(held)}")
        for k, (label, painted) in enumerate(zip(onto, self.plan.painted, strict=True)):
            if label is not None and (beyond := painted.slices - self._slices_of(label)):
                self.wrong.append(
                    f"add[{k}]: it is painted in the images {sorted(beyond)}, too, where object "
                    f"{label} does not lie"
                )

    def _slices_of(self, label: int) -> set[int]:
        z = box_of(self.known, label)[0]
        return set(range(z.start, z.stop))

    def check_contradictions(
        self,
        deleted: list[int],
        groups: list[list[int]],
        split: list[int | None],
        onto: list[int | None],
    ) -> None:
        """Refuse objects of which two things are asked that do not go together."""
        merged: set[int | None] = {label for group in groups for label in group}
        asked: list[tuple[str, set[int | None]]]
        asked = [("delete", {*deleted}), ("merge", merged), ("split", {*split} - {None})]
        for k, (one, ours) in enumerate(asked):
            for other, theirs in asked[k + 1 :]:
                for label in ours & theirs - {None}:
                    self.wrong.append(f"{one} and {other} both name object {label}")
        for label, times in Counter(label for label in split if label is not None).items():
            if times > 1:
                self.wrong.append(f"split names object {label} {times} times")
        for k, label in enumerate(onto):
            for verb, named in (("delete", deleted), ("split", split)):
                if label is not None and label in named:
                    self.wrong.append(f"{verb} and add[{k}] both name object {label}")

    def check_seeds(self, at: str, label: int, box: Roi, seeds: tuple[Zyx, ...]) -> None:
        """Refuse seeds that lie elsewhere, two in one voxel, and objects that are too large."""
        for k, seed in enumerate(seeds):
            found = self._label_at(f"{at}.seeds[{k}]", seed)
            if found is not None and found != label:
                there = f"object {found}" if found else "background"
                self.wrong.append(f"{at}.seeds[{k}]: {list(seed)} is {there}, not object {label}")
        for seed, times in Counter(seeds).items():
            if times > 1:
                self.wrong.append(f"{at}.seeds: {list(seed)} is named {times} times")
        if roi_size(box) > SPLIT_LIMIT:
            self.wrong.append(
                f"{at}: the box of object {label} holds {roi_size(box)} voxels, and at most "
                f"{SPLIT_LIMIT} can be split at once"
            )

    def refuse(self) -> None:
        """Refuse the corrections if anything is wrong with them."""
        if self.wrong:
            listed = list_some(self.wrong, SHOWN, "; ")
            raise ParameterError(
                f"the corrections do not fit {self.plan.source.path}, nothing was written: {listed}"
            )
