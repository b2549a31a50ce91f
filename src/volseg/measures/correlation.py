"""Correlate the slices of a volume with each other, by distance. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Doubles, Floats

REFERENCES = 4
"""Slices with which others are compared."""
DENSE, MOST = 24, 48
"""Distances that are all looked at, and how many there are with larger ones."""
NOISE = (0.5, 1.0, 2.0)
"""Standard deviations of noise, in those of all intensities."""
ELASTIC, SMOOTH = (2.0, 6.0), 10.0
"""Root mean square of elastic displacements, and the voxels over which they are alike."""
QUANTILE = 1.96
"""Of the normal distribution, of which 95% lie closer to the mean."""


@dataclass(frozen=True)
class Correlations:
    """Correlation of slices along one axis, by their distance.

    Attributes
    ----------
    distances : int64, shape (n,); in voxels.
    plain : float64, shape (n,)
        Mean over pairs of slices, by Fisher's z; NaN where all slices are constant.
    flipped : the same, with the farther slice of each pair reversed along its rows.
    noisy : the same, with noise of each of `NOISE` added to the farther slice.
    distorted : the same, with the farther slice distorted by each of `ELASTIC`.
    """

    distances: NDArray[np.int64]
    plain: Doubles
    flipped: Doubles
    noisy: tuple[Doubles, ...]
    distorted: tuple[Doubles, ...]


def correlate_slices(box: NDArray[Any], axis: int) -> Correlations:
    """Correlate slices across an axis with those at a distance from them.

    After C. Malec, "Segmenting Microscopy Images" (2019), figures 5 to 8, where one slice is
    compared with all others.

    Parameters
    ----------
    box : shape (z, y, x)
    axis : 0, 1 or 2
    """
    slices = np.moveaxis(box, axis, 0)
    count = len(slices)
    distances = choose_distances(count)
    starts = np.unique(np.linspace(0, count // 2, REFERENCES).astype(int))
    spread, rng = float(np.nanstd(box[:: max(count // 32, 1)], dtype=np.float64)), _rng(axis)
    moved = [displace(slices.shape[1:], length, _rng(axis)) for length in ELASTIC]
    found = np.full((2 + len(NOISE) + len(moved), len(starts), len(distances)), np.nan)
    for row, start in enumerate(starts):
        one = _standardise(slices[start])
        for column, distance in enumerate(distances):
            if start + distance >= count:
                break
            other = slices[start + distance].astype(np.float32)
            noise = rng.standard_normal(other.shape, np.float32) * spread
            changed = [other, other[:, ::-1], *(other + noise * np.float32(n) for n in NOISE)]
            changed += [other[at] for at in moved]
            found[:, row, column] = [float((one * _standardise(c)).mean()) for c in changed]
    plain, flipped, *others = (_mean_by_z(values) for values in found)
    noisy, distorted = others[: len(NOISE)], others[len(NOISE) :]
    return Correlations(distances, plain, flipped, tuple(noisy), tuple(distorted))


def displace(
    shape: Sequence[int], length: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw from where the pixels of an elastically distorted slice come: the nearest ones.

    P. Simard et al., "Best practices for convolutional neural networks", ICDAR 2003: a random
    field of displacements, smoothed by a Gaussian, here of a stated root mean square.

    Parameters
    ----------
    shape : (rows, columns)
    length : root mean square of the displacements, in voxels

    Returns
    -------
    rows, columns : int64, of that shape
    """
    from scipy import ndimage

    field = rng.standard_normal((2, *shape), np.float32)
    smooth = np.stack([ndimage.gaussian_filter(f, SMOOTH, mode="wrap") for f in field])
    smooth *= length / max(float(np.sqrt((smooth**2).sum(axis=0).mean())), 1e-12)
    rows, columns = (
        np.clip(np.rint(at + move), 0, n - 1).astype(np.int64)
        for at, move, n in zip(np.indices(shape), smooth, shape, strict=True)
    )
    return rows, columns


def _rng(axis: int) -> np.random.Generator:
    return np.random.default_rng(axis)


def choose_distances(count: int) -> NDArray[np.int64]:
    """Choose distances: all short ones, and of the long ones fewer and fewer.

    Examples
    --------
    >>> choose_distances(5).tolist(), len(choose_distances(1000)) <= MOST
    ([0, 1, 2, 3, 4], True)
    """
    near = np.arange(min(count, DENSE))
    far = np.geomspace(DENSE, max(count - 1, DENSE), MOST - DENSE).astype(np.int64)
    return np.unique(np.concatenate([near, far[far < count]]))


def _standardise(plane: NDArray[Any]) -> Floats:
    values = np.nan_to_num(plane.astype(np.float32))
    spread = values.std(dtype=np.float64)
    centred: Floats = values - np.float32(values.mean(dtype=np.float64))
    return centred / np.float32(spread) if spread > 0 else np.full_like(centred, np.nan)


def _mean_by_z(values: NDArray[np.float64]) -> Doubles:
    """Average correlations of several pairs as Fisher's z, over the first axis."""
    known = np.isfinite(values)
    z = np.arctanh(np.clip(np.where(known, values, 0), -1 + 1e-12, 1 - 1e-12))
    with np.errstate(invalid="ignore"):
        mean: Doubles = np.tanh(z.sum(axis=0) / known.sum(axis=0))
    return mean


def fisher_interval(correlations: Doubles, samples: float) -> tuple[Doubles, Doubles]:
    """Find the 95% confidence interval of correlations, from a number of independent samples.

    R. A. Fisher, "On the probable error of a coefficient of correlation", Metron 1921.

    Examples
    --------
    >>> low, high = fisher_interval(np.array([0.5]), 100)
    >>> low.round(2).tolist(), high.round(2).tolist()
    ([0.34], [0.63])
    """
    z = np.arctanh(np.clip(correlations, -1 + 1e-12, 1 - 1e-12))
    half = QUANTILE / math.sqrt(max(samples - 3, 1))
    return np.tanh(z - half), np.tanh(z + half)


def decay_length(distances: NDArray[np.int64], correlations: Doubles) -> float | None:
    """Find the distance at which a correlation falls to 1/e; None if it does not.

    Examples
    --------
    >>> decay_length(np.array([0, 1, 2]), np.array([1.0, 0.5, 0.1]))  # doctest: +ELLIPSIS
    1.33...
    """
    below = np.flatnonzero(correlations < 1 / math.e)
    if not len(below) or below[0] == 0:
        return None
    k = int(below[0])
    before, after = float(correlations[k - 1]), float(correlations[k])
    share = (before - 1 / math.e) / (before - after)
    return float(distances[k - 1] + share * (distances[k] - distances[k - 1]))


def independent_samples(sides: Sequence[int], lengths: Sequence[float | None]) -> float:
    """Count the parts of a slice that are independent: neighbouring pixels are alike.

    Parameters
    ----------
    sides : of a slice, in voxels
    lengths : over which intensities are alike, see `decay_length`; None for longer than the side
    """
    parts = 1.0
    for side, length in zip(sides, lengths, strict=True):
        parts *= max(side / (2 * length), 1.0) if length is not None else 1.0
    return parts
