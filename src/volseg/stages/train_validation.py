"""Validate a network on held-out regions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from volseg.blocks import grow, roi_shape, shift
from volseg.intensity import normalise
from volseg.training.sampling import Source
from volseg.types import Roi, Zyx

CORE: Zyx = (24, 96, 96)
"""What a window scores at most."""
CONTEXT: Zyx = (4, 16, 16)
"""What a window sees beyond that on every side."""
WINDOWS = 48
"""At most this many windows of a region are looked at, spread over it evenly."""


@dataclass(frozen=True)
class Validation:
    """The best Jaccard index over all thresholds, and that threshold, in 0..1."""

    jaccard: float
    threshold: float


def validation_windows(roi: Roi) -> list[Roi]:
    """Cut a region into windows, and spread a choice of them over it evenly.

    Examples
    --------
    >>> [w[0] for w in validation_windows((slice(10, 50), slice(0, 96), slice(0, 50)))]
    [slice(10, 34, None), slice(34, 50, None)]
    """
    cuts = (
        [slice(o, min(o + n, s.stop)) for o in range(s.start, s.stop, n)]
        for s, n in zip(roi, CORE, strict=True)
    )
    every = [(z, y, x) for z, y, x in itertools.product(*cuts)]
    chosen = np.linspace(0, len(every) - 1, min(WINDOWS, len(every))).round().astype(int)
    return [every[k] for k in chosen]


@torch.no_grad()
def count_window(
    network: nn.Module, source: Source, window: Roi, multiple: Zyx, precision: torch.dtype
) -> NDArray[np.int64]:
    """Count a window's voxels by probability, shape (2, 256): background and foreground.

    Context comes from the volume around, and is reflected where that ends.
    """
    device = next(network.parameters()).device
    shape = tuple(source.raw.shape)
    box = grow(window, CONTEXT, (shape[0], shape[1], shape[2]))
    raw = normalise(np.asarray(source.raw[box]), source.window)
    missing = [(0, -n % m) for n, m in zip(roi_shape(box), multiple, strict=True)]
    tile = torch.from_numpy(np.pad(raw, missing, mode="reflect"))[None, None].to(device)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        logits = network(tile.contiguous(memory_format=torch.channels_last_3d))
    inner = shift(window, [s.start for s in box])
    level = (logits[0, 0].float().sigmoid() * 255).round().byte().cpu().numpy()[inner]
    truth = np.asarray(source.labels[window]) > 0
    return np.stack([np.bincount(level[truth == side], minlength=256) for side in (False, True)])


def validate(
    network: nn.Module, sources: Sequence[Source], multiple: Zyx, precision: torch.dtype
) -> Validation:
    """Measure the Jaccard index on held-out regions, at the best of 254 thresholds.

    Parameters
    ----------
    network : Module
        Is put in evaluation mode.
    sources : of which the rois are held out.
    multiple : input sizes must be multiples of it.
    precision : that the network runs in.
    """
    network.eval()
    histogram = np.zeros((2, 256), np.int64)
    for source in sources:
        for window in validation_windows(source.roi):
            histogram += count_window(network, source, window, multiple, precision)
    return best_threshold(histogram)


def best_threshold(histogram: NDArray[np.int64]) -> Validation:
    """Find the threshold with the best Jaccard index.

    Parameters
    ----------
    histogram : int64, shape (2, 256)
        Voxels of the background and of the foreground at each probability.

    Examples
    --------
    >>> histogram = np.zeros((2, 256), np.int64)
    >>> histogram[0, 10], histogram[1, 51], histogram[0, 51] = 9, 3, 1
    >>> best = best_threshold(histogram)
    >>> best.jaccard, round(best.threshold * 255)
    (0.75, 31)
    """
    above = histogram[:, ::-1].cumsum(axis=1)[:, ::-1]
    jaccard = above[1] / np.maximum(histogram[1].sum() + above[0], 1)
    # All thresholds between two occupied levels do the same: the middle one is the safest.
    best = np.flatnonzero(jaccard[1:255] == jaccard[1:255].max()) + 1
    middle = int(best[len(best) // 2])
    return Validation(float(jaccard[middle]), middle / 255)
