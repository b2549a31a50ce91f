"""Measure one object in its own box: the mesh around it, and its centerline. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Doubles, Mask, VoxelSize

HALFWAY = 0.5
REACH_NM, REACH_VOXELS = 100.0, 10
"""Reach of surroundings in a slice; in voxels where their size is unknown."""


@dataclass(frozen=True)
class SingleObjects:
    """Measurements of single objects; None where they were not requested.

    Attributes
    ----------
    mesh_areas : float64, shape (objects,); takes the place of the surface by Crofton's formula.
    lengths, branches : float64, shape (objects,); of centerlines.
    ferets, solidities : float64, shape (objects,); of convex hulls.
    section_areas, section_perimeters, circularities : float64, shape (objects,); means over slices.
    largest_sections : float64, shape (objects,); areas of the largest section with a slice.
    darknesses, evennesses : float64, shape (objects,); against the surroundings.
    """

    mesh_areas: NDArray[np.float64] | None = None
    lengths: NDArray[np.float64] | None = None
    branches: NDArray[np.float64] | None = None
    ferets: NDArray[np.float64] | None = None
    solidities: NDArray[np.float64] | None = None
    section_areas: NDArray[np.float64] | None = None
    section_perimeters: NDArray[np.float64] | None = None
    circularities: NDArray[np.float64] | None = None
    largest_sections: NDArray[np.float64] | None = None
    darknesses: NDArray[np.float64] | None = None
    evennesses: NDArray[np.float64] | None = None


SINGLE = tuple(field.name for field in fields(SingleObjects))
OUTLINE, AROUND = SINGLE[3:-2], SINGLE[-2:]
"""Of hulls and of outlines in slices, and of what lies around."""


def mesh_area(mask: Mask, voxel_size: VoxelSize) -> float:
    """Find the area of the triangles that marching cubes lay around an object.

    Parameters
    ----------
    mask : bool, shape (z, y, x); closed at its border.

    Returns
    -------
    float, in the square of the voxel size's unit

    Notes
    -----
    T. Lewiner et al., "Efficient implementation of marching cubes' cases with topological
    guarantees", J. Graphics Tools 2003. On voxels it reads 8 to 9% above the true surface of a
    ball.
    """
    from skimage.measure import marching_cubes, mesh_surface_area

    padded = np.pad(mask, 1).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(padded, HALFWAY, spacing=voxel_size)  # type: ignore[no-untyped-call]
    return float(mesh_surface_area(vertices, faces))  # type: ignore[no-untyped-call]


def mesh(inside: Mask) -> tuple[Doubles, NDArray[np.int64]]:
    """Lay triangles around an object that is smoothed a little.

    Returns
    -------
    vertices : float64, shape (n, 3); in voxels of the box, (z, y, x).
    faces : int64, shape (m, 3)

    Notes
    -----
    T. Lewiner et al., J. Graphics Tools 2003, as in scikit-image.
    """
    from scipy import ndimage
    from skimage.measure import marching_cubes

    padded = np.pad(inside, 2).astype(np.float32)
    smooth = ndimage.gaussian_filter(padded, 0.6)
    # thin objects fade where they are smoothed, and still get a surface
    level = min(0.5, float(smooth.max()) / 2)
    vertices, faces, _, _ = marching_cubes(smooth, level)  # type: ignore[no-untyped-call]
    return vertices.astype(np.float64) - 2, faces.astype(np.int64)


def centerline(mask: Mask, voxel_size: VoxelSize) -> tuple[float, int]:
    """Find the length of an object's centerline and the number of its branches.

    Returns
    -------
    length : float, in the voxel size's unit
        Of the shortest tree through the centers of all centerline voxels that touch; a ring lacks
        the one step that would close it. An object that thins to one voxel has 0.
    branches : stretches between ends and forks of that tree

    Notes
    -----
    Thinning: T.-C. Lee et al., "Building skeleton models via 3-D medial surface/axis thinning
    algorithms", CVGIP 1994.

    Examples
    --------
    >>> cross = np.zeros((1, 7, 7), bool)
    >>> cross[0, 3], cross[0, :, 3] = True, True
    >>> centerline(cross, (1.0, 1.0, 1.0))
    (12.0, 4)
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial import cKDTree
    from skimage.morphology import skeletonize

    thinned = skeletonize(np.pad(mask, 1), method="lee")  # type: ignore[no-untyped-call]
    voxels = np.argwhere(thinned)
    touching = cKDTree(voxels).query_pairs(1, p=math.inf, output_type="ndarray")
    first, second = touching.T
    lengths = np.linalg.norm((voxels[first] - voxels[second]) * voxel_size, axis=1)
    size = (len(voxels), len(voxels))
    tree = minimum_spanning_tree(coo_array((lengths, (first, second)), size).tocsr()).tocoo()
    ends = np.bincount(np.concatenate([tree.row, tree.col]), minlength=len(voxels))
    return float(tree.data.sum()), int(ends[ends != 2].sum()) // 2


def reach(voxel_size: VoxelSize | None) -> tuple[int, int]:
    """Find how many voxels surroundings reach along y and x.

    Examples
    --------
    >>> reach((50.0, 5.0, 8.0)), reach(None)
    ((20, 12), (10, 10))
    """
    if voxel_size is None:
        return REACH_VOXELS, REACH_VOXELS
    y, x = (max(int(REACH_NM / side), 1) for side in voxel_size[1:])
    return y, x


def compare_surroundings(
    mask: Mask, raw: NDArray[Any], reached: tuple[int, int]
) -> tuple[float, float]:
    """Compare an object with what lies around it in its slices, other objects among them.

    Parameters
    ----------
    mask : bool, shape (z, y, x)
        The object, in a box that holds its surroundings, as far as the volume does.
    raw : of the same box
    reached : voxels along y and x that belong to the surroundings

    Returns
    -------
    darkness : mean around less mean inside, in standard deviations around
    evenness : standard deviation around over that inside
        Above 1 where the object is the more even one. NaN where there is nothing to compare.

    Examples
    --------
    >>> raw = np.array([[[9.0, 7.0, 4.0, 4.5, 9.0, 7.0]]])
    >>> compare_surroundings(raw < 5, raw, (1, 2))
    (3.75, 4.0)
    """
    from scipy import ndimage

    height, width = (2 * n + 1 for n in reached)
    near = ndimage.maximum_filter(mask.view(np.uint8), (1, height, width), mode="constant")
    around = raw[(near > 0) & ~mask].astype(np.float64)
    inside = raw[mask].astype(np.float64)
    if not around.size:
        return math.nan, math.nan
    spread, own = float(around.std()), float(inside.std())
    darkness = float(around.mean() - inside.mean()) / spread if spread else math.nan
    return darkness, spread / own if own else math.nan
