"""Paint dark things that are no mitochondria onto training patches, on any device.

They stand for what annotated data sets show too little of, and what networks take for
mitochondria: myelin, granules and pigment, nuclei and red cells, edges of resin. What is painted is
background in the target (`volseg.training.painting`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from volseg.training.augmentation import Augmentation
from volseg.training.canvas import OWN, Canvas
from volseg.types import Floats, Zyx

REACH = 64
"""Voxels between the knots of a smooth field, at a coarseness of 1."""
CLUMPS = (3.0, 24.0)
"""Smallest and largest size of the clumps of a nucleus, in voxels."""
SHARP = (2.0, 16.0)
"""Least and greatest sharpness of them."""


@dataclass(frozen=True)
class Distractor:
    """Something to paint onto a patch.

    Attributes
    ----------
    kind : sheath, region, edge, granules or nucleus.
    knots : float32, shape (kz, ky, kx); of a smooth field over the patch; granules have none.
    level : of the field, 0..1 of its range, at which a sheath runs, a region or nucleus begins.
    width : of half a sheath or of an edge's seam, in voxels; a nucleus has a rim of a sixteenth.
    period : of a sheath's lamellae in voxels, 0 has none; how sharp clumps are.
    grain : size of the mottles of a region, or of clumps, in voxels; 0 is even.
    spots : float32, shape (n, 4); centre (z, y, x) and radius of granules, in voxels.
    halo : whether granules have a bright seam.
    depth : how much darker than dark it is; raw spans about -1..1.
    seed : of its noise.
    own : whether its grain is that of the patch: white noise would tell it from tissue.
    """

    kind: str
    knots: Floats
    level: float
    width: float
    period: float
    grain: float
    spots: Floats
    halo: bool
    depth: float
    seed: int
    own: bool = False


def draw_distractors(
    rng: np.random.Generator, options: Augmentation, shape: Zyx
) -> tuple[Distractor, ...]:
    """Draw what to paint onto a patch of this shape, each kind by its probability."""
    chances = (
        ("region", options.region_probability),
        ("sheath", options.sheath_probability),
        ("granules", options.granule_probability),
        ("edge", options.edge_probability),
        ("nucleus", options.nucleus_probability),
    )
    return tuple(_draw(rng, kind, shape) for kind, p in chances if p and rng.random() < p)


def _draw(rng: np.random.Generator, kind: str, shape: Zyx) -> Distractor:
    coarseness = float(np.exp(rng.uniform(math.log(0.5), math.log(3))))
    if kind == "edge":  # a plane: two knots along each axis
        slope = rng.normal(size=3) * (0.2, 1, 1)
        corners = np.indices((2, 2, 2)).reshape(3, -1).T @ slope
        knots = corners.reshape(2, 2, 2)
    else:
        counts = [max(round(n / (REACH * coarseness)) + 1, 2) if n > 1 else 1 for n in shape]
        knots = rng.normal(size=counts)
    radii = np.exp(rng.normal(math.log(float(np.exp(rng.uniform(1.1, 2.8)))), 0.2, 40))
    spread = rng.uniform(0.05, 0.5)
    places = rng.uniform(0, 1, 3) + rng.normal(0, spread, (len(radii), 3))
    count = int(rng.integers(3, len(radii)))
    spots = np.column_stack([places * shape, radii])[:count]
    drawn = Distractor(  # in the order of its arguments
        kind=kind,
        knots=knots.astype(np.float32),
        level=float(rng.uniform(0.3, 0.7) if kind != "region" else rng.uniform(0.6, 0.85)),
        width=float(np.exp(rng.uniform(math.log(2), math.log(40)))),
        period=float(rng.uniform(2.5, 7)) if rng.random() < 0.6 else 0.0,
        grain=float(rng.uniform(2, 8)) if rng.random() < 0.6 else 0.0,
        spots=spots.astype(np.float32),
        halo=bool(rng.random() < 0.5),
        depth=float(rng.uniform(-0.25, 0.35)),
        seed=int(rng.integers(1 << 62)),
        own=bool(rng.random() < OWN),
    )
    if kind != "nucleus":
        return drawn
    size, sharp = np.exp(rng.uniform(*np.log((CLUMPS, SHARP)).T))
    level = float(rng.uniform(0.5, 0.85))
    return replace(drawn, level=level, grain=float(size), period=float(sharp))


def shape_distractor(chosen: Distractor, canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Return how far a distractor covers each voxel, 0..1, and the intensities that it has."""
    raw, dark, bright = canvas.raw, canvas.dark, canvas.bright
    noise, grain = canvas.noise(chosen.seed), canvas.grain(chosen.seed, own=chosen.own)
    base = dark - chosen.depth * (bright - dark) / 2
    grainy = base + grain
    if chosen.kind == "granules":
        beyond = _beyond_spots(chosen.spots, raw)
        if chosen.halo:
            grainy = torch.where(beyond > 0, torch.full_like(raw, bright), grainy)
            return (2.5 - beyond).clamp(0, 1), grainy
        return (0.5 - beyond).clamp(0, 1), grainy
    field, slope = _field(chosen.knots, raw)
    low, high = field.min(), field.max()
    inside = (field - (low + chosen.level * (high - low))) / slope  # about voxels from the line
    if chosen.kind == "edge":
        seam = torch.where(inside < chosen.width / 4, torch.full_like(raw, base), bright + 0 * raw)
        return (inside + 0.5).clamp(0, 1), seam + 0.02 * noise
    if chosen.kind == "nucleus":
        look = _chromatin(chosen, inside, (noise, grain), (dark, bright))
        return (inside + 0.5).clamp(0, 1), look
    if chosen.kind == "region":
        if chosen.grain:
            grainy = base + 0.5 * (bright - dark) * _mottles(noise, chosen.grain)
        return (inside + 0.5).clamp(0, 1), grainy
    if chosen.period:
        lamellae = torch.cos(inside * (2 * math.pi / chosen.period))
        grainy = grainy + 0.15 * (bright - dark) * lamellae
    return (chosen.width - inside.abs() + 0.5).clamp(0, 1), grainy


def _chromatin(
    chosen: Distractor, inside: Tensor, noises: tuple[Tensor, Tensor], ends: tuple[float, float]
) -> Tensor:
    """Return the intensities of a nucleus: a grey ground, darker clumps, and a dark rim.

    Clumps are grey as what lies between dark and bright, not as dark as myelin.
    """
    (noise, grain), (dark, bright) = noises, ends
    ground, span = bright - (0.25 + chosen.depth) * (bright - dark), bright - dark
    rough = _mottles(noise, chosen.grain) + 0.5 * _mottles(noise.flip(-1), chosen.grain / 2.5)
    clumps = torch.sigmoid(chosen.period * (rough + 0.45 - chosen.level))
    look = ground - 0.45 * span * clumps + grain
    rim = chosen.width / 16
    return torch.where(inside < rim, torch.full_like(look, dark), look)


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


def _field(knots: Floats, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Interpolate a smooth field over a patch; return it and its slope per voxel."""
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
    return field, steep.clamp(min=float(steep.mean()) * 0.3 + 1e-6)


def _mottles(noise: Tensor, grain: float) -> Tensor:
    """Smooth white noise to mottles of about one voxel's standard deviation of 0.3."""
    size = noise.shape[-2:]
    fewer = [max(round(n / grain), 1) for n in size]
    small = noise[:, : fewer[0], : fewer[1]]
    return 0.3 * functional.interpolate(small[:, None], size, mode="bilinear")[:, 0]
