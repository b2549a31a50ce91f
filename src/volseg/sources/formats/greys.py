"""Pixels of several samples that are greys all the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.sources.stack import choose_channel

COLOURS = {1: 1, 2: 1, 3: 3, 4: 3}
"""Colours by the number of samples; the last of two or four is how opaque a pixel is."""


def pick_grey(
    samples: NDArray[Any], channel: int | None, where: str, hint: str = "convert it to grey"
) -> NDArray[Any]:
    """Pick a channel of pixels or, where none is chosen, their grey.

    Parameters
    ----------
    samples : shape (y, x, samples)
    channel : from 0, or None
    where, hint : for messages, see `volseg.sources.stack.choose_channel`

    Raises
    ------
    SourceError
        If none is chosen and the colours of a pixel differ, or some pixels are more opaque than
        others.
    """
    count = samples.shape[2]
    colours = COLOURS.get(count, 0)
    first = samples[..., :1]
    equal = colours > 0 and bool((samples[..., 1:colours] == first).all())
    if (
        channel is None
        and equal
        and bool((samples[..., colours:] == samples[0, 0, colours:]).all())
    ):
        return np.asarray(samples[..., 0])
    return np.asarray(samples[..., choose_channel(count, channel, where, hint)])
