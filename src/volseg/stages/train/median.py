"""Choose on the held-out data whether the median of slices is taken, and note it in the card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from volseg.stages.train.held_out import HeldOut
from volseg.training.sampling import Source
from volseg.training.selection import CHANCE
from volseg.training.validation import (
    CORES,
    annotated_slices,
    find_known,
    validation_windows,
    whole_grid,
)
from volseg.types import Roi

CHOSEN, OBJECTS = "median of slices", "objects"
"""Keys under which a card's training says what the median did to held-out slices, and how the rules
for objects were chosen, which are those of its median."""
DISTANCE_NM = 35.0
"""From a slice to those before and after it (decision 0084)."""


def choose_median(held: HeldOut) -> Mapping[str, Any]:
    """Choose whether the card asks for the median of slices: where held-out slices gain by it.

    Only networks of slices with one class may gain. Neighbours are predicted, too, and need no
    annotation. A card whose rules for objects were chosen before stays as it is.

    Returns
    -------
    What the card notes: the Jaccard index without the median and with it; empty where neither is
    known.
    """
    card, chosen = held.card, {CHOSEN, OBJECTS} & set(held.card.training)
    if chosen or held.images or held.form.dimensions == 3 or card.maps:
        noted: Mapping[str, Any] = card.training.get(CHOSEN, {})
        return noted
    counts = np.zeros((2, 3), np.int64)
    for source in held.sources:
        single = replace(source, slices=None)  # neighbours need no annotation
        windows = validation_windows(
            whole_grid(source), (1, *CORES[2][1:]), annotated_slices(source)
        )
        for window in windows:
            if not (others := neighbours(source, window, DISTANCE_NM)):
                continue
            seen, truth = held.predict(source, window)
            around = [held.predict(single, other)[0] for other in others]
            known = find_known(source, window)
            inside = np.ones(truth.shape, bool) if known is None else known
            for k, found in enumerate((seen, np.median([seen, *around], axis=0))):
                kept = found >= card.threshold
                each = kept & truth, kept & ~truth, ~kept & truth
                counts[k] += [np.count_nonzero(cells & inside) for cells in each]
    if not counts[:, [0, 2]].sum():
        return {}
    without, having = (right / max(right + wrong + lost, 1) for right, wrong, lost in counts)
    distance = DISTANCE_NM if having >= without + CHANCE else 0.0
    noted = {"nm": distance, "Jaccard": round(without, 4), "with the median": round(having, 4)}
    held.note(CHOSEN, noted, {"median_nm": distance})
    return noted


def neighbours(source: Source, window: Roi, nm: float) -> list[Roi]:
    """Move a window of one slice both ways by a distance, no further than the volume goes.

    None where no other slice is as near as that.
    """
    if not (step := slices_apart(source, nm)):
        return []
    first = math.ceil(-source.roi[0].start / source.scale[0])
    last = math.floor((source.raw.shape[0] - source.roi[0].start) / source.scale[0]) - 1
    moved = [min(max(window[0].start + k, first), last) for k in (-step, step)]
    return [(slice(z, z + 1), *window[1:]) for z in moved]


def slices_apart(source: Source, nm: float) -> int:
    """Count the slices of the network that lie in a distance."""
    return round(nm / (source.size[0] * source.depth))
