"""Pixels of several samples that are greys all the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.sources.stack import GREY, choose_channel

COLOURS = {1: 1, 2: 1, 3: 3, 4: 3}
"""Colours by the number of samples; the last of two or four is how opaque a pixel is."""


LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey: ITU-R BT.601, section 2.5.1."""


def pick_grey(
    samples: NDArray[Any], channel: int | None, where: str, hint: str = GREY, *, grey: bool = False
) -> NDArray[Any]:
    """Pick a channel of pixels or, where none is chosen, their grey.

    Parameters
    ----------
    samples : shape (y, x, samples)
    channel : from 0, or None
    where, hint : for messages, see `volseg.sources.stack.choose_channel`
    grey : whether colours that are no greys become some; how opaque a pixel is does not count

    Raises
    ------
    SourceError
        If none is chosen and the colours of a pixel differ, or some pixels are more opaque than
        others.
    """
    count = samples.shape[2]
    colours = COLOURS.get(count, 0)
    first = samples[..., :1]
    if grey and channel is None and colours > 0:
        shares = LUMA if colours == len(LUMA) else (1.0,)
        mixed = samples[..., :colours] @ np.array(shares)
        return np.asarray(np.rint(mixed) if samples.dtype.kind in "ui" else mixed, samples.dtype)
    equal = colours > 0 and bool((samples[..., 1:colours] == first).all())
    if (
        channel is None
        and equal
        and bool((samples[..., colours:] == samples[0, 0, colours:]).all())
    ):
        return np.asarray(samples[..., 0])
    return np.asarray(samples[..., choose_channel(count, channel, where, hint)])
