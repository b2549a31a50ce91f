"""Paint onto training patches what annotated data show too little of, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from volseg.training.augmentation import Augmentation
from volseg.training.canvas import Canvas
from volseg.training.crowds import Crowd, draw_crowd, shape_crowd
from volseg.training.distractors import Distractor, draw_distractor, shape_distractor
from volseg.training.nuclei import Nucleus, draw_nucleus, shape_nucleus
from volseg.training.sheaths import Sheath, draw_sheath, shape_sheath
from volseg.training.tissue import MASK, RAW
from volseg.types import Zyx

Painted = Crowd | Distractor | Nucleus | Sheath


def draw_painted(
    rng: np.random.Generator, options: Augmentation, shape: Zyx
) -> tuple[Painted, ...]:
    """Draw what to paint onto a patch of this shape, each kind by its probability."""
    kinds = (
        (options.crowd_probability, draw_crowd),
        (options.region_probability, partial(draw_distractor, kind="region")),
        (options.sheath_probability, draw_sheath),
        (options.granule_probability, partial(draw_distractor, kind="granules")),
        (options.edge_probability, partial(draw_distractor, kind="edge")),
        (options.nucleus_probability, draw_nucleus),
    )
    return tuple(draw(rng, shape) for chance, draw in kinds if chance and rng.random() < chance)


def shape_painted(chosen: Painted, canvas: Canvas) -> tuple[Tensor, Tensor]:
    """Return how far something covers each voxel, 0..1, and the intensities that it has."""
    match chosen:
        case Crowd():
            return shape_crowd(chosen, canvas)
        case Nucleus():
            return shape_nucleus(chosen, canvas)
        case Sheath():
            return shape_sheath(chosen, canvas)
        case Distractor():
            return shape_distractor(chosen, canvas)


def paint(channels: Tensor, painted: Sequence[Painted]) -> Tensor:
    """Paint onto a patch; mitochondria are foreground, all else is background, and is known.

    Parameters
    ----------
    channels : float32, shape (c, z, y, x)
        Raw, foreground, and what is not annotated where there is such.
    painted : in the order in which they are painted.

    Returns
    -------
    float32, shape (c, z, y, x)
    """
    if not painted:
        return channels
    channels = channels.clone()
    canvas = Canvas.of(channels[RAW])  # a view: what is painted so far has grain, too
    for chosen in painted:
        cover, look = shape_painted(chosen, canvas)
        channels[RAW] = torch.lerp(channels[RAW], look, cover)
        covered = cover > 0.5
        channels[MASK:, covered] = 0
        channels[MASK, covered] = float(isinstance(chosen, Crowd))
    return channels
