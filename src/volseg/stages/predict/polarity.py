"""Polarity: a hint where a network that finds little finds much in the inverted data."""

from __future__ import annotations

import numpy as np

from volseg.geometry.grid import full_roi
from volseg.models.registry import find_architecture
from volseg.stages.predict.plan import PredictPlan
from volseg.stages.predict.tasks import predictor_for
from volseg.storage.volumes import open_image
from volseg.types import FULL_PROBABILITY, Floats
from volseg.voxels.blend import reflected

LITTLE = 0.05
"""Mean probability of a volume below which its polarity is looked at."""
MUCH, MORE = 0.05, 5
"""Part of the middle found in the inverted data, and how many times what is found as they are."""
LOOKED_AT = (16, 128, 128)
"""Network voxels of the middle that are looked at."""


def hint_inverted(plan: PredictPlan) -> tuple[str, ...]:
    """Say if a complete prediction holds little, and would hold much of inverted data."""
    if plan.engine.elsewhere:
        return ()
    coarse = open_image(plan.mask.path).levels[-1]
    if coarse[full_roi(coarse.shape)].mean() >= LITTLE * FULL_PROBABILITY:
        return ()
    tile = _cut_middle(plan)
    if tile is None:
        return ()
    # a window maps inverted intensities to their negatives
    plain, inverted = (_part_found(plan, seen) for seen in (tile, -tile))
    if inverted < max(MUCH, MORE * plain):
        return ()
    other = "leave --invert out" if plan.options.invert else "give --invert"
    hint = f"{plain:.0%} of the middle were found, but {inverted:.0%} if it is inverted"
    return (f"{hint}: if membranes are bright, {other}",)


def _cut_middle(plan: PredictPlan) -> Floats | None:
    """Cut out what a tile in the middle sees; None where there is no tissue."""
    form = find_architecture(plan.card.architecture).viewed(plan.choice.views)
    indices = []
    for size, margin, n in zip(
        form.fit(LOOKED_AT), plan.margin, plan.image.levels[plan.level].shape, strict=True
    ):
        start = (n - size) // 2 - margin
        indices.append(reflected(start, start + size + 2 * margin, n))
    z, y, x = (slice(int(i.min()), int(i.max()) + 1) for i in indices)
    return plan.known_look.read((z, y, x)).cut(indices)


def _part_found(plan: PredictPlan, tile: Floats) -> float:
    found = predictor_for(plan.choice)(np.ascontiguousarray(tile))
    mask = found.reshape(-1, *found.shape[-3:])[0]
    return float((mask >= plan.card.threshold).mean())
