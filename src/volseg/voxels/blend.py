"""Blend overlapping tiles with a separable window that is normalised per axis.

The weights of all tiles over a voxel sum to one by construction, so no weight array is kept. Shares
are added as integers (`FULL` stands for probability 1): integer addition does not depend on its
order, so neither does the result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.lattice import AxisLattice
from volseg.types import Doubles, Floats, Probabilities

FULL = 255 * 256
"""The share that stands for probability 1; rounding up to eight shares still fits in uint16."""

Shares = NDArray[np.uint16]
"""uint16, shape (z, y, x): weighted probabilities in units of 1 / FULL."""


ROUNDING = 1e-6
"""Network voxels; far above the rounding of positions."""


def window(
    position: Doubles,
    tile: int,
    overlap: int,
    context: int = 0,
    ends: tuple[bool, bool] = (False, False),
) -> Doubles:
    """Weigh positions within a tile: a raised-cosine ramp within each overlap, one between.

    Parameters
    ----------
    position : float64, shape (n,); in network voxels from the centre of the tile's first voxel.
    context : of an overlap, voxels at either side that one tile leaves to the other
    ends : whether there is no other tile before, and after

    Returns
    -------
    float64, shape (n,)
        0 outside the tile. Added over tiles ``tile - overlap`` apart, exactly one.

    Examples
    --------
    >>> t = np.arange(4.0)
    >>> both = window(t + 4, 8, 4) + window(t, 8, 4)
    >>> bool(np.allclose(both, 1))
    True
    """
    if overlap == 0:
        # a voxel on the face between two tiles is in the support of one: rounding must not drop it
        near = ROUNDING
        return ((position > -0.5 - near) & (position < tile - 0.5 + near)).astype(float)

    def rise(at: Doubles) -> Doubles:
        part = (at - context + 0.5) / (overlap - 2 * context)
        return np.asarray(np.sin(np.pi / 2 * np.clip(part, 0, 1)) ** 2)

    first, last = ends
    rising = np.ones_like(position) if first else rise(position)
    return np.asarray(rising - (0 if last else rise(position - (tile - overlap))))


def blending_matrix(lattice: AxisLattice, k: int) -> Floats:
    """Map a tile's network voxels to weighted volume voxels along one axis.

    Parameters
    ----------
    lattice : tiles along the axis
    k : which of them

    Returns
    -------
    float32, shape (volume voxels of its support, network voxels of the tile)
        Linear interpolation times the window; with scale 1 a diagonal.
    """
    voxels = np.arange(*lattice.support(k), dtype=np.float64)
    at: Doubles = (voxels + 0.5) / lattice.scale - 0.5 - lattice.origin(k)
    ends = k == 0, k == lattice.count - 1
    weights = window(at, lattice.tile, lattice.overlap, lattice.context, ends)
    return interpolation_matrix(at, lattice.tile) * weights[:, None].astype(np.float32)


def interpolation_matrix(position: NDArray[np.float64], length: int) -> Floats:
    """Interpolate linearly between samples 0..length-1, the ends held, along one axis.

    Returns
    -------
    float32, shape (len(position), length)

    Examples
    --------
    >>> interpolation_matrix(np.array([0.25, 2.0]), 3)
    array([[0.75, 0.25, 0.  ],
           [0.  , 0.  , 1.  ]], dtype=float32)
    """
    at = np.clip(position, 0, length - 1)
    below = np.minimum(np.floor(at).astype(int), max(length - 2, 0))
    matrix = np.zeros((len(position), length), np.float32)
    rows = np.arange(len(position))
    matrix[rows, below] = 1 - (at - below)
    if length > 1:
        matrix[rows, below + 1] = at - below
    return matrix


def shifted_diagonal(matrix: Floats) -> tuple[int, Floats] | None:
    """Read a matrix as ``out[i] = weights[i] * in[first + i]``, if it is one."""
    first = int(matrix[0].argmax()) if matrix[0].any() else 0
    if first + len(matrix) > matrix.shape[1]:
        return None
    weights = np.ascontiguousarray(np.diagonal(matrix, first)[: len(matrix)])
    if np.count_nonzero(matrix) != np.count_nonzero(weights):
        return None
    return first, weights


def neighbouring_taps(matrix: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Read a matrix whose rows hold two neighbouring entries at most.

    Returns
    -------
    below : int64, the column of the first entry of each row
    low, high : float32, the entries there and in the next column

    Examples
    --------
    >>> matrix = interpolation_matrix(np.array([0.25, 2.0]), 3)
    >>> [values.tolist() for values in neighbouring_taps(matrix)]
    [[0, 1], [0.75, 0.0], [0.25, 1.0]]
    """
    rows, length = np.arange(len(matrix)), matrix.shape[1]
    below = np.minimum((matrix != 0).argmax(axis=1), max(length - 2, 0))
    low = matrix[rows, below]
    return below, low, matrix[rows, below + 1] if length > 1 else np.zeros_like(low)


def to_probabilities(shares: Shares) -> Probabilities:
    """Round summed shares to uint8 probabilities.

    Examples
    --------
    >>> to_probabilities(np.array([0, FULL // 2, FULL, FULL + 4], np.uint16))
    array([  0, 128, 255, 255], dtype=uint8)
    """
    return np.asarray(np.minimum((shares.astype(np.uint32) + 128) >> 8, 255), np.uint8)


def reflected(start: int, stop: int, length: int) -> NDArray[np.int64]:
    """List which voxels stand at positions start:stop when an axis is mirrored at its ends.

    The voxel at the border is not repeated, however far the positions reach beyond it.

    Examples
    --------
    >>> reflected(-2, 5, 3)
    array([2, 1, 0, 1, 2, 1, 0])
    """
    if length == 1:
        return np.zeros(stop - start, np.int64)
    period = 2 * (length - 1)
    folded = np.arange(start, stop) % period
    return np.minimum(folded, period - folded)


def directions(start: int, stop: int, length: int) -> NDArray[np.int64]:
    """Tell, as 1 or -1, whether an axis that `reflected` mirrors runs on or back at positions.

    Examples
    --------
    >>> directions(-2, 5, 3)
    array([ 1, -1,  1,  1,  1, -1,  1])
    """
    if length == 1:
        return np.ones(stop - start, np.int64)
    return np.where(np.arange(start, stop) % (2 * (length - 1)) < length, 1, -1)
