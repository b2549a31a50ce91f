"""Verify labels whose objects cannot be found again block by block: label anew and compare.

Filled holes and split objects depend on more than a block shows. Labels do not depend on blocks,
so with the rules on record and other blocks every voxel must come out the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from volseg.differences import describe_difference
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import StorageError, VolsegError
from volseg.geometry.grid import Block, roi_size
from volseg.stages.label.plan import LabelOptions, plan_labels
from volseg.stages.label.run import label
from volseg.stages.verify.findings import Finding, Skipped, first_difference, locate
from volseg.stages.verify.images import Subject
from volseg.storage.arrays import StoredArray
from volseg.storage.files import discard
from volseg.storage.remote import as_remote
from volseg.storage.volumes import open_image, scratch_path
from volseg.types import Zyx

BLOCK: Zyx = (32, 512, 512)
"""Smaller than those that labels are made with."""
RESULTS = {"labels", "tables", ".volseg"}
"""Parts of a volume that labelling does not need."""


@dataclass(frozen=True)
class CompareLabels:
    """Compare a block of labels with the same made anew.

    Attributes
    ----------
    array : its name, see `Finding`.
    labels, again : level 0 of both.
    """

    array: str
    labels: StoredArray
    again: StoredArray

    def __call__(self, block: Block) -> tuple[Finding, ...]:
        """Compare one block; what cannot be read is found elsewhere."""
        try:
            found = self.labels[block.core]
        except StorageError:
            return ()
        expected = self.again[block.core]
        differing = first_difference(found, expected)
        if differing is None:
            return ()
        voxel, count = differing
        finding = locate("label", self.array, 0, self.labels, block.core, voxel)
        message = (
            f"found label {found[voxel]}, labelled again {expected[voxel]}; voxels that differ in "
            f"{finding.roi}: {count} of {roi_size(block.core)}"
        )
        return (replace(finding, message=message),)


@contextmanager
def relabelled(volume: Path, subject: Subject, engine: EngineOptions) -> Iterator[StoredArray]:
    """Lend the labels of a volume made again, beside it.

    Parameters
    ----------
    volume : Path
    subject : complete labels
    engine : EngineOptions

    Raises
    ------
    Skipped
        If they cannot be made here by the rules on record.
    """
    if as_remote(volume) is not None or not os.access(volume, os.W_OK):
        why = f"{volume} lies where labels cannot be made again to compare"
        raise Skipped(f"{subject.array}: {why}")
    folder = scratch_path(volume) / f"verify-labels-{subject.name}-{os.getpid()}"
    try:
        yield _relabel(volume, folder, subject, engine)
    finally:
        discard(folder)


def _relabel(volume: Path, folder: Path, subject: Subject, engine: EngineOptions) -> StoredArray:
    try:
        options = recorded_options(subject.run, engine)
        # the same volume, without its results
        discard(folder)
        folder.mkdir(parents=True)
        for entry in volume.resolve().iterdir():
            if entry.name not in RESULTS:
                (folder / entry.name).symlink_to(entry)
        plan = plan_labels(folder, subject.name, options)
        if plan.header != dict(subject.run):
            difference = describe_difference(subject.run, plan.header)
            raise Skipped(f"{subject.array}: its rules are not known here ({difference})")
        label(plan, NoProgress())
        return open_image(plan.path).levels[0]
    except (KeyError, TypeError, ValueError, ArithmeticError, OSError, VolsegError) as error:
        message = " ".join(str(error).split())
        raise Skipped(f"{subject.array}: it cannot be made again: {message}") from error


def recorded_options(run: Any, engine: EngineOptions) -> LabelOptions:
    """Say by which rules labels were made.

    Raises
    ------
    KeyError, TypeError, ValueError, ParameterError
        If what is on record is none.
    """
    seed = run.get("seed_threshold_of_255")
    rules: dict[str, Any] = {
        "threshold": int(run["threshold_of_255"]) / np.iinfo(np.uint8).max,
        "seed_threshold": None if seed is None else int(seed) / np.iinfo(np.uint8).max,
        "connectivity": run["connectivity"],
        "min_size": int(run["min_size"]),
        "min_probability": float(run.get("min_probability", 0)),
        "fill_holes": bool(run.get("fill_holes", False)),
        "split": run.get("split", "none"),
    }
    if "split_depth" in run:
        rules["split_depth"] = float(run["split_depth"])
    return LabelOptions(**rules, block=BLOCK, engine=engine)
