"""Find where a network is wrong on its training data, to draw patches there (hard negatives)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from volseg.models.registry import Architecture
from volseg.training.sampling import Source
from volseg.training.validation import (
    CORES,
    annotated_slices,
    cut_windows,
    find_known,
    predict_window,
    whole_grid,
)
from volseg.types import Floats, Mask, Roi

WINDOWS = 6
"""Windows of each source that are looked at."""
KEPT = 256
"""Wrong voxels that are kept, of each source."""
EDGE = 4
"""Voxels from the edge of the truth within which nothing counts as wrong: annotators differ."""


def find_hard_examples(
    network: nn.Module,
    sources: Sequence[Source],
    form: Architecture,
    precision: torch.dtype,
    seed: Sequence[int],
) -> list[NDArray[np.int64]]:
    """Find voxels of each source that a network takes for what they are not.

    Parameters
    ----------
    network : is put in evaluation mode.
    seed : of the choice of windows and voxels.

    Returns
    -------
    list of int64, shape (k, 3); positions in each source's volume.
    """
    network.eval()
    rng, found = np.random.default_rng([*seed, 1]), []
    for source in sources:
        every = cut_windows(whole_grid(source), CORES[form.dimensions], annotated_slices(source))
        chosen = rng.choice(len(every), min(WINDOWS, len(every)), replace=False)
        places = [np.zeros((0, 3), np.int64)]
        for k in chosen.tolist():
            window = every[k]
            missed = wrong(*predict_window(network, source, window, form, precision))
            if (known := find_known(source, window)) is not None:
                missed &= known
            places.append(in_volume(source, window, np.argwhere(missed)))
        wrongs = np.concatenate(places)
        kept = rng.choice(len(wrongs), min(KEPT, len(wrongs)), replace=False)
        found.append(wrongs[np.sort(kept)])
    return found


def wrong(predicted: Floats, truth: Mask) -> Mask:
    """Mark the voxels on the wrong side of a probability of 0.5, but for the truth's edge.

    Examples
    --------
    >>> truth = np.zeros((1, 32, 32), bool)
    >>> truth[0, :12, :12] = True
    >>> predicted = np.zeros(truth.shape, np.float32)
    >>> predicted[0, :14, :14] = predicted[0, 25, 25] = 1
    >>> np.argwhere(wrong(predicted, truth)).tolist()
    [[0, 25, 25]]
    """
    reach = [min(EDGE, n - 1) for n in truth.shape]
    near = [2 * r + 1 for r in reach]
    edge = ndimage.maximum_filter(truth, near) != ndimage.minimum_filter(truth, near)
    marked: Mask = ((predicted >= 0.5) != truth) & ~edge
    return marked


def in_volume(source: Source, window: Roi, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Convert places in a window of the network's grid to positions in the source's volume."""
    start = np.array([w.start for w in window])
    first = np.array([s.start for s in source.roi])
    last = np.array([s.stop - 1 for s in source.roi])
    at = first + (places + start + 0.5) * source.scale - 0.5
    positions: NDArray[np.int64] = np.rint(at).astype(np.int64).clip(first, last)
    if source.slices is not None and len(positions):
        apart = np.abs(source.slices[None] - positions[:, :1])
        positions[:, 0] = source.slices[apart.argmin(axis=1)]
    return positions
