"""The patch that something is painted onto, and the smooth fields that shape what is painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from volseg.types import Floats, Zyx

DARKEST, BRIGHTEST = 0.02, 0.98
"""Parts of a patch's voxels below what is dark in it, and below what is bright."""
OWN = 0.75
"""Part of what is painted that has the grain of the patch: white noise would give it away."""


REACH = 64
"""Voxels between the knots of a smooth field, at a coarseness of 1."""


@dataclass(frozen=True)
class Canvas:
    """Intensities of a patch to paint on.

    Attributes
    ----------
    raw : float32, shape (z, y, x)
    dark, bright : intensities of the darkest and of the brightest that it shows.
    """

    raw: Tensor
    dark: float
    bright: float

    @classmethod
    def of(cls, raw: Tensor) -> Canvas:
        """Find what is dark and what is bright in a patch."""
        sample = raw.flatten()[:: max(raw.numel() // 4096, 1)]
        ends = torch.quantile(sample, torch.tensor([DARKEST, BRIGHTEST]).to(sample))
        return cls(raw, *ends.tolist())

    def noise(self, seed: int) -> Tensor:
        """Draw white noise of the patch's shape, the same on any device."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self.raw.shape, generator=generator).to(self.raw.device)

    def grain(self, seed: int, *, own: bool) -> Tensor:
        """Take the finest structure of the patch from elsewhere in it, without its membranes.

        If it is not to have its own, take white noise.
        """
        if not own:
            return 0.06 * (self.bright - self.dark) * self.noise(seed)
        fine = self.raw - functional.avg_pool2d(self.raw, 3, 1, 1, count_include_pad=False)
        limit = float(3 * fine.abs().median())
        height, width = self.raw.shape[-2:]
        return fine.clamp(-limit, limit).roll((height // 2, width // 2), (-2, -1)).flip(-1)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(*np.log((low, high)))))


def random_knots(rng: np.random.Generator, shape: Zyx, coarseness: tuple[float, float]) -> Floats:
    """Draw the knots of a smooth field over a patch, shape (kz, ky, kx); an axis of 1 has one."""
    reach = REACH * log_uniform(rng, *coarseness)
    counts = [max(round(n / reach) + 1, 2) if n > 1 else 1 for n in shape]
    return rng.normal(size=counts).astype(np.float32)


def measure_inside(knots: Floats, level: float, raw: Tensor) -> Tensor:
    """Measure about how many voxels each lies within where a smooth field is above a level.

    Parameters
    ----------
    knots : float32, shape (kz, ky, kx)
    level : 0..1 of the range of the field.
    raw : shape (z, y, x); the patch.

    Returns
    -------
    float32, shape (z, y, x); negative outside.
    """
    depth, height, width = raw.shape
    given = torch.from_numpy(knots).to(raw.device)[None, None]
    along = functional.interpolate(
        given, (depth, *given.shape[-2:]), mode="trilinear", align_corners=True
    )[0, 0]
    field = functional.interpolate(
        along[:, None], (height, width), mode="bicubic", align_corners=True
    )[:, 0]
    axes = [k for k, n in enumerate(raw.shape) if n > 1]
    steep = torch.stack([g.square() for g in torch.gradient(field, dim=axes)]).sum(0).sqrt()
    low, high = field.min(), field.max()
    return (field - (low + level * (high - low))) / steep.clamp(
        min=float(steep.mean()) * 0.3 + 1e-6
    )


def mottle(noise: Tensor, size: float) -> Tensor:
    """Turn white noise of a patch's shape into mottles of about this size in voxels, along z too.

    One slice keeps a way of its own: that of volumes is other than it in last bits.
    """
    z, y, x = (max(round(n / size), 1) for n in noise.shape)
    small = noise[:z, :y, :x]
    if len(noise) == 1:
        return functional.interpolate(small[None], noise.shape[1:], mode="bilinear")[0]
    return functional.interpolate(small[None, None], noise.shape, mode="trilinear")[0, 0]
