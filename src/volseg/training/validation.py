"""Validate a network on held-out regions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from volseg.geometry.grid import full_roi, roi_shape
from volseg.models.logits import as_binary
from volseg.models.maps import OFFSETS, count_exclusive
from volseg.models.registry import Architecture
from volseg.scores.curves import LEVELS, count_probabilities, middle_of_best, score_curves
from volseg.training.augmentation import Placement
from volseg.training.network import feed
from volseg.training.sampling import Source, read_tissue
from volseg.training.tissue import MAPS, MASK, RAW, UNKNOWN, locate, needed
from volseg.types import Floats, Mask, Roi, Zyx, probability_of, zyx

CORES: dict[int, Zyx] = {2: (4, 256, 256), 3: (24, 96, 96)}
"""Largest part of a window that is scored, by the network's dimensions."""
CONTEXTS: dict[int, Zyx] = {2: (0, 32, 32), 3: (4, 16, 16)}
"""Context around that part on every side."""
WINDOWS = 48
"""At most this many windows of a source are looked at, spread over it evenly."""


@dataclass(frozen=True)
class Validation:
    """Result of a validation.

    Attributes
    ----------
    jaccard, threshold : the best Jaccard index over all thresholds, and that one, in 0..1, as short
        as tells it from others.
    cross_entropy : mean over the voxels, in nats; probabilities are known to 1 in 255.
    precision, recall : of voxels at that threshold; recall is 0 without foreground.
    error : of offsets alone, the mean distance from the truth, as a part of 1.
    """

    jaccard: float
    threshold: float
    cross_entropy: float
    precision: float
    recall: float
    error: float = 0.0


def validation_windows(
    roi: Roi, core: Zyx = CORES[3], slices: NDArray[np.int64] | None = None
) -> list[Roi]:
    """Cut a region into windows, and spread a choice of them over it evenly.

    Parameters
    ----------
    core : (z, y, x); largest shape of a window.
    slices : int64, shape (k,), optional; the z that are annotated; windows are then one slice deep.

    Examples
    --------
    >>> [w[0] for w in validation_windows((slice(10, 50), slice(0, 96), slice(0, 50)))]
    [slice(10, 34, None), slice(34, 50, None)]
    """
    every = cut_windows(roi, core, slices)
    chosen = np.linspace(0, len(every) - 1, min(WINDOWS, len(every))).round().astype(int)
    return [every[k] for k in chosen]


def cut_windows(
    roi: Roi, core: Zyx = CORES[3], slices: NDArray[np.int64] | None = None
) -> list[Roi]:
    """Cut a region into windows, in raster order; see `validation_windows`."""
    cuts = [
        [slice(o, min(o + n, s.stop)) for o in range(s.start, s.stop, n)]
        for s, n in zip(roi, core, strict=True)
    ]
    if slices is not None:
        cuts[0] = [slice(z, z + 1) for z in slices.tolist()]
    return [(z, y, x) for z, y, x in itertools.product(*cuts)]


def grid_shape(source: Source) -> Zyx:
    """Count the voxels of the network that a source's roi holds, (z, y, x)."""
    lengths = zip(roi_shape(source.roi), source.scale, strict=True)
    return zyx(max(round(n / s), 1) for n, s in lengths)


def whole_grid(source: Source) -> Roi:
    """Return all of a source's roi, in voxels of the network counted from its start."""
    return full_roi(grid_shape(source))


def annotated_slices(source: Source) -> NDArray[np.int64] | None:
    """List the slices of the network that hold an annotated one; None where all do."""
    if source.slices is None:
        return None
    middles = source.slices - source.roi[0].start + 0.5
    return np.unique((middles / source.scale[0]).astype(np.int64)).clip(
        max=grid_shape(source)[0] - 1
    )


def read_window(source: Source, window: Roi, context: Zyx = (0, 0, 0)) -> Tensor:
    """Read a window at the network's scale, with context on every side.

    Context comes from the volume around, and is reflected where that ends. A window of one slice
    lies about the annotated slice that is nearest, where only some are annotated.

    Parameters
    ----------
    window : in voxels of the network, counted from the start of the source's roi.
    context : (z, y, x); voxels more on each side.

    Returns
    -------
    float32, shape (c, z, y, x); raw and foreground, see `volseg.training.tissue`.
    """
    z, y, x = (w.stop - w.start + 2 * c for w, c in zip(window, context, strict=True))
    axes = zip(source.roi, window, source.scale, strict=True)
    centre = [s.start + (w.start + w.stop) / 2 * k - 0.5 for s, w, k in axes]
    if source.slices is not None and window[0].stop - window[0].start == 1:
        centre[0] = float(source.slices[np.abs(source.slices - centre[0]).argmin()])
    bounds = full_roi(source.raw.shape)
    placed = Placement.plain((z, y, x), centre, source.scale)
    cut = locate(placed, (z, y, x), bounds, source.pooled)
    found = read_tissue(source, needed(cut, bounds, source.pooled), bounds).cut(cut)
    return found if source.targets is None else source.targets.finish(found, source.scale)


@torch.no_grad()
def predict_window(
    network: nn.Module, source: Source, window: Roi, form: Architecture, precision: torch.dtype
) -> tuple[Floats, Mask]:
    """Predict a window of the network's grid.

    Returns
    -------
    probabilities : float32, shape (z, y, x)
    truth : bool, shape (z, y, x)
    """
    probabilities, truth = predict_maps(network, source, window, form, precision)
    return probabilities[0], truth[0] >= 0.5


@torch.no_grad()
def predict_maps(
    network: nn.Module, source: Source, window: Roi, form: Architecture, precision: torch.dtype
) -> tuple[Floats, Floats]:
    """Predict all maps of a window of the network's grid, but for centerlines.

    Returns
    -------
    probabilities, truth : float32, shape (maps, z, y, x)
    """
    device = next(network.parameters()).device
    context = CONTEXTS[form.dimensions]
    around = (context[0] + form.margin[0], context[1] + form.margin[1], context[2] + form.margin[2])
    channels = read_window(source, window, around)
    core = roi_shape(window)
    tile = form.fit((core[0] + 2 * context[0], core[1] + 2 * context[1], core[2] + 2 * context[2]))
    raw = channels[RAW].numpy()
    missing = [(0, n - have) for n, have in zip(form.input_shape(tile), raw.shape, strict=True)]
    given = torch.from_numpy(np.pad(raw, missing, mode="reflect"))[None, None].to(device)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        logits = feed(network, given, form)
    inner = tuple(slice(c, c + n) for c, n in zip(context, core, strict=True))
    if source.targets is not None:
        logits = as_binary(logits, count_exclusive(source.targets.maps))
    probabilities: Floats = logits[0].float().sigmoid().cpu().numpy()[:, *inner]
    middle = tuple(slice(c, c + n) for c, n in zip(around, core, strict=True))
    truth = np.concatenate([channels[MASK : MASK + 1].numpy(), channels[MAPS:].numpy()])
    return probabilities, truth[:, *middle]


def find_known(source: Source, window: Roi) -> Mask | None:
    """Tell which voxels of a window are annotated; None where all are."""
    if not source.incomplete:
        return None
    return read_window(source, window)[UNKNOWN].numpy() <= 0.5


def count_window(
    network: nn.Module, source: Source, window: Roi, form: Architecture, precision: torch.dtype
) -> NDArray[np.int64]:
    """Count a window's voxels by probability, shape (maps, 2, 256): background and foreground.

    Of offsets, voxels of objects are counted by their distance from the truth.
    """
    probabilities, truth = predict_maps(network, source, window, form, precision)
    levels = (probabilities * 255).round().astype(np.uint8)
    known = find_known(source, window)
    counts = []
    for a, b, vector in zip(levels, truth, _are_offsets([source]), strict=True):
        seen = None if known is None else known & ~np.isnan(b)
        if vector:  # the truth is as little known to less than a level
            away = np.abs(a - (np.nan_to_num(b) * 255).round()).astype(np.uint8)
            counts.append(count_probabilities(away, np.ones(away.shape, bool), seen))
        else:
            counts.append(count_probabilities(a, b >= 0.5, seen))
    return np.stack(counts)


def _are_offsets(sources: Sequence[Source]) -> list[bool]:
    targets = sources[0].targets if sources else None
    return [m.kind in OFFSETS for m in targets.maps] if targets else [False]


def validate(
    network: nn.Module, sources: Sequence[Source], form: Architecture, precision: torch.dtype
) -> list[Validation]:
    """Measure the Jaccard index of each map on held-out regions, at the best of 254 thresholds.

    Of distances, it is that of what lies deeper than half of their reach; of offsets, an error.

    Parameters
    ----------
    network : is put in evaluation mode.
    precision : that the network runs in.
    """
    network.eval()
    histogram = np.zeros((1, 2, LEVELS), np.int64)
    for source in sources:
        grid, slices = whole_grid(source), annotated_slices(source)
        for window in validation_windows(grid, CORES[form.dimensions], slices):
            histogram = histogram + count_window(network, source, window, form, precision)
    maps = zip(histogram, _are_offsets(sources), strict=False)
    return [mean_error(m[1]) if vector else best_threshold(m) for m, vector in maps]


def mean_error(voxels: NDArray[np.int64]) -> Validation:
    """Compute the mean error of offsets from the voxels of each, shape (256,).

    Examples
    --------
    >>> mean_error(np.bincount([0, 51], minlength=256)).error
    0.1
    """
    mean = float((voxels * np.arange(LEVELS)).sum() / max(voxels.sum(), 1) / (LEVELS - 1))
    return Validation(0.0, 0.5, 0.0, 0.0, 0.0, mean)


def cross_entropy(histogram: NDArray[np.int64]) -> float:
    """Compute the mean cross-entropy of voxels counted by probability, shape (2, 256).

    Examples
    --------
    >>> histogram = np.zeros((2, 256), np.int64)
    >>> histogram[1, 128] = 7
    >>> round(cross_entropy(histogram), 2)
    0.69
    """
    p = np.clip(np.arange(LEVELS) / (LEVELS - 1), 1 / (2 * LEVELS), 1 - 1 / (2 * LEVELS))
    total = -(histogram[0] * np.log(1 - p)).sum() - (histogram[1] * np.log(p)).sum()
    return float(total / max(histogram.sum(), 1))


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
    # a card's threshold is below 1
    curves = score_curves(histogram)
    middle = middle_of_best(curves.jaccard[: LEVELS - 1])
    return Validation(
        jaccard=float(curves.jaccard[middle]),
        threshold=probability_of(middle),
        cross_entropy=cross_entropy(histogram),
        precision=float(curves.precision[middle]),
        recall=float(np.nan_to_num(curves.recall[middle])),
    )
