"""Scores beside those of voxels: the loss of held-out patches, objects, and the training data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from volseg.geometry.grid import full_roi
from volseg.scores.contingency import Contingency, count_pairs, merge_tables, without_small
from volseg.scores.matching import find_matches, find_overlaps, mean_precision, score_objects
from volseg.stages.train.held_out import HeldOut
from volseg.stages.train.sources import within_images
from volseg.stages.train.state import Run
from volseg.storage.cards import update_card
from volseg.training.augmentation import Augmentation
from volseg.training.loader import Batch, draw_batch
from volseg.training.network import learns_centerlines
from volseg.training.sampling import Source
from volseg.training.validation import (
    CORES,
    annotated_slices,
    find_known,
    predict_window,
    validate,
    validation_windows,
    whole_grid,
)

PATCHES = 8
"""Batches of held-out patches, at the same places each time, whose loss is averaged."""
WINDOWS = 12
"""Windows of each held-out source, at most, in which objects are matched."""
SMALLEST = 8
"""Voxels of the smallest object that counts; what a window cuts is no whole one."""
MATCHED = 0.5
APART = 1 << 32
CHANCES = [f.name for f in fields(Augmentation) if f.name.endswith("_probability")]
STILL = Augmentation(**dict[str, Any]((name, 0.0) for name in CHANCES))
"""Patches as they are."""


@torch.no_grad()
def held_out_loss(
    run: Run, sources: Sequence[Source], loss: Callable[[Run, Batch], Tensor]
) -> float:
    """Evaluate the loss that is trained on, for patches of the held-out data that nothing changes.

    They are drawn as those of training are, so both are the same quantity.
    """
    seen = replace(run, network=run.averaged.eval())
    config = replace(run.config, augmentation=STILL, hard_share=0.0)
    lines = learns_centerlines(config)
    losses = []
    for step in range(PATCHES):
        batch = draw_batch(sources, config, step, centerline=lines)
        losses.append(float(loss(seen, batch)))
    return float(np.mean(losses))


def score_held_out(run: Run, sources: Sequence[Source], threshold: float) -> dict[str, float]:
    """Match objects in windows of the held-out data, those of a window by themselves.

    Returns
    -------
    dict
        Precision and recall at IoU 0.5, and the means over IoU of TP / (TP + FP + FN), and of
        TP / (TP + FP), which is what some call mean average precision.
    """
    from scipy import ndimage  # heavy, and only a validation needs it

    run.averaged.eval()
    tables, joined = list[Contingency](), np.ones((3, 3, 3))
    for source in sources:
        grid, slices = whole_grid(source), annotated_slices(source)
        windows = validation_windows(grid, CORES[run.form.dimensions], slices)
        chosen = np.linspace(0, len(windows) - 1, min(WINDOWS, len(windows))).round().astype(int)
        for window in (windows[k] for k in chosen):
            found, truth = predict_window(run.averaged, source, window, run.form, run.precision)
            known = find_known(source, window)
            # what nobody annotated is neither right nor wrong
            masks = [m if known is None else m & known for m in (truth, found >= threshold)]
            named = [ndimage.label(mask, joined)[0].astype(np.int64) for mask in masks]
            first = len(tables) * APART  # labels of windows are no others'
            ours, theirs = (np.where(n > 0, n + first, 0) for n in named)
            tables.append(count_pairs(ours, theirs, full_roi(found.shape)))
    overlaps = find_overlaps(without_small(merge_tables(tables), SMALLEST))
    objects = score_objects(overlaps, find_matches(overlaps, MATCHED))
    mean = mean_precision(overlaps)
    scores = {
        "object_precision": objects.precision,
        "object_recall": objects.recall,
        "average_precision": mean.average_precision,
        "mean_average_precision": mean.precision,
    }
    return {name: round(float(np.nan_to_num(value)), 6) for name, value in scores.items()}


def note_training_scores(held: HeldOut, training: Sequence[Source]) -> Mapping[str, float]:
    """Score the weights on what they were trained on, and note it in their card."""
    card = held.card
    names = ("jaccard", "precision", "recall")
    if not {_title(name) for name in names} <= set(card.scores):
        own = [within_images(source) for source in training]
        found = validate(held.network, own, held.form, held.precision)[0]
        noted = {_title(name): round(getattr(found, name), 6) for name in names}
        card = update_card(held.weights, {"scores": {**card.scores, **noted}})
    return {name: float(card.scores[_title(name)]) for name in names}


def _title(name: str) -> str:
    return f"training {'Jaccard' if name == 'jaccard' else name}"
