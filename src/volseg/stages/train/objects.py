"""Choose on the held-out data which objects count, and note it in the card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import describe, roi_size
from volseg.stages.train.held_out import HeldOut
from volseg.stages.train.median import OBJECTS, neighbours, slices_apart
from volseg.training.sampling import Source
from volseg.training.selection import (
    THRESHOLDS,
    Predicted,
    Selection,
    match_components,
    select_objects,
    select_sections,
)
from volseg.training.validation import CORES, WINDOWS, annotated_slices, whole_grid
from volseg.types import Mask, Roi, level_of, zyx


def choose_objects(held: HeldOut) -> Mapping[str, Any]:
    """Choose the smallest size and the lowest mean probability on the held-out regions.

    They become the card's `min_size` and `min_probability`, unless it has them; all is noted there.
    Where no two held-out slices are neighbours, objects are sections, and have no size: they choose
    the threshold and, if there are several slices, the lowest mean with it.
    """
    card = held.card
    if OBJECTS in card.training:
        noted: Mapping[str, Any] = card.training[OBJECTS]
        return noted
    if held.images:
        return _note(held, None, {"not chosen": "slices are unrelated images"})
    regions = [region for source in held.sources if (region := whole_region(source))]
    if not regions:
        return _choose_sections(held)
    found = [predict_objects(held, *region) for region in regions]
    chosen = select_objects(found, card.threshold)
    where = [describe(_in_volume(*region)) for region in regions]
    return _note(held, chosen, {"regions": where})


def _choose_sections(held: HeldOut) -> Mapping[str, Any]:
    """Choose threshold and lowest mean in slices of which no two are neighbours; note both."""
    seen = [_predict_slice(held, s, region) for s in held.sources for region in _single_slices(s)]
    others = () if held.card.maps else THRESHOLDS
    chosen = select_sections(seen, held.card.threshold, others)
    noted = {
        "by": f"Jaccard index of voxels in {len(seen)} single slice{'s' * (len(seen) > 1)}",
        "threshold": round(chosen.threshold, 6),
        "min_probability": chosen.min_probability,
        "Jaccard": round(chosen.jaccard, 4),
        "Jaccard of all objects": round(chosen.jaccard_of_all, 4),
    }
    held.note(OBJECTS, noted, {name: noted[name] for name in ("threshold", "min_probability")})
    return noted


def _note(held: HeldOut, chosen: Selection | None, noted: Mapping[str, Any]) -> Mapping[str, Any]:
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
    held.note(OBJECTS, noted, changed)
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


def _predict_slice(held: HeldOut, source: Source, roi: Roi) -> tuple[NDArray[np.uint8], Mask]:
    """Predict a slice, and take the median with those before and after it, if the card does."""
    levels, truth = held.predict_region(source, roi)
    apart = held.card.median_nm
    others = neighbours(source, roi, apart) if apart else []
    single = replace(source, slices=None)
    around = [held.predict_region(single, other)[0] for other in others]
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


def predict_objects(held: HeldOut, source: Source, roi: Roi) -> Predicted:
    """Predict a region, and match its objects with those of the labels.

    Sizes are in voxels of the network's size, whatever the thickness of the slices that it saw. The
    card tells threshold and median; at the ends of the region a slice stands for those beyond it.
    """
    card, (levels, truth) = held.card, held.predict_region(source, roi)
    if step := slices_apart(source, card.median_nm):
        z, last = np.arange(len(levels)), len(levels) - 1
        around = [levels[(z + k).clip(0, last)] for k in (-step, 0, step)]
        levels = np.median(around, axis=0).astype(np.uint8)
    found = match_components(levels, truth, level_of(card.threshold))
    return replace(found, voxels=np.rint(found.voxels * source.depth).astype(np.int64))
