"""Explain: evaluate the tiles of a region with hooks, blend what they say, and write it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from volseg import __version__
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress, Progress
from volseg.geometry.grid import full_roi, intersect, roi_shape, shift
from volseg.geometry.lattice import Lattice, Tile
from volseg.models.explaining import (
    ATTENTION,
    CAM,
    MEAN,
    SALIENCY,
    SQUARE,
    Explainer,
    Maps,
    has_gates,
)
from volseg.models.registry import Architecture, find_architecture
from volseg.stages.explain.plan import ExplainPlan
from volseg.stages.explain.show import draw_sheet
from volseg.stages.levels import build_pyramid
from volseg.stages.predict.look import is_wanted
from volseg.stages.predict.run import build_task, model_record
from volseg.stages.predict.tasks import predictor_for
from volseg.storage.arrays import fit_spec
from volseg.storage.attributes import write_group
from volseg.storage.explanations import read_explanation
from volseg.storage.scratch import HandoverStore
from volseg.storage.stores import is_zarr
from volseg.storage.targets import replacing
from volseg.storage.volumes import create_image
from volseg.types import FULL_PROBABILITY, Floats, Roi
from volseg.voxels.blend import along_axes, blending_matrix

FILTERS = 4
"""Of the filters, the strongest, whose activation is written."""
UNCERTAINTY, MOST_UNCERTAIN = "uncertainty", 0.5
"""Name of the standard deviation of the probability, and the most that it can be."""
SHOWN = 99.9
"""Percentile of the values of other layers from which all are stored as the same."""
WORDS = {
    UNCERTAINTY: "standard deviation of the probability over flips and views",
    SALIENCY: "how much the logits of what was found change with each voxel of raw",
    CAM: "what of the deepest features speaks for what was found (Seg-Grad-CAM)",
    ATTENTION: "coefficient of the attention gate {} times coarser than raw",
    "filter": "activation of filter {} before the last layer, among the strongest",
}
Evaluate: TypeAlias = Callable[[Floats, Roi, int], Maps]


@dataclass(frozen=True)
class ExplainReport:
    """Result of an explanation.

    Attributes
    ----------
    path : of the group of layers.
    layers : their names.
    filters : of the last features, what each adds to the mean logit of what was found, most first.
    uncertainty : mean and highest standard deviation of the probability.
    found : part of the region that was found.
    sheet : PNG file; None if it was not drawn.
    notes : what the user should know.
    seconds : of this call.
    """

    path: Path
    layers: tuple[str, ...]
    filters: tuple[tuple[int, float], ...]
    uncertainty: tuple[float, float]
    found: float
    sheet: Path | None
    notes: tuple[str, ...]
    seconds: float


@dataclass
class Found:
    """Maps of a region, and what is said of them."""

    maps: Maps
    notes: list[str] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)


def explain(plan: ExplainPlan, progress: Progress) -> ExplainReport:
    """Write ``explanations/<name>`` of a volume, unless this very one is there, and draw it.

    Raises
    ------
    BlockError
        If a tile does not fit into memory.
    StorageError
        If something cannot be written.
    """
    begun, volume = time.monotonic(), plan.image.path
    if not plan.stands:
        found = _evaluate(plan, progress)
        if not is_zarr(plan.target.parent):
            write_group(plan.target.parent, {})
        with replacing(plan.target, overwrite=plan.overwrite) as place:
            _write(plan, found, place)
    explanation = read_explanation(volume, plan.target.name)
    if explanation is None:  # somebody removed it in the meantime
        return explain(plan, progress)
    if plan.sheet is not None:
        draw_sheet(plan.sheet, volume, plan.target.name, explanation)
    said = explanation.notes["said"]
    return ExplainReport(
        plan.target,
        tuple(layer.name for layer in explanation.layers),
        tuple((int(k), float(v)) for k, v in said["filters"]),
        (said["mean_uncertainty"], said["highest_uncertainty"]),
        said["found"],
        plan.sheet,
        (*plan.notes, *said["notes"]),
        time.monotonic() - begun,
    )


def _evaluate(plan: ExplainPlan, progress: Progress) -> Found:
    """Explain all tiles of the region."""
    predictor, card = predictor_for(plan.prediction.choice), plan.prediction.card
    explainer = Explainer(predictor, card.threshold)
    tiles = list(plan.prediction.handover.reaching())
    progress.start(2 * len(tiles), "tiles", "explaining")
    try:
        maps = _blend(plan, tiles, explainer.explain, progress)
        ranked = explainer.rank_filters()
        strongest = [k for k, _ in ranked[:FILTERS]]

        def activate(tile: Floats, needed: Roi, axis: int) -> Maps:
            return explainer.activate(tile, needed, axis, strongest)

        maps |= _blend(plan, tiles, activate, progress) if strongest else {}
    finally:
        progress.finish()
    zeros = np.zeros(roi_shape(plan.roi), np.float32)
    mean, square = maps.pop(MEAN, zeros), maps.pop(SQUARE, zeros)
    spread = np.sqrt(np.maximum(square - mean * mean, 0))
    found = Found({UNCERTAINTY: spread, **maps})
    if not has_gates(predictor.network):
        found.notes.append(
            f"{card.architecture} has no attention gates, so there are no layers of attention; "
            f"attention-unet has some"
        )
    if not ranked:
        found.notes.append(
            f"nothing in the region has a probability of {card.threshold:g} or more, so there is "
            f"nothing to explain but the uncertainty"
        )
    found.said = {
        "filters": ranked,
        "mean_uncertainty": float(spread.mean()),
        "highest_uncertainty": float(spread.max()),
        "found": float((mean >= card.threshold).mean()),
        "notes": found.notes,
    }
    return found


def _blend(plan: ExplainPlan, tiles: list[Tile], evaluate: Evaluate, progress: Progress) -> Maps:
    """Evaluate tiles, and blend their maps over the region as probabilities are blended."""
    total: Maps = {}
    prediction = plan.prediction
    task = build_task(prediction, [None], HandoverStore(prediction.scratch / "explain"))
    form = find_architecture(prediction.card.architecture)
    corner, views = [s.start for s in plan.roi], len(prediction.handover.lattices)
    for tile in tiles:
        lattice = prediction.handover.lattices[tile.lattice]
        shared = intersect(prediction.handover.support(tile), plan.roi)
        wanted = is_wanted(prediction.handover, task.look.mask, tile)
        inputs = task.tile_input(tile, task.read([tile])) if wanted and shared else None
        if inputs is not None and shared is not None:
            needed = task.needed_of(tile, [plan.roi])
            cut = cut_tile(needed, lattice, form.viewed(lattice.normal))
            axes = zip(lattice.axes, tile.position, shared, cut, strict=True)
            z, y, x = (
                blending_matrix((s.start, s.stop), a.origin(k), a.tile, a.overlap, a.scale)[:, c]
                for a, k, s, c in axes
            )
            around = zip(cut, lattice.margin, strict=True)
            inputs = inputs[tuple(slice(c.start, c.stop + 2 * m) for c, m in around)]
            needed = shift(needed, [c.start for c in cut])
            for name, values in evaluate(inputs, needed, lattice.normal).items():
                if name not in total:
                    total[name] = np.zeros(roi_shape(plan.roi), np.float32)
                weighed = along_axes(values, (z, y, x)) / np.float32(views)
                total[name][shift(shared, corner)] += weighed
        progress.advance(1)
    return total


def cut_tile(needed: Roi, lattice: Lattice, form: Architecture) -> Roi:
    """Cut what is needed of a tile out, with as much around it as tiles overlap.

    Pooling falls on the same voxels as in the whole tile. What is farther away than tiles overlap
    is taken to decide nothing, as where tiles are blended.

    Examples
    --------
    >>> from volseg.geometry.lattice import AxisLattice
    >>> axis = AxisLattice(1000, 512, 64)
    >>> lattice, form = Lattice((AxisLattice(9, 8, 0), axis, axis)), find_architecture("unet2d")
    >>> cut_tile((slice(2, 3), slice(100, 140), slice(480, 512)), lattice, form)
    (slice(2, 3, None), slice(32, 208, None), slice(416, 512, None))
    """
    z, y, x = (
        slice(0, a.tile)
        if offset
        else slice(
            max((s.start - a.overlap) // step, 0) * step,
            min(-(-(s.stop + a.overlap) // step) * step, a.tile),
        )
        for s, a, step, offset in zip(needed, lattice.axes, form.multiple, form.offset, strict=True)
    )
    return z, y, x


def _write(plan: ExplainPlan, found: Found, place: Path) -> None:
    """Write maps as bytes, each with its levels, and then what they are."""
    space = plan.image.space.at([s.start for s in plan.roi])
    described = {}
    for name, values in found.maps.items():
        kind, _, of = name.rpartition("-")
        words = WORDS.get(name, WORDS.get(kind, "")).format(of)
        most = float(np.percentile(values, SHOWN)) or float(values.max()) or 1.0
        full = {UNCERTAINTY: MOST_UNCERTAIN, ATTENTION: 1.0}.get(kind or name, most)
        stored = np.rint(np.clip(values / full, 0, 1) * FULL_PROBABILITY).astype(np.uint8)
        noted = {"complete": True, "version": __version__, "run": plan.header}
        spec = fit_spec(roi_shape(plan.roi), "uint8")
        image = create_image(place / name, spec, space, attributes=noted)
        image.levels[0].write(full_roi(stored.shape), stored)
        build_pyramid(image, EngineOptions(), NoProgress(), label=False)
        described[name] = {"full": full, "words": words}
    notes = {
        "run": plan.header,
        "model": model_record(plan.prediction.card, plan.prediction.options.zoom),
        "roi": plan.header["roi"],
        "layers": described,
        "said": found.said,
    }
    write_group(place, {"volseg": notes})
