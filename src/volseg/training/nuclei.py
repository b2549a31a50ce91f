"""Paint nuclei onto training patches: a bright ground with grey clumps of chromatin, and a rim."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from volseg.training.canvas import OWN, Canvas, log_uniform, measure_inside, mottle, random_knots
from volseg.types import Floats, Zyx


@dataclass(frozen=True)
class Nucleus:
    """A nucleus to paint where a smooth field over a patch is high.

    Attributes
    ----------
    knots : float32, shape (kz, ky, kx); of the field.
    level : of the field, 0..1 of its range, at which the nucleus begins.
    rim : width of its dark envelope in voxels.
    ground : how much darker than what is bright it is, in parts of the patch's contrast.
    clumps, grey : size of clumps in voxels, and how much darker than the ground they are, in parts
        of the contrast.
    bare, attached : how little clumps cover, and how much they seek the envelope.
    sharp : steepness of their edges.
    specks : contrast of small dots between them, 0..1.
    seed : of its noise.
    own : whether its grain is that of the patch.
    """

    knots: Floats
    level: float
    rim: float
    ground: float
    clumps: float
    grey: float
    bare: float
    attached: float
    sharp: float
    specks: float
    seed: int
    own: bool


def draw_nucleus(rng: np.random.Generator, shape: Zyx) -> Nucleus:
    """Draw a nucleus to paint onto a patch of this shape."""
    return Nucleus(
        knots=random_knots(rng, shape, (0.5, 3.0)),
        level=float(rng.uniform(0.25, 0.7)),
        rim=log_uniform(rng, 0.125, 2.5),
        ground=float(rng.uniform(0, 0.3)),
        clumps=log_uniform(rng, 3, 80),
        grey=float(rng.uniform(0.15, 0.55)),
        bare=float(rng.uniform(-0.16, 0.16)),
        attached=float(rng.uniform(0, 0.6)),
        sharp=log_uniform(rng, 3, 30),
        specks=float(rng.uniform(0, 1)),
        seed=int(rng.integers(1 << 62)),
        own=bool(rng.random() < OWN),
    )


def shape_nucleus(chosen: Nucleus, canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Return how far a nucleus covers each voxel, 0..1, and the intensities that it has.

    Clumps are grey as what lies between dark and bright, not as dark as myelin.
    """
    span, noise = canvas.bright - canvas.dark, canvas.noise(chosen.seed)
    inside = measure_inside(chosen.knots, chosen.level, canvas.raw)
    rough = 0.3 * mottle(noise, chosen.clumps)
    for part, flipped in ((3, -1), (8, -2)):  # finer and fainter, so that edges are ragged
        finer = max(chosen.clumps / part, 1.5)
        rough = rough + (0.3 / part) * mottle(noise.flip(flipped), finer)
    rough = rough + chosen.attached * torch.exp(-inside.clamp(min=0) / (chosen.clumps + 4))
    clumped = torch.sigmoid(chosen.sharp * (rough - chosen.bare))
    dots = (0.3 * mottle(noise.flip(-1, -2), 2.5) - 0.25).clamp(min=0)
    look = canvas.bright - span * (chosen.ground + chosen.grey * clumped)
    look = look - span * chosen.specks * (1 - clumped) * dots
    look = look + canvas.grain(chosen.seed, own=chosen.own)
    look = torch.where(inside < chosen.rim, torch.full_like(look, canvas.dark), look)
    return (inside + 0.5).clamp(0, 1), look
