"""Draw how training patches are changed: one geometry for raw and labels, then intensities.

All randomness comes from the generator that a function is given, so a patch depends on its seed
only, not on the number of loaders or on the device. `volseg.training.tissue` cuts patches
as they were placed here, `volseg.training.looks` changes their intensities, on any device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.types import Floats, Zyx

MIRRORED = (8.0, 40.0)
"""Half of the shortest and of the longest side of a box that is reflected, in voxels."""


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the random changes to patches.

    Attributes
    ----------
    flip_probability, turn_probability : float
        Chance that a patch may be flipped, and turned by quarters; all ways are then as likely.
    zoom_probability, zoom : chance and range of an isotropic magnification, log-uniform; below 1
        shows more of the tissue, smaller.
    stretch, shear : largest logarithm of a magnification along y that is undone along x, and
        largest shift along y, in voxels for each voxel along x.
    centre_crop : float
        Chance that a patch is cut from the middle of what is trained on; others are random crops.
    shift_probability, shift : float
        Chance of a shift, and the largest along each axis, as a part of the patch's side.
    elastic_probability, elastic_alpha, elastic_sigma : float
        Chance of a smooth random displacement, its standard deviation, and that of the Gaussian
        that makes it smooth, in voxels; an alpha of 0 turns it off.
    rotate_probability, rotate : float, (low, high)
        Chance of a rotation in the (y, x) plane, and its range, in degrees.
    mirror_probability : float
        Chance that a patch shows a small box of tissue and its reflections in y and x, side by
        side: what lies in the box looks wide and crowded, as mitochondria in muscle do.
    section_probability, section_thickness : float, (low, high)
        Chance that raw is shown as sections, and their thickness in voxels, log-uniform.
    fault_probability, fault_shift : chance that a slice is duplicated or shifted, or missing, each;
        the standard deviation of the shift in voxels.
    contrast, brightness, gamma : float
        Half-widths: gain in 1 +- contrast, offset in +- brightness, log2 of gamma in +- gamma.
    noise, blur : float
        Largest standard deviations, of the noise (raw spans about -1..1) and of the blur (voxels).
    curve : largest part by which a random rising map of intensities departs from the identity.
    shading : largest standard deviation of a slow change of brightness over the patch.
    coarse : largest size of a coarse pixel, in voxels of (y, x); below 1 turns it off.
    strip_probability : chance that a strip of rows or columns is missing.
    intensity_probability : chance of each of the intensity changes.
    sheath_probability, granule_probability, region_probability, edge_probability : float
        Chance that something is painted which is no mitochondrion, each: a band as of myelin
        (`volseg.training.sheaths`), dark discs, a wide dark region, the edge of the resin
        (`volseg.training.distractors`).
    nucleus_probability : the same of a nucleus with clumps of chromatin; see
        `volseg.training.nuclei`.
    crowd_probability : chance that mitochondria are painted, wide, side by side, or apart; see
        `volseg.training.crowds`.
    """

    flip_probability: float = 1.0
    turn_probability: float = 1.0
    zoom_probability: float = 1.0
    zoom: tuple[float, float] = (0.7, 1.4)
    stretch: float = 0.0
    shear: float = 0.0
    centre_crop: float = 0.0
    shift_probability: float = 1.0
    shift: float = 0.2
    elastic_probability: float = 1.0
    elastic_alpha: float = 2.0
    elastic_sigma: float = 12.0
    rotate_probability: float = 0.5
    rotate: tuple[float, float] = (0.0, 180.0)
    mirror_probability: float = 0.0
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
    sheath_probability: float = 0.0
    granule_probability: float = 0.0
    region_probability: float = 0.0
    edge_probability: float = 0.0
    nucleus_probability: float = 0.0
    crowd_probability: float = 0.0


CALM = Augmentation(
    zoom=(0.8, 1.25),
    shift=0.25,
    elastic_alpha=1.0,
    rotate_probability=0.7,
    section_probability=0.0,
    fault_probability=0.0,
    contrast=0.2,
    brightness=0.15,
    gamma=0.3,
    noise=0.1,
    blur=0.7,
)
"""Weaker than what weights are made with: for what they learn of one volume (decision 0092)."""


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
    matrix : float64, shape (3, 3); from offsets in the patch to offsets in the tissue.
    centre : float64, shape (3,); position of the patch's middle in the tissue.
    knots : float32, shape (3, z, y, x)
        Displacement in voxels of the tissue, at even distances over the patch.
    order : int64, shape (z,)
        Slice of the patch that stands at each z: duplicated slices stand twice.
    offsets : float32, shape (2, z); shift of each slice in y and x, in voxels of the tissue.
    mirror : (y, x), optional
        Half the sides of the box about the middle, in voxels of the patch, whose reflections
        fill the patch.
    """

    matrix: NDArray[np.float64]
    centre: NDArray[np.float64]
    knots: Floats
    order: NDArray[np.int64]
    offsets: Floats
    mirror: tuple[float, float] | None = None

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
    shape : (z, y, x); of the patch.
    centre : (z, y, x); voxel of the tissue about which the patch is drawn.
    frame : Frame
    """
    scale = np.array(frame.scale)
    matrix = draw_matrix(rng, options, isotropic=frame.isotropic) * scale[:, None]
    mirror = draw_mirror(rng, options)
    extent = shape if mirror is None else (shape[0], *(2 * side for side in mirror))
    shift = options.shift * _happens(rng, options.shift_probability)
    middle = matrix @ (rng.uniform(-shift, shift, 3) * extent) + centre
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
    return Placement(matrix, middle, knots, order, offsets.astype(np.float32), mirror)


def draw_mirror(rng: np.random.Generator, options: Augmentation) -> tuple[float, float] | None:
    """Draw half the sides (y, x) of a box to reflect, in voxels of the patch; mostly none."""
    if not options.mirror_probability or rng.random() >= options.mirror_probability:
        return None
    shortest, longest = np.log(MIRRORED)
    y, x = np.exp(rng.uniform(shortest, longest, 2)).tolist()
    return y, x


def _happens(rng: np.random.Generator, probability: float) -> bool:
    """Draw whether a change happens; what is certain takes no random number."""
    return probability >= 1 or (probability > 0 and rng.random() < probability)


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
    turned = _happens(rng, options.turn_probability)
    if not _happens(rng, options.flip_probability):
        matrix = _without_flips(matrix, isotropic=isotropic) if turned else np.eye(3)
    elif not turned:
        matrix = np.diag(matrix.sum(axis=1))  # its flips alone
    if rng.random() < options.rotate_probability:
        angle = rng.uniform(*np.radians(options.rotate))
        turn = np.eye(3)
        turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix = matrix @ turn
    if options.shear:
        matrix = matrix @ np.array(
            [[1, 0, 0], [0, 1, rng.uniform(-1, 1) * options.shear], [0, 0, 1]]
        )
    if options.stretch:
        side = np.exp(rng.uniform(-1, 1) * options.stretch)
        matrix = matrix @ np.diag([1, side, 1 / side])
    low, high = np.log(options.zoom)
    zoom = np.exp(rng.uniform(low, high)) if _happens(rng, options.zoom_probability) else 1.0
    scale = np.full(3, 1 / zoom) if isotropic else np.array([1, 1 / zoom, 1 / zoom])
    scaled: NDArray[np.float64] = matrix * scale[:, None]
    return scaled


def _without_flips(matrix: NDArray[np.float64], *, isotropic: bool) -> NDArray[np.float64]:
    """Make a signed permutation a rotation."""
    turned = matrix.copy()
    if not isotropic:
        turned[0, 0] = 1
    turned[1] *= np.round(np.linalg.det(turned))
    return turned


def draw_knots(rng: np.random.Generator, options: Augmentation, shape: Zyx) -> Floats:
    """Draw a smooth random displacement in voxels at knots, shape (3, z, y, x).

    White noise, smoothed by a Gaussian on a grid half as fine as that Gaussian, scaled to the
    standard deviation that is wanted. Between knots it is interpolated. An axis of one voxel has
    one knot.
    """
    from scipy import ndimage  # heavy, and only training needs it

    alpha, sigma = options.elastic_alpha, options.elastic_sigma
    if alpha == 0 or not _happens(rng, options.elastic_probability):
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
