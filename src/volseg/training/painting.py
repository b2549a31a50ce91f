"""Paint onto training patches what annotated data show too little of, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from volseg.training.augmentation import Augmentation
from volseg.training.canvas import Canvas
from volseg.training.crowds import Crowd, draw_crowd, shape_crowd
from volseg.training.distractors import Distractor, draw_distractors, shape_distractor
from volseg.training.tissue import MASK, RAW
from volseg.types import Zyx

Painted = Crowd | Distractor


def draw_painted(
    rng: np.random.Generator, options: Augmentation, shape: Zyx
) -> tuple[Painted, ...]:
    """Draw what to paint onto a patch of this shape, each kind by its probability."""
    crowds: tuple[Painted, ...] = ()
    if options.crowd_probability and rng.random() < options.crowd_probability:
        crowds = (draw_crowd(rng, shape),)
    return (*crowds, *draw_distractors(rng, options, shape))


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
        if isinstance(chosen, Crowd):
            cover, look = shape_crowd(chosen, canvas)
        else:
            cover, look = shape_distractor(chosen, canvas)
        channels[RAW] = torch.lerp(channels[RAW], look, cover)
        covered = cover > 0.5
        channels[MASK:, covered] = 0
        channels[MASK, covered] = float(isinstance(chosen, Crowd))
    return channels
