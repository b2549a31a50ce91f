"""What labelling writes, in which form, and what it keeps until that is complete."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from volseg.geometry.grid import Block, Grid, whole_multiples
from volseg.stages.label.rules import (
    LabelOptions,
    find_threshold,
    open_centerlines,
    open_probabilities,
    plan_label,
)
from volseg.stages.label.tasks import Coarse
from volseg.stages.levels import step_factor
from volseg.storage.arrays import ArraySpec, fit_spec
from volseg.storage.components import ComponentStore
from volseg.storage.volumes import Image, labels_path, scratch_path, slices_path, table_path
from volseg.types import Zyx

BLOCK: Zyx = (64, 1024, 1024)
"""Larger than those of inference: a block takes little memory here, and little time."""


@dataclass(frozen=True)
class LabelOutput:
    """Labels that are to be written, or that stand there already.

    Attributes
    ----------
    path : of the labels.
    source : the probabilities.
    threshold : from which a voxel is foreground.
    header : everything that decides the labels, JSON-like.
    spec : of level 0; the type may still change with the number of objects.
    grid : the blocks.
    ledger : its path.
    store : components, between the passes.
    """

    path: Path
    source: Image
    threshold: float
    header: dict[str, Any]
    spec: ArraySpec
    grid: Grid
    ledger: Path
    store: ComponentStore

    @property
    def ledger_header(self) -> dict[str, Any]:
        """Collect what a run must not change before it is complete."""
        return {**self.header, "block": self.grid.size, "shard": self.spec.shard}


def plan_output(volume: Path, name: str, options: LabelOptions) -> LabelOutput:
    """Decide what labelling writes; read metadata only.

    Raises
    ------
    InputError
        If the probabilities are missing or incomplete, or a rule cannot be applied to them.
    """
    source = open_probabilities(volume, name)
    header = plan_label(source, options)
    if options.split == "centerline":
        header["centerlines"] = open_centerlines(volume, name).attributes["fingerprint"]
    spec = fit_spec(source.levels[0].shape, "uint32")
    if options.shard is not None:
        spec = replace(spec, shard=options.shard, chunk=options.shard)
    return LabelOutput(
        labels_path(volume, name),
        source,
        find_threshold(source, options),
        header,
        spec,
        Grid(spec.shape, whole_multiples(options.block or BLOCK, spec.shard)),
        scratch_path(volume) / f"label-{name}.jsonl",
        ComponentStore(scratch_path(volume) / f"label-{name}"),
    )


def coarse_levels(image: Image) -> tuple[Coarse, ...]:
    """Find the levels of labels of which each shard stands for one of level 0."""
    found: list[Coarse] = []
    fine = image.levels[0].shard
    for k in range(1, len(image.levels)):
        shard = image.levels[k].shard
        if any(round(f) * c != s for f, c, s in zip(image.factors[k], shard, fine, strict=True)):
            break
        found.append(Coarse(image.levels[k], step_factor(image, k)))
    return tuple(found)


def tables(volume: Path, name: str) -> tuple[Path, Path]:
    """Name the tables that are no longer true when labels change."""
    return table_path(volume, name), slices_path(volume, name)


def record_key(what: str, block: Block) -> str:
    """Say under which key the ledger keeps that something was done for a block."""
    return json.dumps([what, *block.index])
