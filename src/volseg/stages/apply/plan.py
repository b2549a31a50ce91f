"""Plan corrections of objects: of which result, by which operations, and where the outcome goes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from volseg.defaults import NAME
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Progress
from volseg.errors import ConflictError, ParameterError, require
from volseg.geometry.grid import Grid, describe, full_roi, intersect, shift
from volseg.sources.corrections import Corrections, Painting, pack_deleted, read_corrections
from volseg.sources.greys import refuse_greys
from volseg.sources.labels import LabelSource, open_label_path, open_labels
from volseg.stages.apply.rules import Broken, find_deletions
from volseg.storage.arrays import ArraySpec, fit_spec
from volseg.storage.attributes import uncorrected
from volseg.storage.locations import check_writable
from volseg.storage.results import is_complete
from volseg.storage.volumes import (
    Image,
    check_name,
    labels_path,
    open_image,
    scratch_path,
    slices_path,
    table_path,
)
from volseg.types import Roi, VoxelSize, Zyx

FORMAT = 1
"""Raised whenever the same corrections come to mean another result."""
SLAB = 1 << 23
"""Voxels of a painting that are looked at together."""


@dataclass(frozen=True)
class ApplyOptions:
    """Options of `apply`; see `volseg.api.making.ApplyKeywords`."""

    corrections: Path | Mapping[str, Any] | None
    name: str = NAME
    output_name: str | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    overwrite: bool = False
    keep: Sequence[str] = ()
    marks: bool = False
    confirmed_by: str | None = None

    def __post_init__(self) -> None:
        given = self.corrections is not None, bool(self.keep), self.marks, bool(self.confirmed_by)
        if sum(given) != 1:
            raise ParameterError(
                "give either --corrections or --keep or --marks or --confirmed-by; the others after"
            )

    @property
    def output(self) -> str:
        """The name of the outcome."""
        made = "marked" if self.marks else "confirmed" if self.confirmed_by else "corrected"
        return f"{self.name}-{made}" if self.output_name is None else self.output_name


@dataclass(frozen=True)
class Painted:
    """A painting that has been looked at.

    Attributes
    ----------
    box : of the region, in the volume.
    blocks : of the volume, in which something is painted.
    slices : of the volume, in which something is painted.
    """

    painting: Painting
    labels: LabelSource
    box: Roi
    values: tuple[int, ...]
    blocks: frozenset[Zyx]
    fingerprint: str
    slices: frozenset[int]


@dataclass(frozen=True)
class ApplyPlan:
    """Corrections: everything that decides the outcome, and where it goes.

    Attributes
    ----------
    broken : objects that are deleted by a rule, marks or another result; None where by hand.
    spacing : lengths of a voxel's sides, the finest 1.
    spec : of level 0; the type may still change with the number of objects.
    tables : of objects and slices, of the labels and of the outcome.
    """

    volume: Path
    name: str
    path: Path
    source: LabelSource
    image: Image
    corrections: Corrections
    painted: tuple[Painted, ...]
    broken: Broken | None
    spacing: VoxelSize
    header: dict[str, Any]
    spec: ArraySpec
    grid: Grid
    ledger: Path
    scratch: Path
    tables: tuple[tuple[Path, Path], tuple[Path, Path]]
    engine: EngineOptions
    overwrite: bool

    @property
    def ledger_header(self) -> dict[str, Any]:
        """Collect what a run must not change before it is complete."""
        return {**self.header, "block": self.grid.size}

    @property
    def provenance(self) -> dict[str, Any]:
        """Describe the corrections, for the record."""
        return {
            "parent": self.source.path.name,
            "uncorrected": uncorrected(self.source.path.parents[1], self.source.path.name),
            "operations": pack_deleted(self.corrections.describe()),
            **(self.broken.describe() if self.broken else {}),
        }

    def stands(self) -> bool:
        """Tell whether this very outcome is already there."""
        return is_complete(
            self.path,
            self.header,
            overwrite=self.overwrite,
            elsewhere="choose another --output-name",
        )


def plan_apply(
    volume: Path, options: ApplyOptions, progress: Progress, place: Path | None = None
) -> ApplyPlan:
    """Read corrections and open what they are about.

    Of voxels, it reads paintings, and all labels where they lack a fingerprint, or marks or another
    result decide.

    Parameters
    ----------
    place : takes the place of the volume for what is written
    """
    place, name = volume if place is None else place, check_name(options.output)
    if name == options.name:
        raise ParameterError(f"labels/{name} stay as they are; give another --output-name")
    check_writable(place)
    source, broken = open_labels(volume, options.name), None
    if (given := options.corrections) is None:
        other = _open_other(volume, options)
        found = find_deletions(volume, source, options.keep, other, options.engine, progress)
        given, broken = found
    corrections = read_corrections(given)
    image, known = open_image(source.path), source.identity
    spec, path = _spec_like(image), labels_path(place, name)
    _check(corrections, known, options.name, path)
    grid, planar = Grid(spec.shape, spec.shard), image.space.planar
    painted = tuple(_look_at(p, grid, source.region, planar=planar) for p in corrections.add)
    size = image.voxel_size or open_image(volume).voxel_size or (1.0, 1.0, 1.0)
    z, y, x = (side / min(size) for side in size)
    header = {
        "format": FORMAT,
        "labels": known,
        "corrections": _hash(corrections, painted),
        **({} if source.fingerprint else {"voxels": _hash_voxels(source)}),
        **({"min_size": source.min_size} if source.min_size else {}),
        **({"split_spacing": [z, y, x]} if corrections.split else {}),
    }
    return ApplyPlan(
        volume=place,
        name=name,
        path=path,
        source=source,
        image=image,
        corrections=corrections,
        painted=painted,
        broken=broken,
        spacing=(z, y, x),
        header=header,
        spec=spec,
        grid=grid,
        ledger=scratch_path(place) / f"apply-{name}.jsonl",
        scratch=scratch_path(place) / f"apply-{name}",
        tables=(
            (table_path(volume, options.name), slices_path(volume, options.name)),
            (table_path(place, name), slices_path(place, name)),
        ),
        engine=options.engine,
        overwrite=options.overwrite,
    )


def _open_other(volume: Path, options: ApplyOptions) -> LabelSource | None:
    if options.confirmed_by is None:
        return None
    if options.confirmed_by in (options.name, options.output):
        raise ParameterError(
            f"--confirmed-by names another result than {options.name} and {options.output}"
        )
    return open_labels(volume, options.confirmed_by)


def _check(corrections: Corrections, known: str, name: str, outcome: Path) -> None:
    """Refuse corrections of another result, and such as cannot be made here."""
    if corrections.fingerprint not in (None, known):
        raise ParameterError(
            f"these corrections are of a result with the fingerprint {corrections.fingerprint}, "
            f"labels/{name} has {known}: its labels are others; correct it anew, or give "
            f"the --name of the result that was corrected"
        )
    if corrections.split:
        require("skimage", "measure", "splitting needs scikit-image")
    for painting in corrections.add:
        if painting.path.resolve().is_relative_to(outcome.resolve()):
            raise ConflictError(
                f"{painting.path} lies in {outcome}, which is written anew; give another "
                f"--output-name"
            )


def _spec_like(image: Image) -> ArraySpec:
    """Choose the form of labels of volseg's own, so that what is untouched can be taken over."""
    first = image.levels[0]
    if first.compression is None:
        return fit_spec(first.shape, "uint32")
    return ArraySpec(first.shape, first.dtype.name, first.chunk, first.shard)


def _look_at(painting: Painting, grid: Grid, region: Roi, *, planar: bool) -> Painted:
    """Find all values of a painting, and where in the volume they are."""
    labels = refuse_greys(open_label_path(painting.path, images=planar))
    labels = labels.as_images() if planar else labels
    z, y, x = (slice(o, o + n) for o, n in zip(painting.origin, labels.shape, strict=True))
    box, whole = (z, y, x), full_roi(grid.shape)
    if intersect(box, whole) != box:
        raise ParameterError(
            f"{painting.path} would cover {describe(box)}, the volume is {describe(whole)}; give "
            f"its origin in the volume, (z, y, x)"
        )
    values, slices, blocks, told = set[int](), set[int](), set[Zyx](), hashlib.sha256()
    rows = max(SLAB // (labels.shape[1] * labels.shape[2]), 1)
    for first in range(0, labels.shape[0], rows):
        slab = slice(first, min(first + rows, labels.shape[0]))
        found = np.maximum(labels[(slab, *full_roi(labels.shape)[1:])], 0).astype("<u8")
        told.update(found.tobytes())
        values |= set(np.unique(found).tolist())
        slices |= {z.start + first + int(k) for k in np.flatnonzero(found.any(axis=(1, 2)))}
        seen = (slice(z.start + slab.start, z.start + slab.stop), y, x)
        inside = intersect(seen, region)
        here = found[shift(inside, [s.start for s in seen])] if inside else found[:0]
        if np.count_nonzero(here) < np.count_nonzero(found):
            raise ParameterError(
                f"{painting.path} is painted outside of {describe(region)}, which is all that was "
                f"segmented and is counted"
            )
        for block in grid.blocks(seen):
            part = intersect(block.core, seen)
            if part and found[shift(part, [s.start for s in seen])].any():
                blocks.add(block.index)
    if not blocks:
        raise ParameterError(f"{painting.path} is 0 everywhere: nothing is painted in it")
    chosen, where = tuple(sorted(values - {0})), (frozenset(blocks), told.hexdigest())
    return Painted(painting, labels, box, chosen, *where, frozenset(slices))


def _hash_voxels(labels: LabelSource) -> str:
    told = hashlib.sha256()
    for block in Grid(labels.shape, labels.block).blocks():
        told.update(labels[block.core].tobytes())
    return told.hexdigest()


def _hash(corrections: Corrections, painted: Sequence[Painted]) -> str:
    """Hash operations and voxels, wherever the paintings lie."""
    told = corrections.describe()
    for entry, found in zip(told.get("add", ()), painted, strict=True):
        entry["path"] = found.fingerprint
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
