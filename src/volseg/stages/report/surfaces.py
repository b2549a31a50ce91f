"""Make meshes of objects from a coarse level, few enough triangles for a page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import roi_shape
from volseg.measures.single_object import mesh
from volseg.stages.report.drawing import outlines
from volseg.stages.report.plan import Subject
from volseg.storage.volumes import Image
from volseg.types import Doubles, Labels, zyx

TRIANGLES = 240_000
"""Of all objects of all volumes."""
VOXELS, MOST_VOXELS = 1 << 22, 1 << 26
"""Voxels of the level that meshes are made from; more if there is no coarser level, up to those."""
PER_VOXEL = 2.2
"""Triangles for each voxel at the surface of an object."""
STEPS = 65535
NM_PER_UM = 1000.0


@dataclass(frozen=True)
class Surfaces:
    """Meshes of the objects of a volume, as a page holds them.

    Attributes
    ----------
    vertices, faces : base64 of uint16 (n, 3) and uint32 (m, 3)
        Places as fractions of the region in 65535ths, and corners of triangles.
    labels, counts : of each object, and of its vertices, which follow each other
    origin, lengths : of the region, (z, y, x), in ``unit``
    shown, objects : how many objects have a mesh, of how many
    factors : voxels of level 0 that one of the meshes' level stands for
    """

    vertices: str
    faces: str
    labels: list[int]
    counts: list[int]
    origin: list[float]
    lengths: list[float]
    unit: str
    shown: int
    objects: int
    factors: tuple[float, float, float]


def can_mesh() -> bool:
    """Tell whether what makes and shows meshes is installed."""
    return find_spec("skimage") is not None and find_spec("plotly") is not None


def make_surfaces(subject: Subject, volumes: int) -> Surfaces | None:
    """Make meshes of a volume's objects, the largest first, as far as triangles last.

    Returns
    -------
    None if no object is as large as a voxel of the coarse level, or no level is coarse enough.
    """
    found = _read_coarse(subject.labels, subject)
    if found is None:
        return None
    labels, factors, start = found
    spacing = np.array(subject.summary.voxel_size or (1.0, 1.0, 1.0))
    unit = "voxels" if subject.summary.voxel_size is None else "µm"
    scale = spacing / (NM_PER_UM if subject.summary.voxel_size else 1.0)
    meshes = _mesh_all(labels, TRIANGLES // volumes)
    if not meshes:
        return None
    origin = np.array([s.start for s in subject.region])
    lengths = np.array(roi_shape(subject.region))
    vertices = np.concatenate([v for _, v, _ in meshes])
    places = (vertices + start + 0.5) * factors - origin
    ends = np.cumsum([0, *(len(v) for _, v, _ in meshes)])
    faces = np.concatenate([f + e for (_, _, f), e in zip(meshes, ends, strict=False)])
    return Surfaces(
        _encode(np.clip(np.rint(places / lengths * STEPS), 0, STEPS).astype("<u2")),
        _encode(faces.astype("<u4")),
        [k for k, _, _ in meshes],
        np.diff(ends).tolist(),
        (origin * scale).tolist(),
        (lengths * scale).tolist(),
        unit,
        len(meshes),
        subject.summary.objects,
        (float(factors[0]), float(factors[1]), float(factors[2])),
    )


def _read_coarse(image: Image, subject: Subject) -> tuple[Labels, Doubles, Doubles] | None:
    """Read the region at the finest level with few voxels and few voxels at surfaces."""
    for array, factors in zip(image.levels, image.factors, strict=True):
        box = [
            slice(int(s.start / f), min(-int(-s.stop // f), n))
            for s, f, n in zip(subject.region, factors, array.shape, strict=True)
        ]
        voxels = np.prod([s.stop - s.start for s in box])
        last = array is image.levels[-1]
        if voxels > (MOST_VOXELS if last else VOXELS):
            continue
        labels = array[zyx(box)]
        if last or np.count_nonzero(outlines(labels)) * PER_VOXEL <= TRIANGLES:
            start = np.array([float(s.start) for s in box])
            return labels, np.array(factors, float), start
    return None


def _mesh_all(labels: Labels, triangles: int) -> list[tuple[int, Doubles, NDArray[np.int64]]]:
    """Mesh objects by size, until triangles are used up: label, vertices and faces of each."""
    from scipy import ndimage

    names, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    numbers = numbers.reshape(labels.shape)
    first = int(names[0] == 0)
    boxes = ndimage.find_objects(numbers + 1 - first)  # background is 0, if there is any
    meshes, left = [], triangles
    for k in sorted(range(first, len(names)), key=lambda k: -int(sizes[k])):
        box = boxes[k - first]
        vertices, faces = mesh(numbers[box] == k)
        left -= len(faces)
        if left < 0:
            break
        meshes.append((int(names[k]), vertices + [s.start for s in box], faces))
    return meshes


def _encode(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def viewer_script() -> str:
    """Read the script that draws meshes in a page, as it is packed with plotly."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script
