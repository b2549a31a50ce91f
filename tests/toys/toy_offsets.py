"""Volumes that point exactly at a centre, and a network that sees it."""

from __future__ import annotations

import numpy as np
import torch

from volseg.models.maps import build_maps

REACH = 32.0


class Pointing(torch.nn.Module):
    """A network that is right: it finds the nearest peak of the profile along each axis."""

    def forward(self, seen):
        found = [seen.new_zeros(seen.shape)]
        planes = range(2, seen.dim())
        for axis in planes:
            others = [a for a in planes if a != axis]
            profile = seen.double().mean(others, keepdim=True)
            low = torch.nn.functional.pad(profile.flatten(2), (1, 1), value=-1e9)
            peak = (low[..., 1:-1] > low[..., :-2]) & (low[..., 1:-1] > low[..., 2:])
            at = torch.arange(seen.shape[axis], dtype=torch.float64)
            away = (at[None, None, None] - at[:, None]).expand(len(seen), 1, -1, -1)
            far = torch.where(peak[:, :, None], away.abs(), 1e9).argmin(-1)
            vector = away.gather(-1, far[..., None])[..., 0]
            shape = [len(seen), 1, *(seen.shape[a] if a == axis else 1 for a in planes)]
            found.append(
                torch.logit(0.5 + vector.reshape(shape) / (2 * REACH)).float().expand_as(seen)
            )
        if seen.dim() == 4:  # of slices, which tell nothing of their normal
            found.insert(1, torch.zeros_like(seen))
        return torch.cat(found, 1)


POINTS = build_maps(["cells"], ["offset"])


def peaked(centre, shape):
    """Draw what is brightest at a point in every slice along every axis that crosses it."""
    lines = [40.0 - 2 * np.abs(np.arange(n) - c) for n, c in zip(shape, centre, strict=True)]
    z, y, x = np.ix_(*lines)
    found = [c - a for a, c in zip(np.indices(shape), centre, strict=True)]
    return np.float32(z + y + x), np.stack(found) / (2 * REACH) + 0.5
