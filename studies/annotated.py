"""Annotated data sets that studies train and score on; they are not part of the project.

A folder of them holds lucchi_pp/, vnc/, ncmir/ and cardiac/, each with raw and label TIFFs
(docs/models/README.md says whose they are), or what `pack_data.py` packed of them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import tifffile

from volseg.stages.evaluate.run import Evaluation
from volseg.stages.train.regions import Pair
from volseg.types import VoxelSize


@dataclass(frozen=True)
class DataSet:
    """An annotated data set.

    Attributes
    ----------
    share : how often it is drawn from.
    validation : region that is held out of training, in ``raw``.
    more : another stack of it, all of which is held out.
    images : whether its slices are unrelated.
    """

    raw: str
    labels: str
    voxel_size: VoxelSize
    share: float
    validation: str | None = None
    more: tuple[str, str] | None = None
    images: bool = False


SETS = {
    "lucchi_pp": DataSet(
        "lucchi_pp/train_raw.tif", "lucchi_pp/train_labels.tif", (5, 5, 5), 0.34, "132:165,:,:"
    ),
    "vnc": DataSet("vnc/raw.tif", "vnc/labels.tif", (50, 4.6, 4.6), 0.26, "17:20,:,:"),
    "ncmir": DataSet(
        "ncmir/train_raw.tif",
        "ncmir/train_labels.tif",
        (24, 20, 20),
        0.24,
        more=("ncmir/validation_raw.tif", "ncmir/validation_labels.tif"),
    ),
    "cardiac": DataSet(
        "cardiac/raw.tif", "cardiac/labels.tif", (50, 13, 13), 0.16, "3:4,:,:", images=True
    ),
}


def sets_in(data: Path) -> dict[str, DataSet]:
    """List the data sets of a folder, with what packing changed of them."""
    changed = data / "sets.json"
    changes = json.loads(changed.read_text(encoding="utf-8")) if changed.exists() else {}
    return {name: replace(known, **changes.get(name, {})) for name, known in SETS.items()}


def stacked(path: Path, scratch: Path) -> Path:
    """Write a stack whose slices are stored as channels of one page as pages, if it is one."""
    with tifffile.TiffFile(path) as tif:
        if tif.pages.first.samplesperpixel == 1:
            return path
    copy = scratch / f"{path.parent.name}-{path.name}"
    if not copy.exists():
        tifffile.imwrite(copy, tifffile.imread(path), photometric="minisblack")
    return copy


@dataclass(frozen=True)
class Place:
    """A raw stack, its labels, and the region of them that is meant, if not all."""

    raw: str
    labels: str
    roi: str | None


def places_of(chosen: DataSet) -> tuple[Place, list[Place]]:
    """Name what is trained on, and what is held out of it, of a data set."""
    held, training = [], None
    if chosen.validation:
        held.append(Place(chosen.raw, chosen.labels, chosen.validation))
        training = f"0:{chosen.validation.split(':')[0]},:,:"
    if chosen.more:
        held.append(Place(*chosen.more, None))
    return Place(chosen.raw, chosen.labels, training), held


def pairs_of(data: Path, names: list[str], scratch: Path) -> list[Pair]:
    """List what is trained on, and what is held out of it, of these data sets."""
    pairs = []
    for name in names:
        chosen = sets_in(data)[name]
        pair = Pair(
            stacked(data / chosen.raw, scratch),
            str(stacked(data / chosen.labels, scratch)),
            validation=chosen.validation,
            images=chosen.images,
            voxel_size=chosen.voxel_size,
            share=chosen.share,
        )
        pairs.append(pair)
        if chosen.more:
            raw, labels = chosen.more
            size = chosen.voxel_size
            pairs.append(Pair(data / raw, str(data / labels), held_out=True, voxel_size=size))
    return pairs


def scores_of(found: Evaluation, digits: int) -> dict[str, float]:
    """Round the scores of voxels, and count objects."""
    scores = {
        "Jaccard": found.foreground.jaccard,
        "precision": found.foreground.precision,
        "recall": found.foreground.recall,
        "Jaccard at the best threshold": found.curves.best_jaccard if found.curves else math.nan,
    }
    return {name: round(value, digits) for name, value in scores.items()} | {
        "objects": found.objects.predicted,
        "matched": found.objects.matched,
        "truth": found.objects.truth,
    }
