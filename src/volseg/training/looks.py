"""Draw changes to the intensities of patches, and apply them to a batch, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from volseg.training.augmentation import Augmentation
from volseg.types import Floats


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
    depth : slices of the patch.
    thickness : of a section, in voxels.
    phase : where in the first section the patch begins, 0..1.

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
    from scipy import ndimage  # heavy, and only training needs it

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
    curve : float32, shape (KNOTS,); what evenly spaced intensities from -1 to 1 become.
    gain, offset, exponent : of contrast, brightness and gamma.
    shades : float32, shape (SHADES, SHADES); of a slow change of brightness over (y, x).
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


def apply_looks(raw: Tensor, looks: Sequence[Look]) -> Tensor:
    """Apply to each patch the changes that were drawn for it.

    Parameters
    ----------
    raw : float32, shape (n, 1, z, y, x); normalised to about -1..1.
    looks : one for each patch.

    Returns
    -------
    float32, shape (n, 1, z, y, x)
    """
    patches = [_resolve(patch, look) for patch, look in zip(raw[:, 0], looks, strict=True)]
    varied = torch.stack(patches)  # (n, z, y, x)

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=raw.device)[:, None, None, None]

    varied = _map_intensities(varied, np.stack([look.curve for look in looks]))
    varied = varied * column([k.gain for k in looks]) + column([k.offset for k in looks])
    if any(look.exponent != 1 for look in looks):
        level = (varied + 1) / 2
        varied = 2 * level.sign() * level.abs() ** column([k.exponent for k in looks]) - 1
    varied = _shade(varied, np.stack([look.shades for look in looks]))
    varied = _blur(varied, [look.blur for look in looks])
    parts = [_finish(patch, look) for patch, look in zip(varied, looks, strict=True)]
    return torch.stack(parts)[:, None]


def _resolve(patch: Tensor, look: Look) -> Tensor:
    """Show a patch, shape (z, y, x), as thick sections and with coarse pixels."""
    if look.sections is not None and len(patch) > 1:
        weights = torch.from_numpy(look.sections).to(patch.device)
        patch = torch.tensordot(weights, patch, dims=1)
    if look.coarse > 1:
        size = patch.shape[-2:]
        fewer = [max(round(n / look.coarse), 1) for n in size]
        small = functional.interpolate(patch[None], fewer, mode="area")
        patch = functional.interpolate(small, size, mode="bilinear")[0]
    return patch


def _map_intensities(varied: Tensor, curves: NDArray[np.float32]) -> Tensor:
    """Map intensities piecewise linearly; beyond -1..1 the last pieces go on."""
    even = np.linspace(-1, 1, KNOTS, dtype=np.float32)
    if np.abs(curves - even).max() < 1e-6:
        return varied
    table = torch.from_numpy(curves).to(varied.device)
    position = (varied + 1) * ((KNOTS - 1) / 2)
    below = position.detach().floor().clamp(0, KNOTS - 2).long()
    flat = below.flatten(1)
    start, stop = table.gather(1, flat), table.gather(1, flat + 1)
    part = position.flatten(1) - flat
    return (start + (stop - start) * part).reshape(varied.shape)


def _shade(varied: Tensor, shades: NDArray[np.float32]) -> Tensor:
    if not shades.any():
        return varied
    knots = torch.from_numpy(shades).to(varied.device)[:, None]
    slow = functional.interpolate(knots, varied.shape[-2:], mode="bicubic", align_corners=True)
    return varied + slow


def _blur(varied: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Blur each patch along all its axes by a Gaussian of its own, reflected at the border."""
    chosen = [k for k, sigma in enumerate(sigmas) if sigma > 0.1]
    if not chosen:
        return varied
    part = varied[chosen]
    widest = max(sigmas[k] for k in chosen)
    for axis in (1, 2, 3):
        radius = min(math.ceil(3 * widest), part.shape[axis] - 1)
        if radius < 1:
            continue
        offsets = np.arange(-radius, radius + 1)
        kernels = np.exp(-0.5 * (offsets / np.array([[sigmas[k]] for k in chosen])) ** 2)
        kernels /= kernels.sum(axis=1, keepdims=True)
        weights = torch.from_numpy(kernels.astype(np.float32)).to(varied.device)
        index = np.pad(np.arange(part.shape[axis]), radius, mode="symmetric")
        padded = part.index_select(axis, torch.from_numpy(index).to(varied.device))
        blurred = torch.zeros_like(part)
        for k in range(2 * radius + 1):
            weight = weights[:, k][:, None, None, None]
            blurred.addcmul_(padded.narrow(axis, k, part.shape[axis]), weight)
        part = blurred
    varied = varied.clone()
    varied[chosen] = part
    return varied


def _finish(patch: Tensor, look: Look) -> Tensor:
    """Add noise, and take away what is missing, in a patch of shape (z, y, x)."""
    if look.noise > 0:
        # drawn on the CPU, so that the numbers are the same on every device
        generator = torch.Generator().manual_seed(look.seed)
        drawn = torch.randn(patch.shape, generator=generator)
        patch = patch + look.noise * drawn.to(patch.device)
    if not np.isnan(look.missing).all():
        missing = torch.from_numpy(look.missing).to(patch.device)[:, None, None]
        patch = torch.where(missing.isnan(), patch, missing)
    if look.strip is not None:
        axis, start, stop, intensity = look.strip
        length = patch.shape[1 + axis]
        first, last = round(start * length), min(round(stop * length), length)
        patch = patch.clone()
        patch.narrow(1 + axis, first, last - first).fill_(intensity)
    return patch
