"""Choose on the held-out data how objects that touch are told apart, and note it in the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.geometry.grid import roi_shape, roi_size, shift
from volseg.models.maps import CONTOUR, DISTANCE, OFFSET, MapSpec, find_map, find_vector
from volseg.objects.splitting import Splitter
from volseg.stages.train.held_out import HeldOut
from volseg.stages.train.objects import whole_region
from volseg.storage.cards import Card, update_card
from volseg.training.sampling import Source
from volseg.training.splitting import CUBE, Touching, choose_seeds, choose_votes
from volseg.training.validation import (
    CORES,
    annotated_slices,
    cut_windows,
    predict_maps,
    validation_windows,
    whole_grid,
)
from volseg.types import FULL_PROBABILITY, Probabilities, Roi

MOST = 1 << 21
"""Voxels of all regions together: sixty settings are tried, at two seconds a megavoxel."""


def choose_splitting(held: HeldOut) -> None:
    """Choose the seeds of every class that has contours or offsets, unless the card has them."""
    card = held.card
    wanted = [
        m
        for m in card.maps
        if m.is_class
        and (find_map(card.maps, CONTOUR, m.of) is not None or find_vector(card.maps, m.of))
    ]
    if card.splitting or not wanted:
        return
    regions = _all_regions(held)
    maps = [_predict(held, source, roi) for source, roi in regions]
    chosen: dict[str, Any] = {}
    for spec in wanted:
        truth = [_truth(source, roi, spec, card.maps) for source, roi in regions]
        if any(each.any() for each in truth):
            found = _choose(card, spec, list(zip(maps, truth, strict=True)), images=held.images)
            chosen[spec.name] = {**found, "voxel_size": list(card.voxel_size)}
    update_card(held.weights, {"splitting": chosen})


def _choose(
    card: Card,
    spec: MapSpec,
    regions: Sequence[tuple[Probabilities, NDArray[np.int64]]],
    *,
    images: bool,
) -> dict[str, float]:
    """Choose how objects of a class are split by each kind of its maps."""
    place, sides, settings = card.maps.index(spec), card.voxel_size, dict[str, float]()
    rules = card.rules_of(place)
    smallest = 0 if images else rules.min_size
    z, y, x = (side / min(sides) for side in sides)

    def guided(places: Sequence[int | None]) -> list[Touching]:
        kept = [place, *(k for k in places if k is not None)]
        return [Touching(tuple(found[k] for k in kept), truth) for found, truth in regions]

    lines = [find_map(card.maps, kind, spec.name) for kind in (CONTOUR, DISTANCE)]
    if lines[0] is not None:
        seeds = choose_seeds(guided(lines), rules.threshold, spacing=(z, y, x), smallest=smallest)
        settings |= asdict(seeds)
    if vector := find_vector(card.maps, spec.name):
        a, b, c = (card.maps[vector[0]].reach_nm / side for side in sides)
        flat = card.form.dimensions == 2
        splitter = Splitter(OFFSET, (z, y, x), smallest=smallest, reach=(0.0 if flat else a, b, c))
        settings |= choose_votes(guided(vector[flat:]), rules.threshold, splitter)
    return {name: round(value, 4) for name, value in settings.items()}


def _all_regions(held: HeldOut) -> list[tuple[Source, Roi]]:
    """List regions in which objects are whole: images, or the middle of volumes; `MOST` at most."""
    if not held.images:
        most = max(MOST // len(held.sources), 1)
        wholes = [whole_region(source, most) for source in held.sources]
        return [whole for whole in wholes if whole is not None]
    core = CORES[held.form.dimensions]
    found = [
        (source, window)
        for source in held.sources
        for window in validation_windows(whole_grid(source), core, annotated_slices(source))
    ]
    return found[:: max(-(-sum(roi_size(window) for _, window in found) // MOST), 1)]


def _predict(held: HeldOut, source: Source, roi: Roi) -> Probabilities:
    """Predict all maps of a region; uint8, shape (maps, z, y, x)."""
    found: Probabilities | None = None
    for window in cut_windows(roi, CORES[held.form.dimensions]):
        maps = predict_maps(held.network, source, window, held.form, held.precision)[0]
        if found is None:
            found = np.empty((len(maps), *roi_shape(roi)), np.uint8)
        found[:, *shift(window, [s.start for s in roi])] = (maps * FULL_PROBABILITY).round()
    return np.zeros((0, 0, 0, 0), np.uint8) if found is None else found


def _truth(source: Source, roi: Roi, spec: MapSpec, maps: Sequence[MapSpec]) -> NDArray[np.int64]:
    """Read the objects of a class at the network's voxels; components, where labels are a mask."""
    if source.targets is None:
        return np.zeros(roi_shape(roi), np.int64)
    labels = source.targets.classes[list(maps).index(spec)]
    places = [
        (np.floor((np.arange(r.start, r.stop) + 0.5) * scale).astype(int) + s.start).clip(
            max=s.stop - 1
        )
        for r, s, scale in zip(roi, source.roi, source.scale, strict=True)
    ]
    z, y, x = (slice(int(p[0]), int(p[-1]) + 1) for p in places)
    found = labels[z, y, x]
    for axis, place in enumerate(places):
        found = np.take(found, place - place[0], axis)
    if len(np.unique(found[found > 0])) < 2:
        found = ndimage.label(found > 0, CUBE)[0]
    return np.asarray(found, np.int64)
