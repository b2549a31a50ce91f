"""Augmentation of training patches: one geometry for raw and labels, then intensities for raw.

Every function takes a random generator and nothing else decides the outcome, so a patch depends
on its seed only, whatever the number of loaders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.types import Floats, Zyx


@dataclass(frozen=True)
class Augmentation:
    """How strongly patches are varied.

    Attributes
    ----------
    zoom : (low, high)
        Isotropic magnification, log-uniform; below 1 shows more of the tissue, smaller.
    elastic : float
        Standard deviation of the displacement, in voxels; 0 turns it off.
    elastic_scale : int
        Distance between the displacement's control points, in voxels.
    rotate_probability : float
        Chance of a rotation by any angle in the (y, x) plane.
    contrast, brightness, gamma : float
        Half-widths: gain in 1 +- contrast, offset in +- brightness, log2 of gamma in +- gamma.
    noise, blur : float
        Largest standard deviations, of the noise (raw spans about -1..1) and of the blur (voxels).
    intensity_probability : float
        Chance of each of the intensity changes.
    """

    zoom: tuple[float, float] = (0.75, 1.25)
    elastic: float = 2.0
    elastic_scale: int = 24
    rotate_probability: float = 0.5
    contrast: float = 0.4
    brightness: float = 0.3
    gamma: float = 0.6
    noise: float = 0.25
    blur: float = 1.2
    intensity_probability: float = 0.5


def signed_permutation(rng: np.random.Generator, *, isotropic: bool) -> NDArray[np.float64]:
    """Draw a flip and a rotation by a multiple of 90 degrees, as a (3, 3) matrix.

    Anisotropic data keep their z axis: only y and x change places.
    """
    order = rng.permutation(3) if isotropic else np.concatenate([[0], 1 + rng.permutation(2)])
    flipped: NDArray[np.float64] = np.eye(3)[order] * rng.choice([-1.0, 1.0], size=(3, 1))
    return flipped


def draw_matrix(
    rng: np.random.Generator, options: Augmentation, *, isotropic: bool
) -> NDArray[np.float64]:
    """Draw the linear map from patch offsets to volume offsets, shape (3, 3)."""
    matrix = signed_permutation(rng, isotropic=isotropic)
    if rng.random() < options.rotate_probability:
        angle = rng.uniform(0, np.pi)
        turn = np.eye(3)
        turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix = matrix @ turn
    low, high = np.log(options.zoom)
    zoom = np.exp(rng.uniform(low, high))
    scale = np.full(3, 1 / zoom) if isotropic else np.array([1, 1 / zoom, 1 / zoom])
    scaled: NDArray[np.float64] = matrix * scale[:, None]
    return scaled


def draw_displacement(rng: np.random.Generator, options: Augmentation, shape: Zyx) -> Floats:
    """Draw a smooth random displacement in voxels, shape (3, z, y, x)."""
    if options.elastic == 0:
        return np.zeros((3, *shape), np.float32)
    knots = [max(2, -(-s // options.elastic_scale) + 1) for s in shape]
    coarse = rng.normal(0, options.elastic, (3, *knots))
    factors = [s / k for s, k in zip(shape, knots, strict=True)]
    grid = [ndimage.zoom(c, factors, order=1, mode="nearest", grid_mode=True) for c in coarse]
    return np.stack(grid).astype(np.float32)


def patch_coordinates(
    rng: np.random.Generator,
    options: Augmentation,
    shape: Zyx,
    centre: tuple[float, float, float],
    *,
    isotropic: bool,
) -> tuple[Floats, float]:
    """Draw where in the volume each voxel of a patch comes from.

    Returns
    -------
    coordinates : float32, shape (3, z, y, x)
        Voxel positions in the volume.
    spacing : float
        Distance between neighbouring samples, in voxels, along the most stretched axis.
    """
    matrix = draw_matrix(rng, options, isotropic=isotropic)
    axes = [np.arange(s) - (s - 1) / 2 for s in shape]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    moved = (matrix @ offsets).reshape(3, *shape)
    moved += draw_displacement(rng, options, shape) + np.asarray(centre).reshape(3, 1, 1, 1)
    return moved.astype(np.float32), float(np.linalg.norm(matrix, axis=1).max())


def resample(
    raw: Floats, labels: NDArray[np.uint8], coordinates: Floats, spacing: float
) -> tuple[Floats, NDArray[np.uint8]]:
    """Sample raw (linearly) and labels (nearest) at the same coordinates.

    Raw is smoothed first where samples lie farther apart than voxels, so that nothing aliases.
    """
    if spacing > 1.2:
        raw = ndimage.gaussian_filter(raw, 0.4 * spacing, mode="nearest")
    sampled = ndimage.map_coordinates(raw, coordinates, order=1, mode="mirror")
    chosen = ndimage.map_coordinates(labels, coordinates, order=0, mode="mirror")
    return sampled, chosen


def vary_intensity(raw: Floats, rng: np.random.Generator, options: Augmentation) -> Floats:
    """Change contrast, brightness, gamma, sharpness and noise of a patch.

    Parameters
    ----------
    raw : float32, shape (z, y, x)
        Normalised to about -1..1.

    Returns
    -------
    float32, shape (z, y, x)
    """
    varied: NDArray[Any] = raw
    chance = rng.random(5) < options.intensity_probability
    if chance[0]:
        varied = varied * rng.uniform(1 - options.contrast, 1 + options.contrast)
    if chance[1]:
        varied = varied + rng.uniform(-options.brightness, options.brightness)
    if chance[2]:
        exponent = 2.0 ** rng.uniform(-options.gamma, options.gamma)
        varied = 2 * np.clip((varied + 1) / 2, 0, None) ** exponent - 1
    if chance[3]:
        varied = ndimage.gaussian_filter(varied, rng.uniform(0, options.blur))
    if chance[4]:
        varied = varied + rng.normal(0, rng.uniform(0, options.noise), varied.shape)
    return np.asarray(varied, dtype=np.float32)
