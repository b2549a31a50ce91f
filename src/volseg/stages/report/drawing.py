"""Draw planes as pictures that a page holds in itself: JPEG of raw, transparent WebP of the rest.

Colours are those of Okabe and Ito, which all eyes tell apart; what is wrong is hatched too.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from volseg.types import FULL_PROBABILITY, Mask

ORANGE, SKY, GREEN, YELLOW = (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)
VERMILLION, PURPLE = (213, 94, 0), (204, 121, 167)
ALONE, MERGED, SPLIT = 1, 2, 3
"""Kinds of what is wrong: without a partner on the other side, and joined or divided there."""
FILL, STRIPES, OUTLINE = 46, 150, 255
"""Opacity of the inside of objects, of hatching, and of outlines."""
PERIOD = 8
"""Pixels from one stripe of a hatching to the next."""
STEPS = 8
"""Shades of a probability."""
QUALITIES = (85, 70, 55, 40, 25)
"""Of JPEG, best first."""
Picture = NDArray[np.uint8]
Kinds = NDArray[np.uint8]
"""Kind of what is wrong with the object of each pixel; 0 of none."""


def window_of(planes: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """Choose the intensities that are drawn black and white."""
    seen = np.concatenate([p.reshape(-1)[:: max(p.size // 200_000, 1)] for p in planes])
    seen = seen[np.isfinite(seen)] if seen.dtype.kind == "f" else seen
    if not seen.size:
        return 0.0, 1.0
    low, high = np.percentile(seen, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6))


def grey(values: NDArray[Any], window: tuple[float, float]) -> Picture:
    """Scale intensities to shades of grey."""
    low, high = window
    scaled = (values.astype(np.float32) - low) * (255 / (high - low))
    shades: Picture = np.nan_to_num(np.clip(scaled, 0, 255)).astype(np.uint8)
    return shades


def encode_greys(pictures: Sequence[Picture], budget: int) -> list[str]:
    """Encode pictures as JPEG, no better than fits a number of characters."""
    found: list[str] = []
    for quality in QUALITIES:
        found = [_uri("jpeg", imagecodecs.jpeg8_encode(p, level=quality)) for p in pictures]
        if sum(map(len, found)) <= budget:
            break
    return found


def draw_probabilities(values: Picture) -> str:
    """Tint a plane by its probabilities: the more probable, the less transparent."""
    shades = values.astype(np.uint16) * STEPS // (FULL_PROBABILITY + 1)
    alpha = (shades * (170 // (STEPS - 1))).astype(np.uint8)
    return _webp(_paint(alpha, GREEN))


def draw_objects(labels: NDArray[Any], wrong: Kinds | None) -> str:
    """Draw objects, those that are wrong hatched; without truth none is known to be."""
    if wrong is None:
        return _webp(_paint(_opacity(labels), ORANGE))
    return _webp(_hatch(_paint(_opacity(labels), SKY), labels, wrong, (1, VERMILLION)))


def draw_truth(labels: NDArray[Any], wrong: Kinds) -> str:
    """Draw the outlines of the truth, and hatch the objects that are missed, merged or split."""
    alpha = np.where(outlines(labels), OUTLINE, 0).astype(np.uint8)
    return _webp(_hatch(_paint(alpha, YELLOW), labels, wrong, (-1, YELLOW)))


def _hatch(
    picture: Picture, labels: NDArray[Any], wrong: Kinds, alone: tuple[int, tuple[int, int, int]]
) -> Picture:
    """Hatch what is wrong by its kind, with the slope and the colour of objects without partner."""
    slope, colour = alone
    alpha = _opacity(labels, slope=slope) if wrong.any() else np.zeros(0, np.uint8)
    for kind, shade in ((ALONE, colour), (MERGED, PURPLE), (SPLIT, ORANGE)):
        if (these := wrong == kind).any():
            picture[these] = _paint(alpha, shade)[these]
    return picture


def _opacity(labels: NDArray[Any], slope: int = 0) -> Picture:
    alpha = np.where(labels > 0, FILL, 0)
    if slope:
        y, x = np.indices(labels.shape)
        striped = (x + slope * y) % PERIOD < PERIOD // 3
        alpha = np.where(striped & (labels > 0), STRIPES, alpha)
    return np.where(outlines(labels), OUTLINE, alpha).astype(np.uint8)


def outlines(labels: NDArray[Any]) -> Mask:
    """Mark the pixels, or voxels, of objects next to another object or the background.

    Examples
    --------
    >>> outlines(np.array([[0, 1, 1, 1, 2]])).astype(int)
    array([[0, 1, 0, 1, 1]])
    >>> outlines(np.array([[[0, 3, 3, 3, 3, 0]]])).astype(int)
    array([[[0, 1, 0, 0, 1, 0]]])
    """
    edge = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        along, marked = labels.swapaxes(0, axis), edge.swapaxes(0, axis)
        differs = along[:-1] != along[1:]
        marked[:-1] |= differs
        marked[1:] |= differs
    return edge & (labels > 0)


def encode_picture(picture: Picture) -> str:
    """Encode one picture, shape (y, x) or (y, x, 3), as JPEG, with colours as sharp as greys."""
    content = np.ascontiguousarray(picture)
    return _uri("jpeg", imagecodecs.jpeg8_encode(content, level=80, subsampling="444"))


def _paint(alpha: Picture, colour: tuple[int, int, int]) -> Picture:
    picture = np.empty((*alpha.shape, 4), np.uint8)
    picture[..., :3], picture[..., 3] = colour, alpha
    picture[alpha == 0] = 0  # compresses better
    return picture


def _webp(picture: Picture) -> str:
    return _uri("webp", imagecodecs.webp_encode(picture, lossless=True))


def _uri(kind: str, content: bytes | bytearray) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
