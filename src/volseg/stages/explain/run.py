"""Explain: evaluate the tiles of a region with hooks, blend what they say, and write it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from volseg import __version__
from volseg.engine.options import EngineOptions
from volseg.engine.progress import Job, NoProgress, Progress
from volseg.geometry.grid import full_roi, roi_shape
from volseg.models.explaining import (
    ATTENTION,
    CAM,
    MEAN,
    SALIENCY,
    SQUARE,
    Explainer,
    Maps,
    deviation,
    has_gates,
)
from volseg.stages.explain.plan import ExplainPlan
from volseg.stages.levels import build_pyramid
from volseg.stages.predict.loading import predictor_for
from volseg.stages.predict.region import blend_region
from volseg.stages.predict.run import model_record
from volseg.stages.report.explained import draw_panels
from volseg.storage.arrays import fit_spec
from volseg.storage.attributes import write_group
from volseg.storage.images import Explanation, read_explanation
from volseg.storage.plots import save_figure
from volseg.storage.stores import is_zarr
from volseg.storage.targets import drafting_folder
from volseg.storage.volumes import create_image, open_image
from volseg.types import FULL_PROBABILITY, Floats, Roi

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
    ATTENTION: "coefficient of the attention gate whose voxels are {} of the network's a side",
    "filter": "activation of filter {} before the last layer, among the strongest",
}
COLUMNS, INCHES = 4, 3.6
"""Panels in a row, and their side."""


@dataclass(frozen=True)
class ExplainReport:
    """Result of an explanation.

    Attributes
    ----------
    filters : of the last features, what each adds to the mean logit of what was found, most first.
    uncertainty : mean and highest standard deviation of the probability.
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
    """
    begun, volume = time.monotonic(), plan.image.path
    if not plan.stands:
        found = _evaluate(plan, progress)
        if not is_zarr(plan.target.parent):
            write_group(plan.target.parent, {})
        with drafting_folder(plan.target, overwrite=plan.overwrite) as place:
            _write(plan, found, place)
    explanation = read_explanation(volume, plan.target.name)
    if explanation is None:  # somebody removed it in the meantime
        return explain(replace(plan, stands=False), progress)
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
    rules = card.rules_of(predictor.wanted[0])
    stride = card.form.stride
    explainer = Explainer(predictor, rules.threshold, stride)
    tiles = sum(plan.prediction.handover.count_tiles())
    with Job(progress, 2 * tiles, "tiles", "explaining").shown():
        maps = blend_region(plan.prediction, explainer.explain, progress)
        ranked = explainer.rank_filters()
        strongest = [k for k, _ in ranked[:FILTERS]]

        def activate(tile: Floats, needed: Roi, axis: int) -> Maps:
            return explainer.activate(tile, needed, axis, strongest)

        maps |= blend_region(plan.prediction, activate, progress) if strongest else {}
    zeros = np.zeros(roi_shape(plan.roi), np.float32)
    maps = {MEAN: zeros, SQUARE: zeros} | maps  # without any tissue there are none
    mean, spread = maps[MEAN], deviation(maps)
    kept = {name: values for name, values in maps.items() if name not in {MEAN, SQUARE}}
    found = Found({UNCERTAINTY: spread} | kept)
    if not has_gates(predictor.network):
        found.notes.append(
            f"{card.architecture} has no attention gates, so there are no layers of attention; "
            f"attention-unet has some"
        )
    if not ranked:
        found.notes.append(
            f"nothing in the region has a probability of {rules.threshold:g} or more, so there is "
            f"nothing to explain but the uncertainty"
        )
    found.said = {
        "filters": ranked,
        "mean_uncertainty": float(spread.mean()),
        "highest_uncertainty": float(spread.max()),
        "found": float((mean >= rules.threshold).mean()),
        "notes": found.notes,
    }
    return found


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
        "model": model_record(plan.prediction),
        "roi": plan.header["roi"],
        "layers": described,
        "said": found.said,
        "sheet": None if plan.sheet is None else str(plan.sheet),
    }
    write_group(place, {"volseg": notes})


def draw_sheet(path: Path, volume: Path, name: str, explanation: Explanation) -> None:
    """Draw a contact sheet as a PNG file; a file that is there is replaced."""
    from matplotlib.figure import Figure

    sheet = draw_panels(open_image(volume), name, explanation)
    rows = -(-len(sheet.panels) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * INCHES, rows * (INCHES + 0.4) + 0.4), layout="constrained")
    for k, (axes, panel) in enumerate(
        zip(figure.subplots(rows, COLUMNS).flat, sheet.panels, strict=False)
    ):
        down, across = sheet.extent
        axes.imshow(panel.pixels, extent=(0, across, down, 0), interpolation="nearest")
        axes.set_title(panel.name)
        if k == 0:
            others = [a for n, a in enumerate("zyx") if n != sheet.axis]
            axes.set(ylabel=f"{others[0]} ({sheet.unit})", xlabel=f"{others[1]} ({sheet.unit})")
        else:
            axes.set(xticks=[], yticks=[])
    for axes in figure.axes[len(sheet.panels) :]:
        axes.set_axis_off()
    model = explanation.notes["model"]["name"]
    figure.suptitle(f"{volume.name}, {sheet.title}: what {model} goes by")
    save_figure(figure, path, parents=False)
