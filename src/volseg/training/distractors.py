"""Paint dark things that are no mitochondria onto training patches, on any device.

They stand for what annotated data sets show too little of, and what networks take for
mitochondria: granules and pigment, red cells, edges of resin. Myelin and nuclei have modules of
their own. What is painted is background in the target (`volseg.training.painting`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from volseg.training.canvas import OWN, Canvas, log_uniform, measure_inside, mottle, random_knots
from volseg.types import Floats, Zyx


@dataclass(frozen=True)
class Distractor:
    """Something to paint onto a patch.

    Attributes
    ----------
    kind : region, edge or granules.
    knots : float32, shape (kz, ky, kx); of a smooth field over the patch; granules have none.
    level : of the field, 0..1 of its range, at which a region or an edge begins.
    seam : width of the dark line along an edge, in voxels.
    grain : size of the mottles of a region in voxels; 0 is even.
    spots : float32, shape (n, 4); centre (z, y, x) and radius of granules, in voxels.
    halo : whether granules have a bright seam.
    depth : how much darker than dark it is; raw spans about -1..1.
    seed : of its noise.
    own : whether its grain is that of the patch: white noise would tell it from tissue.
    """

    kind: str
    knots: Floats
    level: float
    seam: float
    grain: float
    spots: Floats
    halo: bool
    depth: float
    seed: int
    own: bool


def draw_distractor(rng: np.random.Generator, shape: Zyx, kind: str) -> Distractor:
    """Draw a distractor of this kind to paint onto a patch of this shape."""
    if kind == "edge":  # a plane: two knots along each axis
        slope = rng.normal(size=3) * (0.2, 1, 1)
        corners = np.indices((2, 2, 2)).reshape(3, -1).T @ slope
        knots = corners.reshape(2, 2, 2).astype(np.float32)
    else:
        knots = random_knots(rng, shape, (0.5, 3.0))
    radii = np.exp(rng.normal(math.log(float(np.exp(rng.uniform(1.1, 2.8)))), 0.2, 40))
    spread = rng.uniform(0.05, 0.5)
    places = rng.uniform(0, 1, 3) + rng.normal(0, spread, (len(radii), 3))
    count = int(rng.integers(3, len(radii)))
    spots = np.column_stack([places * shape, radii])[:count]
    return Distractor(  # in the order of its arguments
        kind=kind,
        knots=knots,
        level=float(rng.uniform(0.6, 0.85) if kind == "region" else rng.uniform(0.3, 0.7)),
        seam=log_uniform(rng, 0.5, 10),
        grain=float(rng.uniform(2, 8)) if rng.random() < 0.6 else 0.0,
        spots=spots.astype(np.float32),
        halo=bool(rng.random() < 0.5),
        depth=float(rng.uniform(-0.25, 0.35)),
        seed=int(rng.integers(1 << 62)),
        own=bool(rng.random() < OWN),
    )


def shape_distractor(chosen: Distractor, canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Return how far a distractor covers each voxel, 0..1, and the intensities that it has."""
    raw, dark, bright = canvas.raw, canvas.dark, canvas.bright
    noise = canvas.noise(chosen.seed)
    base = dark - chosen.depth * (bright - dark) / 2
    look = base + canvas.grain(chosen.seed, own=chosen.own)
    if chosen.kind == "granules":
        beyond = _beyond_spots(chosen.spots, raw)
        if chosen.halo:
            look = torch.where(beyond > 0, torch.full_like(raw, bright), look)
            return (2.5 - beyond).clamp(0, 1), look
        return (0.5 - beyond).clamp(0, 1), look
    inside = measure_inside(chosen.knots, chosen.level, raw)
    if chosen.kind == "edge":
        look = torch.where(inside < chosen.seam, base, torch.full_like(raw, bright)) + 0.02 * noise
    elif chosen.grain:
        look = base + 0.15 * (bright - dark) * mottle(noise, chosen.grain)
    return (inside + 0.5).clamp(0, 1), look


def _beyond_spots(spots: Floats, raw: Tensor) -> Tensor:
    """Measure how far each voxel lies outside of the nearest granule; negative inside."""
    at = torch.meshgrid(*(torch.arange(n, device=raw.device) for n in raw.shape), indexing="ij")
    beyond = torch.full_like(raw, math.inf)
    for spot in spots.tolist():
        parts = [(a - c).square() for a, c in zip(at, spot, strict=False) if a.shape[0] >= 1]
        if raw.shape[0] == 1:
            parts = parts[1:]
        distance = torch.stack(parts).sum(0).sqrt()
        beyond = torch.minimum(beyond, distance - spot[3])
    return beyond
