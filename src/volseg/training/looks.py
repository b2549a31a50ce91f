"""Change the intensities of a batch of patches, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from volseg.training.augmentation import KNOTS, Look


def apply_looks(raw: Tensor, looks: Sequence[Look]) -> Tensor:
    """Apply to each patch the changes that were drawn for it.

    Parameters
    ----------
    raw : float32, shape (n, 1, z, y, x)
        Normalised to about -1..1.
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
        # a small floor keeps the derivative of the power finite and changes nothing to be seen
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
