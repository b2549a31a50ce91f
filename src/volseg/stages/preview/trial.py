"""Try one model at one scale on the places of a volume, and score how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from volseg.models.inference import Predictor
from volseg.stages.predict.lattice import nearest_level, network_scales
from volseg.stages.preview.places import read_slice, window_about
from volseg.storage.volumes import Image
from volseg.storage.weights import Card
from volseg.types import Floats, Roi, Zyx
from volseg.voxels.intensity import Tone

TILE = 256
"""Side of what is evaluated at each place, in voxels of the network."""
EDGE = TILE // 8
"""Left out of the scores on every side: there is too little context."""
FOUND = 0.5
"""Probability from which a voxel counts as found, for the scores."""
MOST_READ = 1 << 24
"""Voxels of a window beyond which a scale is not tried, so that none takes long or much memory."""
LEAST = 64
"""Side of a slice, in voxels of the network, below which a scale is not tried."""


@dataclass(frozen=True)
class Candidate:
    """A model that is ready to be tried on a volume.

    Attributes
    ----------
    model : shipped name or path.
    card : of the weights.
    predictor : for slices.
    tone : what the network sees of the volume's intensities.
    """

    model: str
    card: Card
    predictor: Predictor
    tone: Tone


@dataclass(frozen=True)
class View:
    """Result of a model at one place.

    Attributes
    ----------
    roi : of the volume, one slice.
    probabilities : float32, shape (n, n), in voxels of the network.
    """

    roi: Roi
    probabilities: Floats


@dataclass(frozen=True)
class Trial:
    """One model at one scale.

    Attributes
    ----------
    model : shipped name or path.
    zoom : voxels are taken as so many times as large as they are said to be.
    certainty : 1 less the part of the probability that lies in doubtful voxels, 0..1.
    agreement : overlap of what is found with what is found in the same places turned, 0..1.
    found : part of the area that is foreground.
    views : of each place.
    """

    model: str
    zoom: float
    certainty: float
    agreement: float
    found: float
    views: tuple[View, ...]

    @property
    def score(self) -> float:
        """Return the confidence that trials are ranked by: certainty times agreement."""
        return self.certainty * self.agreement


def try_model(
    candidate: Candidate, image: Image, places: Sequence[Zyx], zoom: float
) -> Trial | None:
    """Evaluate a model at a scale on all places.

    Returns
    -------
    Trial
        None where a slice is too small at this scale, or too much would have to be read.

    Raises
    ------
    VolumeError
        If values are not finite.
    """
    scales, _ = network_scales(image, candidate.card, zoom=zoom)
    level, shape = nearest_level(image, scales), image.levels[0].shape
    room = min(n / s for n, s in zip(shape[1:], scales[1:], strict=True))
    tile = min(TILE, int(room) // 16 * 16)
    y, x = (max(round(tile * s), 1) for s in scales[1:])
    read = y * x / np.prod(image.factors[level][1:])
    if tile < LEAST or read > MOST_READ:
        return None
    views, doubts, sums, overlaps, joined, areas = [], [], [], [], [], []
    for centre in places:
        roi = window_about(centre, (y, x), shape)
        seen = resize(candidate.tone(read_slice(image, level, roi)), tile)
        found = candidate.predictor(seen)[0]
        # turned about the diagonal and one side: membranes run the other way, and so does noise
        again = candidate.predictor(np.ascontiguousarray(seen.transpose(0, 2, 1)[:, ::-1]))
        turned = again[:, ::-1].transpose(0, 2, 1)[0]
        views.append(View(roi, found))
        edge = min(EDGE, tile // 4)
        p, q = (v[edge:-edge, edge:-edge] for v in (found, turned))
        doubts.append(np.minimum(p, 1 - p).sum())
        sums.append(p.sum())
        overlaps.append(np.minimum(p, q).sum())
        joined.append(np.maximum(p, q).sum())
        areas.append((p >= FOUND).mean())
    total = max(float(np.sum(sums)), 1e-6)
    return Trial(
        candidate.model,
        zoom,
        max(1 - float(np.sum(doubts)) / total, 0.0),
        float(np.sum(overlaps)) / max(float(np.sum(joined)), 1e-6),
        float(np.mean(areas)),
        tuple(views),
    )


def resize(raw: Floats, side: int) -> Floats:
    """Resize slices, shape (z, y, x), to a square; averaged where they become smaller."""
    given = torch.from_numpy(np.ascontiguousarray(raw))[None]
    resized = functional.interpolate(given, (side, side), mode="bilinear", antialias=True)
    found: Floats = resized[0].numpy()
    return found
