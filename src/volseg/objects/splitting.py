"""Split touching objects, one object at a time: seeds, and a watershed from them. Pure functions.

An object is always split as a whole, within its own bounding box, so the result does not depend on
blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.defaults import SPLIT_DEPTH
from volseg.objects.components import DIFFERING
from volseg.objects.kmeans import find_centres
from volseg.objects.votes import vote_seeds
from volseg.types import FULL_PROBABILITY, Floats, Mask, Probabilities, VoxelSize

METHODS = ("none", "distance", "centerline", "contour", "offset", "kmeans")
ON_CENTERLINE = 128
"""Of 255: from which a voxel is more likely on a centerline than not."""
SURE, CONTOUR = 0.8, 0.5
"""Of ``contour``, where a card names none: from which probability a class is sure, and from which
on a voxel lies on a contour."""
VOTES = 1.0
"""Of ``offset``, where a card names none: how many voxels point at each voxel of a peak."""
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
    centres : that ``kmeans`` puts into each object; 0 for as many as the elbow asks for.
    sure, contour : of 255, for ``contour``: seeds lie where the class has at least the one, and its
        contour less than the other.
    fewest : voxels that a seed must have, for ``contour``.
    reach, votes : of ``offset``: voxels (z, y, x) that offsets of 0 and 1 stand for, 0 along an
        axis without such; at the peak of a seed, so many voxels point at each voxel.
    """

    method: str
    spacing: VoxelSize = (1.0, 1.0, 1.0)
    depth: float = SPLIT_DEPTH
    connectivity: int = 26
    smallest: int = 0
    centres: int = 0
    sure: int = round(SURE * FULL_PROBABILITY)
    contour: int = round(CONTOUR * FULL_PROBABILITY)
    fewest: int = 1
    reach: VoxelSize = (0.0, 0.0, 0.0)
    votes: float = VOTES

    def __call__(self, mask: Mask, guides: Sequence[Probabilities] = ()) -> Pieces:
        """Split one object; the watershed of its distance from the border, from seeds.

        By ``contour`` what is flooded rises with the contour, too, and falls with the distance that
        the network gives, if it does.

        Parameters
        ----------
        mask : bool, shape (z, y, x); one object and nothing else.
        guides : uint8, shape (z, y, x)
            Of ``centerline``, what the network says of centerlines. Of ``contour``, what it says of
            the class, of its contour and, if it does, of the distance to the border. Of ``offset``,
            what it says of the class, and of the offsets along each axis that has a reach.

        Returns
        -------
        int32, shape (z, y, x); the same object, in one piece or more.

        Examples
        --------
        >>> mask = np.zeros((11, 11, 30), bool)
        >>> mask[:, :, :11] = mask[:, :, 19:] = mask[5, 5] = True
        >>> pieces = Splitter("distance")(mask)
        >>> int(pieces.max()), bool(((pieces > 0) == mask).all())
        (2, True)
        """
        from scipy import ndimage  # heavy, and only splitting needs it

        # what lies beyond the box is background; a flat object has no border beyond its plane
        margin = [(int(side > 1),) * 2 for side in mask.shape]
        padded = np.pad(mask, margin)
        distance = ndimage.distance_transform_edt(padded, self.spacing).astype(np.float32)
        if self.method == "kmeans":
            seeds = kmeans_seeds(padded, self.spacing, float(distance.max()), self.centres)
        elif self.method == "distance":
            seeds = distance_seeds(distance, self.depth)
        else:
            seeds = np.pad(self._guided_seeds(mask, guides), margin)
        relief = self._relief(distance, [np.pad(g, margin) for g in guides[1:]])
        pieces = self.flood(distance, seeds, relief)
        small = np.bincount(pieces.ravel(), minlength=seeds.max() + 1) < self.smallest
        if small[1:].any():
            small[0] = True
            renumbered = np.where(small, 0, np.cumsum(~small)).astype(np.int32)
            pieces = self.flood(distance, renumbered[seeds], relief)
        core = tuple(slice(a, a + side) for (a, _), side in zip(margin, mask.shape, strict=True))
        return np.ascontiguousarray(pieces[core])

    def _guided_seeds(self, mask: Mask, guides: Sequence[Probabilities]) -> Pieces:
        """Find the seeds that maps of the network give."""
        from scipy import ndimage

        if self.method == "offset":
            return vote_seeds(mask, guides[1:], self.reach, self.spacing, self.votes)
        if self.method == "contour":
            inner = mask & (guides[0] >= self.sure) & (guides[1] < self.contour)
            return contour_seeds(inner, self.fewest)
        # each stretch of a centerline is one mitochondrion's
        lines: Pieces = ndimage.label(mask & (guides[0] >= ON_CENTERLINE), np.ones((3, 3, 3)))[0]
        return lines

    def _relief(self, distance: Floats, guides: Sequence[Probabilities]) -> Floats:
        """Shape what is flooded: low inside of objects, high at their contours."""
        if self.method != "contour":
            return -distance
        deep = distance / max(float(distance.max()), 1e-6)
        if len(guides) > 1:
            deep = guides[1] / np.float32(FULL_PROBABILITY)
        relief: Floats = guides[0] / np.float32(FULL_PROBABILITY) - deep
        return relief

    def flood(
        self, distance: NDArray[np.float32], seeds: Pieces, relief: Floats | None = None
    ) -> Pieces:
        """Give each voxel to a seed; all to one piece where there are fewer than two."""
        from scipy import ndimage
        from skimage.segmentation import watershed

        inside = distance > 0
        if seeds.max() < 2:
            return inside.astype(np.int32)
        # objects of 4 or 8 lie in one slice, where these join the same
        structure = ndimage.generate_binary_structure(3, DIFFERING[self.connectivity])
        rules = {"mask": inside, "connectivity": structure}
        pieces: Pieces = watershed(-distance if relief is None else relief, seeds, **rules)  # type: ignore[no-untyped-call]
        return pieces.astype(np.int32, copy=False)


def distance_seeds(distance: NDArray[np.float32], depth: float) -> Pieces:
    """Mark the maxima of a distance that stand out by a depth.

    Maxima are dropped unless every way to a higher one goes down by at least ``depth``: P. Soille,
    "Morphological Image Analysis" (2nd edition, 2004), section 6.3.4, h-maxima.

    Parameters
    ----------
    distance : float32, shape (z, y, x); from each voxel of an object to its border; 0 outside.
    depth : in the unit of the distance

    Returns
    -------
    int32, shape (z, y, x); seeds, from 1.
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


def contour_seeds(inner: Mask, fewest: int) -> Pieces:
    """Mark what is inside of objects and apart, by faces, but for specks.

    A seed has at least so many voxels; the largest is kept in any case.

    Examples
    --------
    >>> contour_seeds(np.array([[[1, 1, 0, 1, 0, 1, 1]]], bool), 2).tolist()
    [[[1, 1, 0, 0, 0, 2, 2]]]
    """
    from scipy import ndimage

    found, count = ndimage.label(inner)
    voxels = np.bincount(found.ravel(), minlength=count + 1)
    kept = voxels >= min(fewest, int(voxels[1:].max(initial=0)))
    kept[0] = False
    seeds: Pieces = (np.cumsum(kept) * kept).astype(np.int32)[found]
    return seeds


def kmeans_seeds(mask: Mask, spacing: VoxelSize, inner: float, count: int = 0) -> Pieces:
    """Mark the centres that K-means finds in an object; see `find_centres`.

    Returns
    -------
    int32, shape (z, y, x); one voxel of the object for each centre, from 1.
    """
    voxels = np.argwhere(mask)
    places = voxels * np.array(spacing)
    # a centre may lie outside a bent object
    nearest = {
        int(((places - centre) ** 2).sum(1).argmin())
        for centre in find_centres(mask, spacing, inner, count)
    }
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(voxels[sorted(nearest)].T)] = np.arange(1, len(nearest) + 1)
    return seeds
