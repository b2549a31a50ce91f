"""Draw how training patches are changed: one geometry for raw and labels, then intensities.

All randomness comes from the generator that a function is given, so a patch depends on its seed
only, not on the number of loaders or on the device. `volseg.training.tissue` and
`volseg.training.looks` apply what is drawn here, on any device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    curve : float
        Largest part by which a random rising map of intensities departs from the identity.
    shading : float
        Largest standard deviation of a slow change of brightness over the patch.
    coarse : float
        Largest size of a coarse pixel, in voxels of (y, x); below 1 turns it off.
    strip_probability : float
        Chance that a strip of rows or columns is missing.
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
    curve: float = 0.0
    shading: float = 0.0
    coarse: float = 0.0
    strip_probability: float = 0.0
    intensity_probability: float = 0.5


@dataclass(frozen=True)
class Frame:
    """Tissue as patches see it.

    Attributes
    ----------
    isotropic : whether patches may be turned out of the (y, x) plane.
    planar : whether a patch is one slice, which takes nothing from its neighbours.
    scale : (z, y, x), voxels of the tissue per voxel of the network.
    """

    isotropic: bool = True
    planar: bool = False
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Placement:
    """Map from the voxels of a patch to those of the tissue that it is cut from.

    Attributes
    ----------
    matrix : float64, shape (3, 3)
        From offsets in the patch to offsets in the tissue.
    centre : float64, shape (3,)
        Position of the patch's middle in the tissue.
    knots : float32, shape (3, z, y, x)
        Displacement in voxels of the tissue, at even distances over the patch.
    order : int64, shape (z,)
        Slice of the patch that stands at each z: duplicated slices stand twice.
    offsets : float32, shape (2, z)
        Shift of each slice in y and x, in voxels of the tissue.
    """

    matrix: NDArray[np.float64]
    centre: NDArray[np.float64]
    knots: Floats
    order: NDArray[np.int64]
    offsets: Floats

    @classmethod
    def plain(cls, shape: Zyx, centre: Sequence[float], scale: Sequence[float]) -> Placement:
        """Place a patch about a centre without changes, at so many voxels of the tissue each."""
        none = np.zeros((3, 1, 1, 1), np.float32), np.zeros((2, shape[0]), np.float32)
        return cls(np.diag(scale), np.array(centre), none[0], np.arange(shape[0]), none[1])

    @property
    def spacing(self) -> float:
        """Distance between neighbouring samples, in voxels of (y, x)."""
        return float(np.linalg.norm(self.matrix, axis=1)[1:].min())


def draw_placement(
    rng: np.random.Generator,
    options: Augmentation,
    shape: Zyx,
    centre: tuple[float, float, float],
    frame: Frame,
) -> Placement:
    """Draw where in the tissue the voxels of a patch lie.

    Parameters
    ----------
    shape : (z, y, x)
        Of the patch.
    centre : (z, y, x)
        Voxel of the tissue about which the patch is drawn.
    frame : Frame
    """
    scale = np.array(frame.scale)
    matrix = draw_matrix(rng, options, isotropic=frame.isotropic) * scale[:, None]
    middle = matrix @ (rng.uniform(-options.shift, options.shift, 3) * shape) + centre
    knots = draw_knots(rng, options, shape) * scale.astype(np.float32).reshape(3, 1, 1, 1)
    order, offsets = np.arange(shape[0]), np.zeros((2, shape[0]))
    if frame.planar:
        normal = int(np.abs(matrix[:, 0]).argmax())
        middle[normal] = round(centre[normal])
        knots[normal] = 0  # a slice takes nothing from its neighbours
    else:
        duplicated, shifted = rng.random((2, shape[0])) < options.fault_probability
        order[1:][duplicated[1:]] -= 1
        offsets[:, shifted] = rng.normal(0, options.fault_shift, (2, shifted.sum()))
        offsets *= scale[1:, None]
    return Placement(matrix, middle, knots, order, offsets.astype(np.float32))


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


def draw_knots(rng: np.random.Generator, options: Augmentation, shape: Zyx) -> Floats:
    """Draw a smooth random displacement in voxels at knots, shape (3, z, y, x).

    White noise, smoothed by a Gaussian on a grid half as fine as that Gaussian, scaled to the
    standard deviation that is wanted. Between knots it is interpolated. An axis of one voxel has
    one knot.
    """
    alpha, sigma = options.elastic_alpha, options.elastic_sigma
    if alpha == 0:
        return np.zeros((3, 1, 1, 1), np.float32)
    spacing, smooth = max(sigma / 2, 1.0), sigma / max(sigma / 2, 1.0)
    knots = [max(2, math.ceil(s / spacing) + 1) if s > 1 else 1 for s in shape]
    reach = math.ceil(3 * smooth)
    margins = [reach if s > 1 else 0 for s in shape]
    noise = rng.normal(size=(3, *[k + 2 * m for k, m in zip(knots, margins, strict=True)]))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / smooth) ** 2)
    kernel /= np.sqrt((kernel**2).sum())
    for axis, (k, m) in enumerate(zip(knots, margins, strict=True), 1):
        if m:
            smoothed = ndimage.convolve1d(noise, kernel, axis)
            noise = np.take(smoothed, np.arange(m, m + k), axis)
    return np.asarray(alpha * noise, np.float32)


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


def section_weights(depth: int, thickness: float, phase: float) -> Floats:
    """Weigh the slices of a patch so that it shows thick sections, interpolated.

    Parameters
    ----------
    depth : int
        Slices of the patch.
    thickness : float
        Of a section, in voxels.
    phase : float
        Where in the first section the patch begins, 0..1.

    Returns
    -------
    float32, shape (depth, depth)
        Each row gives one slice: an average along z, then interpolated between sections.

    Examples
    --------
    >>> ramp = np.arange(8, dtype=np.float32)
    >>> [round(float(v), 1) for v in section_weights(8, 3.0, 0.5) @ ramp]
    [0.9, 1.3, 2.0, 3.0, 4.0, 4.9, 5.6, 6.3]
    """
    # all of it is linear along z: what happens to single slices says what happens to all
    odd = 2 * round((thickness - 1) / 2) + 1
    averaged = ndimage.uniform_filter1d(np.eye(depth), odd, 0, mode="nearest")
    centres = np.arange(-phase * thickness, depth + thickness, thickness)
    sections = interpolate(averaged, centres, 0)
    weights = interpolate(sections, (np.arange(depth) - centres[0]) / thickness, 0)
    return np.asarray(weights, np.float32)


KNOTS = 6
"""Of a random map of intensities, between -1 and 1."""
SHADES = 4
"""Knots of a slow change of brightness, along each side."""


@dataclass(frozen=True)
class Look:
    """Changes to the intensities of one patch, in the order in which they are made.

    Attributes
    ----------
    sections : float32, shape (z, z), or None
    coarse : size of coarse pixels in voxels; 1 changes nothing.
    curve : float32, shape (KNOTS,)
        What evenly spaced intensities from -1 to 1 become.
    gain, offset, exponent : of contrast, brightness and gamma.
    shades : float32, shape (SHADES, SHADES)
        Of a slow change of brightness over (y, x).
    blur, noise : standard deviations, in voxels and in intensities.
    seed : of the noise.
    missing : intensity of each slice that is missing, nan elsewhere; float32, shape (z,).
    strip : (axis, start, stop, intensity) of a missing strip, positions in 0..1; or None.
    """

    sections: Floats | None
    coarse: float
    curve: Floats
    gain: float
    offset: float
    exponent: float
    shades: Floats
    blur: float
    noise: float
    seed: int
    missing: Floats
    strip: tuple[int, float, float, float] | None


def draw_look(rng: np.random.Generator, options: Augmentation, depth: int) -> Look:
    """Draw the changes to the intensities of a patch of so many slices."""
    sections = None
    if rng.random() < options.section_probability:
        low, high = np.log(options.section_thickness)
        sections = section_weights(depth, float(np.exp(rng.uniform(low, high))), rng.random())
    drawn = iter(rng.random(8) < options.intensity_probability)

    def uniform(low: float, high: float, otherwise: float) -> float:
        value = float(rng.uniform(low, high))
        return value if next(drawn) else otherwise

    gain = uniform(1 - options.contrast, 1 + options.contrast, 1.0)
    offset = uniform(-options.brightness, options.brightness, 0.0)
    exponent = 2.0 ** uniform(-options.gamma, options.gamma, 0.0)
    blur = uniform(0, options.blur, 0.0)
    noise = uniform(0, options.noise, 0.0)
    curve = draw_curve(rng, uniform(0, options.curve, 0.0))
    shades = rng.normal(0, 1, (SHADES, SHADES)) * uniform(0, options.shading, 0.0)
    coarse = uniform(1, max(options.coarse, 1.0), 1.0)
    missing = np.full(depth, np.nan)
    missing[rng.random(depth) < options.fault_probability] = rng.uniform(-1, 1)
    strip = None
    if rng.random() < options.strip_probability:
        start, width = rng.random(), rng.uniform(0, 0.15)
        strip = int(rng.integers(2)), start, start + width, float(rng.uniform(-1, 1))
    return Look(
        sections,
        coarse,
        curve,
        gain,
        offset,
        exponent,
        shades.astype(np.float32),
        blur,
        noise,
        int(rng.integers(1 << 62)),
        missing.astype(np.float32),
        strip,
    )


def draw_curve(rng: np.random.Generator, strength: float) -> Floats:
    """Draw a rising map of -1..1 to -1..1, at evenly spaced knots; a strength of 0 is the identity.

    Examples
    --------
    >>> [round(float(v), 1) for v in draw_curve(np.random.default_rng(0), 0.0)]
    [-1.0, -0.6, -0.2, 0.2, 0.6, 1.0]
    """
    steps = rng.dirichlet(np.ones(KNOTS - 1))
    rising = 2 * np.concatenate([[0.0], steps.cumsum()]) - 1
    even = np.linspace(-1, 1, KNOTS)
    return ((1 - strength) * even + strength * rising).astype(np.float32)
