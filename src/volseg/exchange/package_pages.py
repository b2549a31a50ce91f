"""Documentation page and cover image of a BioImage.IO package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from volseg import __version__
from volseg.exchange.bioimageio import halo_of
from volseg.storage.weights import Card
from volseg.types import Floats


def write_readme(card: Card) -> str:
    """Write a package's documentation from its card."""
    size = " x ".join(f"{v:g}" for v in card.voxel_size)
    tile = " x ".join(map(str, card.tile))
    overlap = " x ".join(map(str, card.overlap))
    halo = " x ".join(map(str, halo_of(card)))
    scores = "".join(f"- {k}: {v}\n" for k, v in card.scores.items()) or "Nothing was measured.\n"
    training = "".join(
        f"- {k}: {card.training[k]}\n" for k in ("data", "terms") if k in card.training
    )
    least = card.min_probability
    objects = f", and volseg drops objects whose mean is below {least:g}" if least else ""
    return f"""# {card.name}

{card.architecture}, base width {card.width}, {card.parameters} parameters, exported by volseg
{__version__}. For images of {size} nm (z, y, x). Foreground is where the probability is at least
{card.threshold:g}{objects}.

## Tiles

volseg evaluates tiles of {tile} voxels (z, y, x) that overlap by {overlap}. The halo of {halo} is
half of that, so cropped tiles abut. Smaller tiles see less context, and score less.

Intensities are scaled by percentiles of a sample. volseg takes them from the whole volume: give
whole volumes where your program lets you, since percentiles of single tiles differ from tile to
tile, and so do results.

## Training

{training or "Nothing is recorded."}
## Validation

{scores}
Measure it on annotated data of your own before you rely on it.
"""


def draw_cover(raw: Floats, probabilities: Floats) -> bytes:
    """Draw the middle slices of input and output side by side, as PNG.

    Parameters
    ----------
    raw : float32, shape (1, 1, z, y, x) or (1, 1, y, x), 0..255
    probabilities : the same axes, 0..1
        Padded to the size of ``raw`` where the network gives less.
    """
    import imagecodecs

    before, after = (_middle(a) for a in (raw, 255 * probabilities))
    rows, columns = ((a - b) // 2 for a, b in zip(before.shape, after.shape, strict=True))
    framed = np.zeros_like(before)
    framed[rows : rows + after.shape[0], columns : columns + after.shape[1]] = after
    return bytes(imagecodecs.png_encode(np.hstack([before, framed])))


def _middle(batch: Floats) -> NDArray[np.uint8]:
    volume = batch[0, 0] if batch.ndim == 5 else batch[0, :1]
    middle: NDArray[np.uint8] = volume[len(volume) // 2].round().astype(np.uint8)
    return middle
