"""Choose centres inside one object by K-means, and their number by an elbow. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from volseg.types import Mask, VoxelSize

MOST_CENTRES = 32
"""Centres that are looked for in one object, unless their number is given."""
SAMPLE = 2048
"""Voxels of an object that K-means looks at; more change its centres by little."""
CANDIDATES = 256
"""Voxels among which the next centre is chosen."""
ROUNDS = 30
GAIN = 0.05
"""Gap that a number of centres must have to be taken for more than one."""
ELBOW = 0.65
"""Share of the largest gap from which a number of centres is taken."""
Places = NDArray[np.float64]
"""float64, shape (voxels, axes): their centres, in the unit of the spacing."""


def find_centres(mask: Mask, spacing: VoxelSize, inner: float, count: int = 0) -> Places:
    """Place the centres of K-means in an object, as many as the elbow asks for.

    Centres as markers of a watershed, their number by the elbow of a sweep over the sum of squares:
    A. Persekian, M. Jiao, L. Tindall, "U-Net On Biomedical Images", section 4.3. The elbow is that
    of the gap statistic: R. Tibshirani, G. Walther, T. Hastie, "Estimating the number of clusters
    in a data set via the gap statistic", J. R. Stat. Soc. B 63 (2001). The reference is the convex
    hull of the object, so the gaps of a convex object are 0 whatever its form and the number of its
    axes, and it stays whole. Candidates for the next centre: A. Likas, N. Vlassis, J. Verbeek,
    "The global k-means clustering algorithm", Pattern Recognition 36 (2003), section 3.1.

    Parameters
    ----------
    mask : bool, shape (z, y, x)
        One object and nothing else; an axis along which it is one voxel thick does not count.
    spacing : lengths of a voxel's sides
    inner : radius of the largest ball inside the object
    count : number of centres; 0 for the elbow.

    Returns
    -------
    float64, shape (centres, 3)

    Examples
    --------
    >>> mask = np.zeros((1, 9, 24), bool)
    >>> mask[:, :, :9] = mask[:, :, 15:] = mask[:, 4] = True
    >>> find_centres(mask, (1, 1, 1), 5.0).round(1).tolist()
    [[0.0, 4.0, 18.8], [0.0, 4.0, 4.2]]
    """
    sparse, sides = _thin_out(mask, spacing)
    voxels = np.argwhere(sparse)
    places = voxels * sides
    varying = np.ptp(places, axis=0) > 0
    axes = int(varying.sum())
    most = min(count or _most_balls(mask, np.array(spacing)[varying], inner), len(places))
    if axes == 0 or most < 2:
        middle: Places = places.mean(0, keepdims=True)
        return middle
    tries = list(_sweep(places[:, varying], most))
    chosen = most if count else _elbow(sparse, sides, varying, [left for _, left in tries])
    centres = np.repeat(places[:1], chosen, axis=0)
    centres[:, varying] = tries[chosen - 1][0]
    return centres


def _most_balls(mask: Mask, sides: NDArray[np.float64], inner: float) -> int:
    """Count the balls, as large as the largest inside an object, that its voxels would fill."""
    axes = len(sides)
    ball = math.pi ** (axes / 2) / math.gamma(axes / 2 + 1) * math.pow(inner, axes)
    filled: float = int(np.count_nonzero(mask)) * float(sides.prod()) / ball
    found: int = math.ceil(filled)
    return min(MOST_CENTRES, found)


def _thin_out(mask: Mask, spacing: VoxelSize) -> tuple[Mask, NDArray[np.float64]]:
    """Keep some of an object's voxels on a lattice as even as can be; also give its sides."""
    sides = np.array(spacing, float)
    pitch, steps, sparse = sides.min(), np.ones(3, int), mask
    # flat objects keep two planes at least: a coarser lattice may miss all of them
    thickness = [int(np.count_nonzero(mask.any(axis=(k - 2, k - 1)))) for k in range(3)]
    most = np.maximum(1, np.array(thickness) // 2)
    while np.count_nonzero(sparse) > SAMPLE and (steps < most).any():
        pitch *= 1.1
        steps = np.clip(np.round(pitch / sides), 1, most).astype(int)
        sparse = mask[:: steps[0], :: steps[1], :: steps[2]]
    return sparse, sides * steps


def _elbow(
    sparse: Mask, sides: NDArray[np.float64], varying: NDArray[np.bool_], kept: list[float]
) -> int:
    """Choose a number of centres by what each number leaves of the squares, and of the hull's."""
    hull = _fill_hull(sparse, sides, varying)
    if len(hull) <= np.count_nonzero(sparse):
        return 1  # convex
    hull = hull[:: -(-len(hull) // SAMPLE)]
    gaps = [
        math.log(expected / left) if left > 0 else -math.inf
        for (_, expected), left in zip(_sweep(hull, len(kept)), kept, strict=True)
    ]
    gains = np.array(gaps) - gaps[0]
    if gains.max() < GAIN:
        return 1
    return int(np.argmax(gains >= ELBOW * gains.max())) + 1


def _fill_hull(sparse: Mask, sides: NDArray[np.float64], varying: NDArray[np.bool_]) -> Places:
    """List the places of the lattice in the convex hull of those that an object takes."""
    from scipy.spatial import ConvexHull, QhullError

    places = np.argwhere(sparse)[:, varying] * sides[varying]
    try:
        faces = ConvexHull(places).equations
    except (QhullError, ValueError):
        return places  # all on one line, or in a plane that is none of the axes'
    found = []
    plane = np.argwhere(np.ones((1, *sparse.shape[1:]), bool))
    for plane[:, 0] in range(len(sparse)):
        there = plane[:, varying] * sides[varying]
        found.append(there[(there @ faces[:, :-1].T + faces[:, -1] <= 1e-6).all(1)])
    return np.concatenate(found)


def _sweep(places: Places, most: int) -> Iterator[tuple[Places, float]]:
    """Place one centre, two, and so on; with the mean square of the distances to the nearest."""
    centres, squares = _settle(places, places.mean(0, keepdims=True))
    candidates = places[:: -(-len(places) // CANDIDATES)]
    apart = ((candidates[:, None] - places) ** 2).sum(2)
    yield centres, float(squares.mean())
    for _ in range(1, most):
        gained = np.maximum(squares - apart, 0).sum(1)
        centres, squares = _settle(places, np.vstack([centres, candidates[gained.argmax()]]))
        yield centres, float(squares.mean())


def _settle(places: Places, centres: Places) -> tuple[Places, NDArray[np.float64]]:
    """Move each centre to the middle of what is nearest to it, until none moves."""
    for _ in range(ROUNDS):
        nearest = ((places[:, None] - centres) ** 2).sum(2).argmin(1)
        count = np.bincount(nearest, minlength=len(centres))
        sums = [np.bincount(nearest, along, len(centres)) for along in places.T]
        moved = np.stack(sums, axis=1) / np.maximum(count, 1)[:, None]
        moved[count == 0] = centres[count == 0]
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres, ((places[:, None] - centres) ** 2).sum(2).min(1)
