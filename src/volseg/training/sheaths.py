"""Paint myelin onto training patches: dark bands whose width changes, with or without lamellae."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from volseg.training.canvas import OWN, Canvas, log_uniform, measure_inside, mottle, random_knots
from volseg.types import Floats, Zyx


@dataclass(frozen=True)
class Sheath:
    """A band to paint along a line of a smooth field over a patch.

    Attributes
    ----------
    knots : float32, shape (kz, ky, kx); of the field.
    level : of the field, 0..1 of its range, along which the band runs.
    width, waver, reach : half its width in voxels, by which part of that it changes, and over how
        many voxels.
    soft : voxels over which it fades at its edge.
    depth : how much darker than dark it is; raw spans about -1..1.
    mottles, size : contrast and size in voxels of its mottles.
    period, contrast, wobble : of its lamellae, in voxels, in parts of the patch's contrast, and how
        far they bend; a period of 0 has none.
    seed : of its noise.
    own : whether its grain is that of the patch.
    """

    knots: Floats
    level: float
    width: float
    waver: float
    reach: float
    soft: float
    depth: float
    mottles: float
    size: float
    period: float
    contrast: float
    wobble: float
    seed: int
    own: bool


def draw_sheath(rng: np.random.Generator, shape: Zyx) -> Sheath:
    """Draw a sheath to paint onto a patch of this shape."""
    return Sheath(
        knots=random_knots(rng, shape, (0.5, 6.0)),
        level=float(rng.uniform(0.3, 0.7)),
        width=log_uniform(rng, 2.5, 30),
        waver=float(rng.uniform(0, 0.45)),
        reach=float(rng.uniform(24, 90)),
        soft=log_uniform(rng, 0.7, 4),
        depth=float(rng.uniform(-0.25, 0.35)),
        mottles=float(rng.uniform(0, 0.08)),
        size=float(rng.uniform(3, 12)),
        period=float(rng.uniform(2.5, 7)) if rng.random() < 0.6 else 0.0,
        contrast=float(rng.uniform(0.03, 0.15)),
        wobble=float(rng.uniform(0, 3)),
        seed=int(rng.integers(1 << 62)),
        own=bool(rng.random() < OWN),
    )


def shape_sheath(chosen: Sheath, canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Return how far a sheath covers each voxel, 0..1, and the intensities that it has."""
    span, noise = canvas.bright - canvas.dark, canvas.noise(chosen.seed)
    inside = measure_inside(chosen.knots, chosen.level, canvas.raw)
    slow = mottle(noise, chosen.reach)
    width = chosen.width * (1 + chosen.waver * slow.clamp(-1.5, 1.5))
    look = canvas.dark - chosen.depth * span / 2 + canvas.grain(chosen.seed, own=chosen.own)
    look = look + chosen.mottles * span * mottle(noise.flip(-1), chosen.size)
    if chosen.period:
        phase = inside * (2 * math.pi / chosen.period) + chosen.wobble * slow
        look = look + chosen.contrast * span * torch.cos(phase)
    return ((width - inside.abs()) / chosen.soft + 0.5).clamp(0, 1), look
