"""Choose, when a network is trained, which of its objects to keep, and note it in its card."""

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

from volseg.geometry.grid import describe, roi_shape, roi_size
from volseg.models.registry import Architecture, find_architecture
from volseg.storage.weights import Card, load_card, load_weights, update_card
from volseg.training.sampling import Source
from volseg.training.selection import Predicted, Selection, match_components, select_objects
from volseg.training.validation import (
    CORES,
    WINDOWS,
    cut_windows,
    predict_window,
    whole_grid,
)
from volseg.types import FULL_PROBABILITY, Roi

CHOSEN = "objects"
"""The key under which a card's training says how the rules for objects were chosen."""


def choose_objects(
    weights: Path,
    sources: Sequence[Source],
    device: torch.device,
    precision: torch.dtype,
    *,
    images: bool,
) -> Mapping[str, Any]:
    """Choose the smallest size and the lowest mean probability on the held-out regions.

    They become the card's `min_size` and `min_probability`, unless it has them already. What
    was looked at, and how well it went, is noted in the card.

    Parameters
    ----------
    weights : of a run that has ended, with their card.
    sources : of which the regions are held out.
    device, precision : that the network runs on and in.
    images : whether slices are unrelated images, so that objects have no depth.

    Returns
    -------
    mapping
        What the card says of it, JSON-like.

    Raises
    ------
    StorageError
        If the card cannot be written.
    """
    card = load_card(weights)
    if CHOSEN in card.training:
        noted: Mapping[str, Any] = card.training[CHOSEN]
        return noted
    regions = [] if images else [region for s in sources if (region := whole_region(s))]
    if not regions:
        why = "slices are unrelated images" if images else "no two held-out slices are neighbours"
        return _note(weights, card, None, {"not chosen": why})
    form = find_architecture(card.architecture)
    network = form.build(card.width)
    network.load_state_dict(load_weights(weights, card))
    network = network.to(device).eval()
    level = math.ceil(card.threshold * FULL_PROBABILITY)
    found = [predict_objects(network, s, r, form, precision, level) for s, r in regions]
    chosen = select_objects(found, card.threshold)
    return _note(weights, card, chosen, {"regions": [describe(in_volume(*r)) for r in regions]})


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
    update_card(weights, {**changed, "training": {**card.training, CHOSEN: noted}})
    return noted


def whole_region(source: Source) -> tuple[Source, Roi] | None:
    """Find a part of a held-out region in which objects are whole, as large as a validation is.

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
    most = WINDOWS * math.prod(CORES[2 if source.planar else 3])
    scale = min((most / roi_size(box)) ** (1 / 3), 1.0)
    a, b, c = (_centre(side, scale) for side in box)
    return source, (a, b, c)


def in_volume(source: Source, region: Roi) -> Roi:
    """Find the voxels of the volume that a region of the network's grid covers."""
    axes = zip(source.roi, region, source.scale, strict=True)
    z, y, x = (
        slice(s.start + round(r.start * k), min(s.start + round(r.stop * k), s.stop))
        for s, r, k in axes
    )
    return z, y, x


def _centre(side: slice, scale: float) -> slice:
    length = side.stop - side.start
    kept = max(int(length * scale), 1)
    start = side.start + (length - kept) // 2
    return slice(start, start + kept)


def predict_objects(
    network: nn.Module,
    source: Source,
    roi: Roi,
    form: Architecture,
    precision: torch.dtype,
    level: int,
) -> Predicted:
    """Predict a region, window by window, and match its objects with those of the labels.

    Sizes are in voxels of the network's size, whatever the thickness of the slices that it saw.
    """
    levels: NDArray[np.uint8] = np.empty(roi_shape(roi), np.uint8)
    truth: NDArray[np.bool_] = np.empty(levels.shape, bool)
    for window in cut_windows(roi, CORES[form.dimensions]):
        probabilities, inside_truth = predict_window(network, source, window, form, precision)
        inside = tuple(
            slice(w.start - s.start, w.stop - s.start) for w, s in zip(window, roi, strict=True)
        )
        levels[inside] = (probabilities * FULL_PROBABILITY).round()
        truth[inside] = inside_truth
    found = match_components(levels, truth, level)
    return replace(found, voxels=np.rint(found.voxels * source.depth).astype(np.int64))
