"""Split touching objects, one object at a time: seeds, and a watershed from them. Pure functions.

An object is always split as a whole, within its own bounding box, so the result does not depend on
blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.defaults import SPLIT_DEPTH
from volseg.geometry.grid import roi_shape
from volseg.objects.components import DIFFERING, Components
from volseg.objects.runs import Indices, Runs
from volseg.types import Mask, Roi, VoxelSize
from volseg.voxels.compilation import compiled

METHODS = ("none", "distance", "centerline", "kmeans")
MOST_CENTRES = 8
SAMPLE = 4096
"""Voxels of an object that K-means looks at; more change its centres by little."""
FLAT = 0.85
"""Share of a uniform body's sum of squares from which another centre is not worth it."""
ROUNDS = 30
Pieces = NDArray[np.int32]
"""int32, shape (z, y, x): 0 outside the object, pieces from 1."""


@dataclass(frozen=True)
class Splitter:
    """Method and parameters by which objects are split.

    Attributes
    ----------
    method : one of `METHODS`.
    spacing : lengths of a voxel's sides; the finest is 1.
    depth : see `SPLIT_DEPTH`; for ``distance``.
    connectivity : of the objects.
    smallest : voxels that a piece must have; the seeds of smaller ones are dropped, and their
        voxels go to the others.
    """

    method: str
    spacing: VoxelSize = (1.0, 1.0, 1.0)
    depth: float = SPLIT_DEPTH
    connectivity: int = 26
    smallest: int = 0

    def __call__(self, mask: Mask, centerline: Mask | None = None) -> Pieces:
        """Split one object; the watershed of its distance from the border, from seeds.

        Parameters
        ----------
        mask : bool, shape (z, y, x)
            One object and nothing else.
        centerline : bool, shape (z, y, x)
            What lies on a centerline, of this object or another; only for ``centerline``.

        Returns
        -------
        int32, shape (z, y, x)
            The same object, in one piece or more.

        Examples
        --------
        >>> mask = np.zeros((11, 11, 30), bool)
        >>> mask[:, :, :11] = mask[:, :, 19:] = mask[5, 5] = True
        >>> pieces = Splitter("distance")(mask)
        >>> int(pieces.max()), bool(((pieces > 0) == mask).all())
        (2, True)
        """
        from scipy import ndimage  # heavy, and only splitting needs it

        # what lies beyond the box is background
        padded = np.pad(mask, 1)
        distance = ndimage.distance_transform_edt(padded, self.spacing).astype(np.float32)
        if self.method == "kmeans":
            seeds = kmeans_seeds(padded, self.spacing)
        elif centerline is not None:
            # each stretch of a centerline is one mitochondrion's
            seeds = ndimage.label(np.pad(mask & centerline, 1), np.ones((3, 3, 3)))[0]
        else:
            seeds = distance_seeds(distance, self.depth)
        pieces = self.flood(distance, seeds)
        small = np.bincount(pieces.ravel(), minlength=seeds.max() + 1) < self.smallest
        if small[1:].any():
            small[0] = True
            renumbered = np.where(small, 0, np.cumsum(~small)).astype(np.int32)
            pieces = self.flood(distance, renumbered[seeds])
        return np.ascontiguousarray(pieces[1:-1, 1:-1, 1:-1])

    def flood(self, distance: NDArray[np.float32], seeds: Pieces) -> Pieces:
        """Give each voxel to a seed; all to one piece where there are fewer than two."""
        from scipy import ndimage
        from skimage.segmentation import watershed

        inside = distance > 0
        if seeds.max() < 2:
            return inside.astype(np.int32)
        structure = ndimage.generate_binary_structure(3, DIFFERING[self.connectivity])
        rules = {"mask": inside, "connectivity": structure}
        pieces: Pieces = watershed(-distance, seeds, **rules)  # type: ignore[no-untyped-call]
        return pieces.astype(np.int32, copy=False)


def distance_seeds(distance: NDArray[np.float32], depth: float) -> Pieces:
    """Mark the maxima of a distance that stand out by a depth.

    Maxima are dropped unless every way to a higher one goes down by at least ``depth``: P. Soille,
    "Morphological Image Analysis" (2nd edition, 2004), section 6.3.4, h-maxima.

    Parameters
    ----------
    distance : float32, shape (z, y, x)
        From each voxel of an object to its border; 0 outside.
    depth : in the unit of the distance

    Returns
    -------
    int32, shape (z, y, x)
        Seeds, from 1.
    """
    from scipy import ndimage
    from skimage.morphology import local_maxima, reconstruction

    top = distance.max()
    if top <= depth:
        return np.zeros(distance.shape, np.int32)
    marker = np.maximum(distance - np.float32(depth), 0)
    lowered = reconstruction(marker, distance)  # type: ignore[no-untyped-call]
    maxima = local_maxima(lowered, connectivity=3) & (distance > 0)  # type: ignore[no-untyped-call]
    seeds: Pieces = ndimage.label(maxima, np.ones((3, 3, 3)), output=np.int32)[0]
    return seeds


def kmeans_seeds(mask: Mask, spacing: VoxelSize) -> Pieces:
    """Mark the centres that K-means finds in an object, as many as the elbow asks for.

    Centres as markers of a watershed, their number by the elbow of the sum of squares:
    A. Persekian, M. Jiao, L. Tindall, "U-Net On Biomedical Images", section 4.3. The elbow: centres
    are added while the sum falls faster than in a uniform body, after D. T. Pham, S. S. Dimov,
    C. D. Nguyen, "Selection of K in K-means clustering", Proc. IMechE C 219 (2005), equations 2
    and 3.

    Parameters
    ----------
    mask : bool, shape (z, y, x)
    spacing : lengths of a voxel's sides

    Returns
    -------
    int32, shape (z, y, x)
        One voxel of the object for each centre, from 1.
    """
    voxels = np.argwhere(mask)
    places = voxels * np.array(spacing)
    sample = places[:: -(-len(places) // SAMPLE)]
    centres = sample.mean(0, keepdims=True)
    spread, expected = float(((sample - centres) ** 2).sum()), 0.0
    while len(centres) < min(MOST_CENTRES, len(sample)) and spread > 0:
        # what a uniform body of three axes would keep of the sum
        expected = expected + (1 - expected) / 6 if expected else 0.75
        more, left = _add_centre(sample, centres)
        if left >= FLAT * expected * spread:
            break
        centres, spread = more, left
    seeds = np.zeros(mask.shape, np.int32)
    for number, centre in enumerate(centres, 1):
        # a centre may lie outside a bent object
        z, y, x = voxels[np.argmin(((places - centre) ** 2).sum(1))]
        seeds[z, y, x] = number
    return seeds


def _add_centre(
    sample: NDArray[np.float64], centres: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Begin one more cluster at the farthest point, and let all settle; nothing is random."""
    distance = ((sample[:, None] - centres) ** 2).sum(2)
    centres = np.vstack([centres, sample[np.argmax(distance.min(1))]])
    for _ in range(ROUNDS):
        distance = ((sample[:, None] - centres) ** 2).sum(2)
        nearest = distance.argmin(1)
        moved = np.array(
            [
                sample[nearest == k].mean(0) if (nearest == k).any() else c
                for k, c in enumerate(centres)
            ]
        )
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres, float(((sample[:, None] - centres) ** 2).sum(2).min(1).sum())


def component_boxes(components: Components, core: Roi) -> NDArray[np.int64]:
    """Find the bounding boxes of a block's components.

    Returns
    -------
    int64, shape (components, 6)
        First voxel along (z, y, x), in the volume, and the voxel after the last.
    """
    boxes = np.zeros((len(components.sizes), 6), np.int64)
    boxes[:, :3] = np.iinfo(np.int64).max
    runs = components.runs.rows, components.runs.starts, components.runs.stops
    _extend(runs, components.values, roi_shape(core)[1], boxes)
    boxes += np.tile(np.array([s.start for s in core]), 2)
    return boxes


@compiled
def _extend(
    runs: tuple[Indices, Indices, Indices],
    values: Indices,
    height: int,
    boxes: NDArray[np.int64],
) -> None:
    rows, starts, stops = runs
    for row in range(len(rows) - 1):
        z, y = row // height, row % height
        for run in range(rows[row], rows[row + 1]):
            box = boxes[values[run] - 1]
            box[0], box[1] = min(box[0], z), min(box[1], y)
            box[2] = min(box[2], np.int64(starts[run]))
            box[3], box[4] = max(box[3], z + 1), max(box[4], y + 1)
            box[5] = max(box[5], np.int64(stops[run]))


def piece_runs(pieces: NDArray[Any]) -> NDArray[np.int64]:
    """Find the stretches of one and the same piece along x.

    Parameters
    ----------
    pieces : integer, shape (z, y, x)

    Returns
    -------
    int64, shape (runs, 5)
        z, y, start, stop, and the piece.

    Examples
    --------
    >>> piece_runs(np.array([[[1, 1, 2, 0, 2]]])).tolist()
    [[0, 0, 0, 2, 1], [0, 0, 2, 3, 2], [0, 0, 4, 5, 2]]
    """
    height, width = pieces.shape[1:]
    padded = np.zeros((pieces.shape[0] * height, width + 1), np.int64)
    padded[:, :-1] = pieces.reshape(-1, width)
    line = padded.ravel()
    begins = np.flatnonzero(np.diff(line, prepend=0) != 0)
    ends = np.append(begins[1:], len(line))
    inside = line[begins] > 0
    begins, ends = begins[inside], ends[inside]
    row, start = np.divmod(begins, width + 1)
    columns = row // height, row % height, start, ends - row * (width + 1), line[begins]
    found: NDArray[np.int64] = np.stack(columns, axis=1)
    return found


def gather_runs(found: NDArray[np.int64], core: Roi) -> tuple[Runs, NDArray[np.uint32]]:
    """Put stretches of pieces in the order of a block's rows.

    Parameters
    ----------
    found : int64, shape (runs, 5)
        See `piece_runs`; counted in the volume.
    core : the block

    Returns
    -------
    runs : of the block
    values : uint32, shape (runs,)
        The piece of each.
    """
    depth, height, _ = roi_shape(core)
    z, y, start, stop, piece = (found - [*(s.start for s in core), core[2].start, 0]).T
    row: NDArray[np.int64] = z * height + y
    order = np.lexsort((start, row))
    rows = np.searchsorted(row[order], np.arange(depth * height + 1)).astype(np.uint32)
    runs = Runs(rows, start[order].astype(np.uint32), stop[order].astype(np.uint32))
    return runs, piece[order].astype(np.uint32)
