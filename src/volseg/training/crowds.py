"""Paint mitochondria onto training patches: wide, and side by side, as they are in muscle.

Annotated brain shows none of these, and a network that learns from it what only looks like a
mitochondrion takes them for that. What is painted is foreground in the target.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from volseg.training.canvas import OWN, Canvas
from volseg.types import Floats, Zyx

SIDES = (24.0, 110.0)
"""Smallest and largest mean side of a cell, in voxels."""
MOST = 128
"""Cells of a patch."""
OUTLINE = 1.5
"""Width of a cell's dark outline, in voxels."""
ROUNDNESS = 4.0
"""Over how many voxels corners are rounded off."""


@dataclass(frozen=True)
class Crowd:
    """Cells to paint onto a patch: those of a Voronoi diagram, squeezed, rounded off and apart.

    Attributes
    ----------
    seeds : float32, shape (n, 3); middles (z, y, x) of the cells, in voxels.
    taken : bool, shape (n,); cells that are painted.
    angle, squeeze : of the axis in the (y, x) plane along which cells are narrower, in radians,
        and how many times.
    radius, gap : where a cell ends at the latest, and how far cells are apart, in voxels.
    period : of the cristae in voxels; 0 has none.
    level : of the ground, from what is dark in the patch (0) to what is bright (1).
    seed : of its noise.
    own : whether its grain is that of the patch.
    """

    seeds: Floats
    taken: NDArray[np.bool_]
    angle: float
    squeeze: float
    radius: float
    gap: float
    period: float
    level: float
    seed: int
    own: bool


def draw_crowd(rng: np.random.Generator, shape: Zyx) -> Crowd:
    """Draw mitochondria to paint onto a patch of this shape."""
    side = float(np.exp(rng.uniform(*np.log(SIDES))))
    count = min(max(round(1.5 * shape[1] * shape[2] / side**2), 4), MOST)
    margin = np.array([0.0, 0.1, 0.1])
    seeds = rng.uniform(-margin, 1 + margin, (count, 3)) * shape
    return Crowd(
        seeds=seeds.astype(np.float32),
        taken=rng.random(count) < rng.uniform(0.4, 1),
        angle=float(rng.uniform(0, math.pi)),
        squeeze=float(np.exp(rng.uniform(0, math.log(3)))),
        radius=side * float(rng.uniform(0.45, 0.8)),
        gap=float(rng.uniform(0, 3)),
        period=float(rng.uniform(3, 8)) if rng.random() < 0.6 else 0.0,
        level=float(rng.uniform(0, 0.45)),
        seed=int(rng.integers(1 << 62)),
        own=bool(rng.random() < OWN),
    )


def shape_crowd(chosen: Crowd, canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Return how far mitochondria cover each voxel, 0..1, and the intensities that they have."""
    raw, span = canvas.raw, canvas.bright - canvas.dark
    axes = [torch.arange(n, dtype=torch.float32, device=raw.device) for n in raw.shape]
    at = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    inside, cell = _cells(chosen, at.reshape(-1, 3))
    inside, cell = inside.reshape(raw.shape), cell.reshape(raw.shape)
    look = canvas.dark + chosen.level * span + canvas.grain(chosen.seed, own=chosen.own)
    if chosen.period:
        look = look + 0.08 * span * _cristae(at, cell, chosen.period)
    look = torch.where(inside < OUTLINE, canvas.dark, look)
    taken = torch.from_numpy(chosen.taken).to(raw.device)
    return (inside + 0.5).clamp(0, 1) * taken[cell], look


def _cells(chosen: Crowd, at: Tensor) -> tuple[Tensor, Tensor]:
    """Measure how far points, shape (n, 3), lie inside of their cell, in voxels; number cells."""
    cos, sin = math.cos(chosen.angle), math.sin(chosen.angle)
    broad, narrow = 1 / math.sqrt(chosen.squeeze), math.sqrt(chosen.squeeze)
    turn = torch.tensor(
        [[1, 0, 0], [0, cos * broad, -sin * narrow], [0, sin * broad, cos * narrow]],
        device=at.device,
    )
    middles = torch.from_numpy(chosen.seeds).to(at.device) @ turn
    near, cells = torch.cdist(at @ turn, middles).topk(2, largest=False)
    apart = (middles[cells[:, 0]] - middles[cells[:, 1]]).norm(dim=1).clamp(min=1e-3)
    border = (near[:, 1].square() - near[:, 0].square()) / (2 * apart)
    rim = chosen.radius - near[:, 0]
    inside = -ROUNDNESS * torch.logaddexp(-border / ROUNDNESS, -rim / ROUNDNESS)
    return inside - chosen.gap / 2, cells[:, 0]


def _cristae(at: Tensor, cell: Tensor, period: float) -> Tensor:
    """Draw bent stripes, -1..1, along another way in each cell."""
    way = 2.4 * cell % math.pi
    y, x = at[..., 1], at[..., 2]
    bent = 2 * torch.sin((x - y) / (2.5 * period) + way)
    return torch.cos((y * way.cos() + x * way.sin() + bent) * (2 * math.pi / period))
