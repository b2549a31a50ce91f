"""Choose on the held-out data which objects count, and note it in the card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from volseg.geometry.grid import describe, roi_shape, roi_size, shift
from volseg.models.registry import Architecture
from volseg.stages.train.median import OBJECTS, neighbours, slices_apart
from volseg.storage.cards import Card, load_card, update_card
from volseg.storage.weights import load_network
from volseg.training.sampling import Source
from volseg.training.selection import (
    THRESHOLDS,
    Predicted,
    Selection,
    match_components,
    select_objects,
    select_sections,
)
from volseg.training.validation import (
    CORES,
    WINDOWS,
    annotated_slices,
    cut_windows,
    find_known,
    predict_window,
    whole_grid,
)
from volseg.types import FULL_PROBABILITY, Roi, zyx


def choose_objects(
    weights: Path,
    sources: Sequence[Source],
    device: torch.device,
    precision: torch.dtype,
    *,
    images: bool,
) -> Mapping[str, Any]:
    """Choose the smallest size and the lowest mean probability on the held-out regions.

    They become the card's `min_size` and `min_probability`, unless it has them; all is noted there.
    Where no two held-out slices are neighbours, objects are sections, and have no size: they choose
    the threshold and, if there are several slices, the lowest mean with it.

    Parameters
    ----------
    images : whether slices are unrelated images, so that objects have no depth.
    """
    card = load_card(weights)
    if OBJECTS in card.training:
        noted: Mapping[str, Any] = card.training[OBJECTS]
        return noted
    if images:
        return _note(weights, card, None, {"not chosen": "slices are unrelated images"})
    network = load_network(weights, card).to(device)
    regions = [region for source in sources if (region := whole_region(source))]
    if not regions:
        seen = [
            _predict_slice(network, source, region, card, precision)
            for source in sources
            for region in _single_slices(source)
        ]
        return _choose_sections(weights, card, seen)
    found = [predict_objects(network, *region, card, precision) for region in regions]
    chosen = select_objects(found, card.threshold)
    where = [describe(_in_volume(*region)) for region in regions]
    return _note(weights, card, chosen, {"regions": where})


def _choose_sections(
    weights: Path, card: Card, seen: Sequence[tuple[NDArray[np.uint8], NDArray[np.bool_]]]
) -> Mapping[str, Any]:
    """Choose threshold and lowest mean in slices of which no two are neighbours; note both."""
    others = () if card.maps else THRESHOLDS
    chosen = select_sections(seen, card.threshold, others)
    noted = {
        "by": f"Jaccard index of voxels in {len(seen)} single slice{'s' * (len(seen) > 1)}",
        "threshold": round(chosen.threshold, 6),
        "min_probability": chosen.min_probability,
        "Jaccard": round(chosen.jaccard, 4),
        "Jaccard of all objects": round(chosen.jaccard_of_all, 4),
    }
    changed = {name: noted[name] for name in ("threshold", "min_probability")}
    update_card(weights, {**changed, "training": {**card.training, OBJECTS: noted}})
    return noted


def _note(
    weights: Path, card: Card, chosen: Selection | None, noted: Mapping[str, Any]
) -> Mapping[str, Any]:
    changed: dict[str, Any] = {}
    if chosen is None:
        noted = {"not chosen": "no predicted object is right in the held-out regions", **noted}
    else:
        changed = {"min_size": chosen.min_size, "min_probability": chosen.min_probability}
        noted = {
            "by": "F1 of objects matched above IoU 0.5",
            "F1": round(chosen.f1, 4),
            "F1 of all objects": round(chosen.f1_of_all, 4),
            "in the truth": chosen.truth,
            "kept": chosen.kept,
            "right": chosen.right,
            **noted,
        }
    update_card(weights, {**changed, "training": {**card.training, OBJECTS: noted}})
    return noted


def whole_region(source: Source, most: int | None = None) -> tuple[Source, Roi] | None:
    """Find a part of a held-out region in which objects are whole, as large as a validation is.

    Parameters
    ----------
    most : voxels of the part, if fewer

    Returns
    -------
    source, roi
        The roi in voxels of the network, counted from the source's; None where no two
        neighbouring slices are annotated.
    """
    z, y, x = whole_grid(source)
    if source.slices is not None:
        runs = np.split(source.slices, np.flatnonzero(np.diff(source.slices) != 1) + 1)
        longest = max(runs, key=len) - source.roi[0].start
        first, stop = longest[0] / source.scale[0], (longest[-1] + 1) / source.scale[0]
        z = slice(math.ceil(first), math.floor(stop))
        if len(longest) < 2 or z.stop - z.start < 2:
            return None
    box = z, y, x
    limit = WINDOWS * math.prod(CORES[2 if source.planar else 3])
    scale = min((min(limit, most or limit) / roi_size(box)) ** (1 / 3), 1.0)
    a, b, c = (_centre(side, scale) for side in box)
    return source, (a, b, c)


def _predict_slice(
    network: nn.Module, source: Source, roi: Roi, card: Card, precision: torch.dtype
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Predict a slice, and take the median with those before and after it, if the card does."""
    levels, truth = predict_region(network, source, roi, card.form, precision)
    others = neighbours(source, roi, card.median_nm) if card.median_nm else []
    single = replace(source, slices=None)
    around = [predict_region(network, single, other, card.form, precision)[0] for other in others]
    middle = np.median([levels, *around], axis=0) if around else levels
    return middle.astype(np.uint8), truth


def _single_slices(source: Source) -> list[Roi]:
    """List the held-out slices, each by itself, as much of them as a validation looks at."""
    z, *sides = whole_grid(source)
    every, limit = annotated_slices(source), WINDOWS * math.prod(CORES[2])
    area = math.prod(side.stop for side in sides)
    y, x = (_centre(side, min((limit / area) ** 0.5, 1.0)) for side in sides)
    listed = np.arange(z.stop) if every is None else every
    count = max(limit // area, 1)
    chosen = listed[np.linspace(0, len(listed) - 1, min(count, len(listed))).round().astype(int)]
    return [(slice(z, z + 1), y, x) for z in chosen.tolist()]


def _in_volume(source: Source, region: Roi) -> Roi:
    """Find the voxels of the volume that a region of the network's grid covers."""
    axes = zip(source.roi, region, source.scale, strict=True)
    return zyx(
        slice(s.start + round(r.start * k), min(s.start + round(r.stop * k), s.stop))
        for s, r, k in axes
    )


def _centre(side: slice, scale: float) -> slice:
    kept = max(int((side.stop - side.start) * scale), 1)
    start = side.start + (side.stop - side.start - kept) // 2
    return slice(start, start + kept)


def predict_objects(
    network: nn.Module, source: Source, roi: Roi, card: Card, precision: torch.dtype
) -> Predicted:
    """Predict a region, and match its objects with those of the labels.

    Sizes are in voxels of the network's size, whatever the thickness of the slices that it saw. The
    card tells threshold and median; at the ends of the region a slice stands for those beyond it.
    """
    levels, truth = predict_region(network, source, roi, card.form, precision)
    if step := slices_apart(source, card.median_nm):
        z, last = np.arange(len(levels)), len(levels) - 1
        around = [levels[(z + k).clip(0, last)] for k in (-step, 0, step)]
        levels = np.median(around, axis=0).astype(np.uint8)
    found = match_components(levels, truth, math.ceil(card.threshold * FULL_PROBABILITY))
    return replace(found, voxels=np.rint(found.voxels * source.depth).astype(np.int64))


def predict_region(
    network: nn.Module, source: Source, roi: Roi, form: Architecture, precision: torch.dtype
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Predict a region, window by window; what nobody annotated holds no objects.

    Returns
    -------
    levels, truth : uint8 and bool, shape of the region; 255 stands for a probability of 1.
    """
    levels: NDArray[np.uint8] = np.empty(roi_shape(roi), np.uint8)
    truth: NDArray[np.bool_] = np.empty(levels.shape, bool)
    for window in cut_windows(roi, CORES[form.dimensions]):
        probabilities, inside_truth = predict_window(network, source, window, form, precision)
        inside = shift(window, [side.start for side in roi])
        known = find_known(source, window)
        seen = probabilities if known is None else probabilities * known
        levels[inside] = (seen * FULL_PROBABILITY).round()
        truth[inside] = inside_truth
    return levels, truth
