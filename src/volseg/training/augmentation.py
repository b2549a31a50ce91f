"""Augmentation of training patches: one geometry for raw and labels, then intensities for raw.

All randomness comes from the generator that a function is given, so a patch depends on its seed
only, not on the number of loaders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.types import Floats, Zyx


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the random changes to patches.

    Attributes
    ----------
    zoom : (low, high)
        Isotropic magnification, log-uniform; below 1 shows more of the tissue, smaller.
    centre_crop : float
        Chance that a patch is cut from the middle of what is trained on; others are random crops.
    shift : float
        Largest shift along each axis, as a part of the patch's side.
    elastic_alpha, elastic_sigma : float
        Standard deviation of a smooth random displacement, and the standard deviation of the
        Gaussian that makes it smooth, in voxels; an alpha of 0 turns it off.
    rotate_probability : float
        Chance of a rotation by any angle in the (y, x) plane.
    section_probability, section_thickness : float, (low, high)
        Chance that raw is shown as sections, and their thickness in voxels, log-uniform.
    fault_probability, fault_shift : float
        Chance that a slice is duplicated or shifted, or missing, each; the standard deviation of
        the shift in voxels.
    contrast, brightness, gamma : float
        Half-widths: gain in 1 +- contrast, offset in +- brightness, log2 of gamma in +- gamma.
    noise, blur : float
        Largest standard deviations, of the noise (raw spans about -1..1) and of the blur (voxels).
    intensity_probability : float
        Chance of each of the intensity changes.
    """

    zoom: tuple[float, float] = (0.7, 1.4)
    centre_crop: float = 0.0
    shift: float = 0.2
    elastic_alpha: float = 2.0
    elastic_sigma: float = 12.0
    rotate_probability: float = 0.5
    section_probability: float = 0.2
    section_thickness: tuple[float, float] = (1.5, 6.0)
    fault_probability: float = 0.01
    fault_shift: float = 2.0
    contrast: float = 0.5
    brightness: float = 0.4
    gamma: float = 0.8
    noise: float = 0.3
    blur: float = 1.5
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
    """Draw a smooth random displacement in voxels, shape (3, z, y, x).

    White noise, smoothed by a Gaussian on a grid half as fine as that Gaussian, scaled to the
    standard deviation that is wanted, and interpolated.
    """
    alpha, sigma = options.elastic_alpha, options.elastic_sigma
    if alpha == 0:
        return np.zeros((3, *shape), np.float32)
    spacing, smooth = max(sigma / 2, 1.0), sigma / max(sigma / 2, 1.0)
    knots = [max(2, math.ceil(s / spacing) + 1) for s in shape]
    margin = math.ceil(3 * smooth)
    noise = rng.normal(size=(3, *[k + 2 * margin for k in knots]))
    kernel = np.exp(-0.5 * (np.arange(-margin, margin + 1) / smooth) ** 2)
    kernel /= np.sqrt((kernel**2).sum())
    for axis in (1, 2, 3):
        noise = ndimage.convolve1d(noise, kernel, axis)
    inner = slice(margin, -margin)
    field = noise[:, inner, inner, inner]
    for axis, (s, k) in enumerate(zip(shape, knots, strict=True), 1):
        field = interpolate(field, np.linspace(0, k - 1, s), axis)
    return np.asarray(alpha * field, np.float32)


def interpolate(values: NDArray[Any], positions: NDArray[np.float64], axis: int) -> NDArray[Any]:
    """Interpolate linearly along an axis; positions beyond the ends take what is there.

    Examples
    --------
    >>> interpolate(np.array([0.0, 10.0]), np.array([-1, 0.25, 1]), 0).tolist()
    [0.0, 2.5, 10.0]
    """
    last = values.shape[axis] - 1
    inside = np.clip(positions, 0, last)
    low = np.minimum(inside.astype(int), max(last - 1, 0))
    part = (inside - low).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    near, far = np.take(values, low, axis), np.take(values, np.minimum(low + 1, last), axis)
    return np.asarray(near * (1 - part) + far * part)


def draw_faults(rng: np.random.Generator, options: Augmentation, coordinates: Floats) -> Floats:
    """Duplicate and shift slices, of raw and labels alike.

    Parameters
    ----------
    coordinates : float32, shape (3, z, y, x)
        Of a patch; not changed.
    """
    depth = coordinates.shape[1]
    duplicated, shifted = rng.random((2, depth)) < options.fault_probability
    offsets = rng.normal(0, options.fault_shift, (2, depth))
    order = np.arange(depth)
    order[1:][duplicated[1:]] -= 1
    moved = coordinates[:, order]
    moved[1:, shifted] += offsets[:, shifted, None, None].astype(np.float32)
    return moved


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
    moved += draw_displacement(rng, options, shape)
    shift = rng.uniform(-options.shift, options.shift, 3) * shape
    moved += (matrix @ shift + centre).reshape(3, 1, 1, 1)
    coordinates = draw_faults(rng, options, moved.astype(np.float32))
    return coordinates, float(np.linalg.norm(matrix, axis=1).max())


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


def show_sections(raw: Floats, thickness: float, phase: float) -> Floats:
    """Simulate thick sections: average along z, then interpolate.

    Parameters
    ----------
    raw : float32, shape (z, y, x)
    thickness : float
        Of a section, in voxels.
    phase : float
        Where in the first section the patch begins, 0..1.

    Returns
    -------
    float32, shape (z, y, x)

    Examples
    --------
    >>> ramp = np.arange(8, dtype=np.float32).reshape(8, 1, 1)
    >>> [round(float(v), 1) for v in show_sections(ramp, 3.0, 0.5).ravel()]
    [0.9, 1.3, 2.0, 3.0, 4.0, 4.9, 5.6, 6.3]
    """
    depth = len(raw)
    # all of it is linear along z: what happens to single slices says what happens to all
    odd = 2 * round((thickness - 1) / 2) + 1
    averaged = ndimage.uniform_filter1d(np.eye(depth), odd, 0, mode="nearest")
    centres = np.arange(-phase * thickness, depth + thickness, thickness)
    sections = interpolate(averaged, centres, 0)
    weights = interpolate(sections, (np.arange(depth) - centres[0]) / thickness, 0)
    return np.asarray(np.tensordot(weights.astype(np.float32), raw, axes=1))


def vary_intensity(raw: Floats, rng: np.random.Generator, options: Augmentation) -> Floats:
    """Change sections, contrast, brightness, gamma, sharpness, noise and single slices of a patch.

    Parameters
    ----------
    raw : float32, shape (z, y, x)
        Normalised to about -1..1.

    Returns
    -------
    float32, shape (z, y, x)
    """
    varied: NDArray[Any] = raw
    drawn = rng.random(5) < options.intensity_probability
    if rng.random() < options.section_probability:
        low, high = np.log(options.section_thickness)
        varied = show_sections(varied, float(np.exp(rng.uniform(low, high))), rng.random())
    if drawn[0]:
        varied = varied * rng.uniform(1 - options.contrast, 1 + options.contrast)
    if drawn[1]:
        varied = varied + rng.uniform(-options.brightness, options.brightness)
    if drawn[2]:
        exponent = 2.0 ** rng.uniform(-options.gamma, options.gamma)
        level = (varied + 1) / 2
        varied = 2 * np.sign(level) * np.abs(level) ** exponent - 1
    if drawn[3]:
        varied = ndimage.gaussian_filter(varied, rng.uniform(0, options.blur))
    if drawn[4]:
        varied = varied + rng.normal(0, rng.uniform(0, options.noise), varied.shape)
    missing = rng.random(len(raw)) < options.fault_probability
    if missing.any():
        varied = np.where(missing[:, None, None], rng.uniform(-1, 1), varied)
    return np.asarray(varied, dtype=np.float32)
