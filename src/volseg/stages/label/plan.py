"""Plan labels: from which probabilities, by which rules, in which form, and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from volseg.engine.options import EngineOptions
from volseg.errors import ParameterError, command
from volseg.geometry.grid import Grid, whole_multiples
from volseg.stages.label.median import keep_recorded
from volseg.stages.label.rules import OFFSET, ObjectRules, describe_rules, find_threshold
from volseg.stages.label.source import open_guides, open_probabilities
from volseg.storage.arrays import ArraySpec, fit_spec
from volseg.storage.attributes import section
from volseg.storage.images import sizes_of
from volseg.storage.ledger import read_header
from volseg.storage.ome import Space
from volseg.storage.results import ELSEWHERE, is_complete, recorded_run
from volseg.storage.scratch import ComponentStore
from volseg.storage.volumes import (
    Image,
    labels_path,
    open_image,
    scratch_path,
    slices_path,
    table_path,
)
from volseg.types import Zyx

FORMAT = 2
"""Raised whenever the same parameters come to mean another result."""
BLOCK: Zyx = (64, 1024, 1024)
"""Larger than those of inference: a block takes little memory here, and little time."""


@dataclass(frozen=True)
class LabelOptions(ObjectRules):
    """Rules of what becomes an object, and how the work is done; see `volseg.api.options.Writing`.

    A shard that is asked for, (z, y, x), is one chunk.
    """

    block: Zyx | None = None
    shard: Zyx | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    overwrite: bool = False


@dataclass(frozen=True)
class Foundation:
    """Probabilities as labels are made from them; they may still have to be predicted.

    Attributes
    ----------
    roi : start and stop along each axis of the region they were made for.
    guides : path and fingerprint of each further map that splitting needs.
    mask : labels and fingerprint of the mask that they were made in; None is everywhere.
    sizes : (y, x) of the unrelated images that slices are, where these are smaller; else empty.
    """

    path: Path
    shape: Zyx
    space: Space
    fingerprint: str
    model: Mapping[str, Any]
    roi: Any
    guides: tuple[tuple[Path, str], ...] = ()
    mask: Mapping[str, str] | None = None
    sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class LabelPlan:
    """Labels: everything that decides them, where they go, and how they are made.

    Attributes
    ----------
    threshold : from which a voxel is foreground.
    spec : of level 0; the type may still change with the number of objects.
    store : components, between the passes.
    tables : which are no longer true when labels change.
    elsewhere : how other labels of that name are kept, for messages.
    """

    volume: Path
    name: str
    path: Path
    source: Foundation
    threshold: float
    header: dict[str, Any]
    spec: ArraySpec
    grid: Grid
    ledger: Path
    store: ComponentStore
    tables: tuple[Path, Path]
    engine: EngineOptions
    overwrite: bool
    elsewhere: str = ELSEWHERE

    @property
    def ledger_header(self) -> dict[str, Any]:
        """Collect what a run must not change before it is complete."""
        return {**self.header, "block": self.grid.size, "shard": self.spec.shard}

    def stands(self) -> bool:
        """Tell whether these very labels are already there."""
        return is_complete(
            self.path,
            self.header,
            overwrite=self.overwrite,
            model=str(self.source.model.get("name", "")),
            elsewhere=self.elsewhere,
        )


def plan_labels(volume: Path, name: str, options: LabelOptions) -> LabelPlan:
    """Plan the labels of probabilities that stand in a volume; read metadata only."""
    probabilities, image = open_probabilities(volume, name), open_image(volume)
    source = found_on(probabilities, sizes_of(image))
    guides = open_guides(image, name, options.split)
    if guides:
        known = tuple((each.path, each.attributes["fingerprint"]) for each in guides)
        source = replace(source, guides=known)
    return replace(plan_labels_on(volume, source, options), elsewhere=_keep_both(probabilities))


def _keep_both(probabilities: Image) -> str:
    """Say how labels by other rules are had beside those that have the probabilities' name."""
    volume, noted = probabilities.path.parent.parent, probabilities.attributes
    model = section(noted, "model")
    if "imported" in model:
        again = command("label", volume, "--probabilities", "SOURCE", name="OTHER")
        how = "with these rules"
    else:
        made = {"--model": model.get("name"), "--classes": section(noted, "run").get("class")}
        flags = [word for flag, value in made.items() if value for word in (flag, value)]
        again = command("segment", volume, *flags, name="OTHER")
        how = "with these rules and all else that these probabilities were made with"
    return f"have both by `{again}` {how}, as labels have the name of their probabilities"


def plan_labels_on(volume: Path, source: Foundation, options: LabelOptions) -> LabelPlan:
    """Plan the labels of probabilities that are known, and may still have to be predicted."""
    if options.images:
        source = replace(source, space=replace(source.space, planar=True))
    whole = [[0, n] for n in source.shape]
    if options.complement and ([list(ends) for ends in source.roi] != whole or source.mask):
        raise ParameterError(
            f"only a part of {source.path} was predicted, and --complement would take the rest for "
            f"an object; segment the whole volume first"
        )
    name, guides = source.path.name, [known for _, known in source.guides]
    axes = "".join(path.name[-1] for path, _ in source.guides)
    header = {
        "format": FORMAT,
        "probabilities": source.fingerprint,
        **describe_rules(options, source.space, source.model),
        **({"centerlines": guides[0]} if options.split == "centerline" else {}),
        **({"contours": guides} if options.split == "contour" else {}),
        **({"offsets": guides, "split_axes": axes} if options.split == OFFSET else {}),
        # labels that were filled before masks were heeded are others
        **({"mask": source.mask["fingerprint"]} if source.mask and options.fill_holes else {}),
    }
    scratch = scratch_path(volume)
    ledger = scratch / f"label-{name}.jsonl"
    if "median_nm" in header:  # else what stands, or was begun, is not asked for
        noted = recorded_run(labels_path(volume, name)) or read_header(ledger) or {}
        header |= keep_recorded(header, noted, source.space.voxel_size)
    spec = fit_spec(source.shape, "uint32")
    if options.shard is not None:
        spec = replace(spec, shard=options.shard, chunk=options.shard)
    return LabelPlan(
        volume=volume,
        name=name,
        path=labels_path(volume, name),
        source=source,
        threshold=find_threshold(options, source.model),
        header=header,
        spec=spec,
        grid=Grid(spec.shape, whole_multiples(options.block or BLOCK, spec.shard)),
        ledger=ledger,
        store=ComponentStore(scratch / f"label-{name}"),
        tables=(table_path(volume, name), slices_path(volume, name)),
        engine=options.engine,
        overwrite=options.overwrite,
    )


def contact_tables(volume: Path, name: str) -> tuple[Path, ...]:
    """List the tables of contacts between labels and other ones, in either order."""
    return tuple(
        path
        for other in labels_path(volume, name).parent.glob("*")
        for pair in (f"{name}-{other.name}", f"{other.name}-{name}")
        if (path := table_path(volume, name).with_name(f"{pair}-contacts.parquet")).exists()
    )


def found_on(image: Image, sizes: tuple[tuple[int, int], ...]) -> Foundation:
    """List what labels depend on of probabilities that stand."""
    noted = image.attributes
    return Foundation(
        image.path,
        image.levels[0].shape,
        image.space,
        noted["fingerprint"],
        noted["model"],
        noted["run"]["roi"],
        mask=noted["run"].get("mask"),
        sizes=sizes,
    )
