"""Choose on the held-out data whether the median of slices is taken, and note it in the card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from volseg.storage.cards import load_card, update_card
from volseg.storage.weights import load_network
from volseg.training.sampling import Source
from volseg.training.selection import CHANCE
from volseg.training.validation import (
    CORES,
    annotated_slices,
    find_known,
    predict_window,
    validation_windows,
    whole_grid,
)
from volseg.types import Roi

CHOSEN, OBJECTS = "median of slices", "objects"
"""Keys under which a card's training says what the median did to held-out slices, and how the rules
for objects were chosen, which are those of its median."""
DISTANCE_NM = 35.0
"""From a slice to those before and after it (decision 0084)."""


def choose_median(
    weights: Path,
    sources: Sequence[Source],
    device: torch.device,
    precision: torch.dtype,
    *,
    images: bool,
) -> Mapping[str, Any]:
    """Choose whether the card asks for the median of slices: where held-out slices gain by it.

    Only networks of slices with one class may gain. Neighbours are predicted, too, and need no
    annotation. A card whose rules for objects were chosen before stays as it is.

    Parameters
    ----------
    images : whether slices are unrelated images.

    Returns
    -------
    What the card notes: the Jaccard index without the median and with it; empty where neither is
    known.
    """
    card = load_card(weights)
    form = card.form
    if {CHOSEN, OBJECTS} & set(card.training) or images or form.dimensions == 3 or card.maps:
        noted: Mapping[str, Any] = card.training.get(CHOSEN, {})
        return noted
    network = load_network(weights, card).to(device)
    counts = np.zeros((2, 3), np.int64)
    for source in sources:
        single = replace(source, slices=None)  # neighbours need no annotation
        windows = validation_windows(
            whole_grid(source), (1, *CORES[2][1:]), annotated_slices(source)
        )
        for window in windows:
            if not (others := neighbours(source, window, DISTANCE_NM)):
                continue
            seen, truth = predict_window(network, source, window, form, precision)
            around = [predict_window(network, single, w, form, precision)[0] for w in others]
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
    training = {**card.training, CHOSEN: noted}
    update_card(weights, {"median_nm": distance, "training": training})
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
