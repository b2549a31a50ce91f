"""Turn rules about columns of the table of objects, marks and other results into deletions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, Progress, core_voxels
from volseg.engine.run import run_blocks
from volseg.errors import ParameterError, ShapeError, command
from volseg.geometry.grid import (
    Block,
    Grid,
    describe,
    intersect,
    roi_shape,
    whole_multiples,
)
from volseg.measures.brightness import BRIGHTNESS
from volseg.measures.rules import parse_rule
from volseg.objects.dropped import Dropped, DroppedObjects, tell_part
from volseg.objects.intervals import Intervals, paint_intervals
from volseg.sources.labels import COMPONENTS, OWN, LabelSource
from volseg.storage.attributes import read_notes, section, uncorrected
from volseg.storage.marks import load_rounds
from volseg.storage.tables import read_columns
from volseg.storage.volumes import Image, open_image, table_path
from volseg.types import Mask, Roi, Zyx

OUTLINED = ("darkness", "evenness", "solidity", "largest_section_nm2", "largest_section")
"""Columns that `stats` measures on request."""
MARKED = "marks"
"""The key under which objects are counted that are marked as none."""
BLOCK: Zyx = (32, 512, 512)
Look: TypeAlias = Callable[[Roi], Mask]


@dataclass(frozen=True)
class Broken:
    """Objects that are deleted, by the rule that they break, or for being marked.

    Attributes
    ----------
    foreground : voxels of all objects, these among them.
    confirmed_by : name and fingerprint of the result that the others are found in; or empty.
    warning : of what that result may not know; or empty.
    """

    by_reason: Mapping[str, Dropped]
    foreground: int
    confirmed_by: Mapping[str, str] = field(default_factory=dict)
    warning: str = ""

    def describe(self) -> dict[str, Any]:
        """List objects and voxels, and name what decided, for the record."""
        counts = {
            reason: {"objects": found.objects, "voxels": found.voxels}
            for reason, found in self.by_reason.items()
        }
        decided = {"confirmed_by": dict(self.confirmed_by)} if self.confirmed_by else {}
        return {"rules": counts, **decided}

    def tell(self, image: Image) -> tuple[str, ...]:
        """Say how many objects each rule drops, and how large they are together."""
        told = []
        for reason, found in self.by_reason.items():
            words = "are marked as none" if reason == MARKED else f"have no {reason}"
            size = DroppedObjects({}, None, {}, image.voxel_size, image.space.planar)
            part = f"{size.size(found.voxels)}, {tell_part(found.voxels, self.foreground)}"
            told.append(
                f"objects dropped that {words}: {found.objects}{f' ({part})' * (found.voxels > 0)}"
            )
        return (*told, self.warning) if self.warning else tuple(told)


def find_deletions(
    volume: Path,
    source: LabelSource,
    texts: Sequence[str],
    other: LabelSource | None,
    engine: EngineOptions,
    progress: Progress,
) -> tuple[Mapping[str, Any], Broken]:
    """Delete what breaks a rule, or another result does not confirm, or is marked as none."""
    if texts:
        return by_rules(volume, source, texts)
    planar = open_image(volume).space.planar
    counted = source.as_images() if planar else source
    count = partial(_count_by_object, counted, engine, progress)
    return by_marks(volume, source, count) if other is None else by_result(source, other, count)


def by_rules(
    volume: Path, source: LabelSource, texts: Sequence[str]
) -> tuple[Mapping[str, Any], Broken]:
    """Delete what breaks a rule, by the current table of objects; count by the first one broken."""
    name = source.path.name
    rules, path = list(map(parse_rule, texts)), table_path(volume, name)
    columns, _, notes = read_columns(path) if path.is_file() else ({}, {}, {})
    asked = ["--outline"] if any(rule.column in OUTLINED for rule in rules) else []
    measure = command("stats", volume, *asked, name=name)
    if notes.get("labels") != source.identity:
        raise ParameterError(
            f"rules need the table of labels/{name} as they are: run `{measure}` first"
        )
    _check_numbers(source, columns["label"], mask=notes.get("objects") == COMPONENTS)
    gone, counts = np.zeros(len(columns["label"]), bool), dict[str, Dropped]()
    voxels = columns["voxels"]
    for rule in rules:
        if rule.column in OUTLINED and rule.column not in columns:
            raise ParameterError(f"{rule.column} is not measured yet: run `{measure}` first")
        if rule.column == BRIGHTNESS and BRIGHTNESS not in columns:
            if open_image(volume).space.planar:
                raise ParameterError(
                    "unrelated images have no brightness, as they share no range of the tissue; "
                    "intensity_mean, in the images' own values, is one that they have"
                )
            raise ParameterError(
                f"brightness is not measured: run `{measure}` first; volumes without a histogram "
                f"have none"
            )
        more = rule.broken_by(columns) & ~gone
        # a rule that is given twice drops nothing more
        counts.setdefault(str(rule), Dropped(int(more.sum()), int(voxels[more].sum())))
        gone |= more
    if not gone.any():
        kept = " and ".join(counts)
        raise ParameterError(f"all {len(gone)} objects have {kept}: there is nothing to drop")
    return {"delete": columns["label"][gone].tolist()}, Broken(counts, int(voxels.sum()))


def _check_numbers(source: LabelSource, numbers: NDArray[Any], *, mask: bool) -> None:
    """Refuse labels whose numbers do not stand for one object each."""
    if mask:
        volume = source.path.parents[1]
        numbered = command("label", volume, "--probabilities", source.path, name="NEW")
        raise ParameterError(
            f"{source.path} is a mask, whose objects have no numbers; `{numbered}` gives them some"
        )
    if len(np.unique(numbers)) < len(numbers):
        raise ParameterError(
            f"{source.path} has the same numbers in several images, so no object can be dropped by "
            f"its number; give each object of the stack a number of its own"
        )


def _count_by_object(
    source: LabelSource, engine: EngineOptions, progress: Progress, *looks: Look
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Count the voxels of objects, and of those the ones where each look is true.

    Returns
    -------
    numbers : uint64, shape (objects,)
    counts : int64, shape (objects, 1 + looks)
    """
    found = [np.zeros((0, 2 + len(looks)), np.int64)]
    blocks = Grid(source.shape, whole_multiples(BLOCK, source.block)).blocks()
    job = Job(progress, math.prod(source.shape), "voxels", "comparing objects", size=core_voxels)
    count = partial(_count_in_block, source, looks)
    run_blocks(count, blocks, engine, on_result=lambda _, rows: found.append(rows), progress=job)
    every = np.concatenate(found)
    numbers, at = np.unique(every[:, 0], return_inverse=True)
    counts = np.zeros((len(numbers), 1 + len(looks)), np.int64)
    np.add.at(counts, at, every[:, 1:])
    held = numbers.astype(np.uint64)
    own = held & OWN if source.apart else held
    _check_numbers(source, own, mask=source.is_mask(held))
    return own, counts


def _count_in_block(labels: LabelSource, looks: Sequence[Look], block: Block) -> NDArray[np.int64]:
    """Count in a block; return rows of object, all of its voxels, and those of each look."""
    values = labels[block.core]
    numbers, at = np.unique(values, return_inverse=True)
    counts = [numbers.astype(np.int64), np.bincount(at.ravel())]
    for look in looks:
        seen = look(block.core)
        counts.append(np.bincount(at.ravel(), seen.ravel(), len(numbers)).astype(np.int64))
    return np.stack(counts, axis=1)[numbers > 0]


def _covered(shape: Zyx, spans: Intervals, roi: Roi) -> Mask:
    """Tell where intervals cover a region."""
    said = np.zeros(roi_shape(roi), np.uint8)
    paint_intervals(said, roi, spans, shape, 1)
    return said > 0


def _found(labels: LabelSource, roi: Roi) -> Mask:
    """Tell where labels hold objects."""
    return labels[roi] > 0


def by_result(
    source: LabelSource, other: LabelSource, count: Callable[..., tuple[Any, Any]]
) -> tuple[Mapping[str, Any], Broken]:
    """Delete objects of which less than half is found in another result; count them."""
    if other.shape != source.shape:
        raise ShapeError(f"{other.path} has the shape {other.shape}, {source.path} {source.shape}")
    if intersect(other.region, source.region) != source.region:
        raise ParameterError(
            f"{other.path} tells of {describe(other.region)} only, {source.path} of "
            f"{describe(source.region)}: it confirms nothing outside"
        )
    numbers, counts = count(partial(_found, other))
    every, again = counts.T
    dropped = 2 * again < every
    if not dropped.any():
        raise ParameterError(
            f"{other.path} confirms all {len(numbers)} objects of {source.path}: there is nothing "
            f"to drop, so go on with labels/{source.path.name}"
        )
    lost = Dropped(int(dropped.sum()), int(every[dropped].sum()))
    name = other.path.name
    found = Broken(
        {f"confirmation by {name}": lost},
        int(every.sum()),
        {"labels": name, "fingerprint": other.identity},
        _tell_mask(source, other),
    )
    return {"delete": numbers[dropped].tolist()}, found


def _tell_mask(source: LabelSource, other: LabelSource) -> str:
    """Say that the other result was looked for within a mask, and this one not, or in another."""
    ours, theirs = (_mask_of(labels) for labels in (source, other))
    if not theirs or theirs == ours:
        return ""
    return (
        f"{other.path} was segmented within the mask {theirs.get('labels')}, and {source.path} "
        f"not: objects outside of the mask have no confirmation"
    )


def _mask_of(labels: LabelSource) -> Mapping[str, Any]:
    volume = labels.path.parents[1]
    made = read_notes(volume / "probabilities" / uncorrected(volume, labels.path.name))
    return section(made.get("run"), "mask")


def by_marks(
    volume: Path, source: LabelSource, count: Callable[..., tuple[Any, Any]]
) -> tuple[Mapping[str, Any], Broken]:
    """Delete objects of which at least half lies in what `teach` was told is none; count them.

    Objects that marks say yes of, in as many voxels, stay. Numbers may be others than when
    they were marked: what counts is where the objects lie.
    """
    name = uncorrected(volume, source.path.name)
    marks = [m for r in load_rounds(volume, name, source.shape) for m in r.marks]
    no, yes = (
        np.concatenate([np.zeros((0, 2), np.int64), *(m.meant for m in marks if m.yes == said)])
        for said in (False, True)
    )
    if not len(no):
        again = command("teach", volume, "--not", 12, name=name)
        raise ParameterError(
            f"{volume} holds no marks that say no of {name}; mark some, such as `{again}`"
        )
    numbers, total = count(*(partial(_covered, source.shape, spans) for spans in (no, yes)))
    most, both = 2 * total[:, 1] >= total[:, 0], total[:, 1] <= total[:, 2]
    dropped, voxels = most & ~both, total[:, 0]
    gone = numbers[dropped]
    if not len(gone):
        little = int(((total[:, 1] > 0) & ~most).sum())
        raise ParameterError(
            f"no object of {source.path} is dropped: marks cover less than half of {little}, and "
            f"{int((most & both).sum())} have as many voxels marked yes as no"
        )
    found_none = Dropped(len(gone), int(voxels[dropped].sum()))
    return {"delete": gone.tolist()}, Broken({MARKED: found_none}, int(voxels.sum()))
