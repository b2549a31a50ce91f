"""The patch that something is painted onto: its intensities, and its grain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

DARKEST, BRIGHTEST = 0.02, 0.98
"""Parts of a patch's voxels below what is dark in it, and below what is bright."""
OWN = 0.75
"""Part of what is painted that has the grain of the patch: white noise would give it away."""


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
