"""Try models at scales on the places of a volume, and score how they agree with one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from volseg.geometry.grid import intersect
from volseg.models.inference import Predictor
from volseg.stages.predict.lattice import nearest_level, network_scales
from volseg.stages.preview.places import read_slice, window_about
from volseg.storage.cards import Card
from volseg.storage.volumes import Image
from volseg.types import Floats, Roi, VoxelSize, Zyx
from volseg.voxels.apart import Apart, tone_at
from volseg.voxels.intensity import Tone

TILE = 256
"""Side of what is evaluated at each place, in voxels of the network."""
EDGE = TILE // 8
"""Left out on every side of what counts as found: there is too little context."""
CLOSE = 0.98
"""Part of the highest score from which a score is as good as that."""
FOUND = 0.5
"""Probability from which a voxel counts as found, for the scores."""
LITTLE = 0.2
"""Power of the part that is found by which trials that find little are ranked lower."""
SIDE = 96
"""Points a side at which two trials are compared, of what both saw of a place."""
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
    tone : what the network sees of the volume's intensities, or of those of each slice.
    """

    model: str
    card: Card
    predictor: Predictor
    tone: Tone | Apart


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
    found : part of the area that is foreground.
    sureness : mean probability of the foreground; 0 where there is none.
    views : of each place.
    agreement : mean overlap with what each other trial finds in the same places, 0..1.
    work : voxels that the network would see of the whole volume, in slices along z.
    """

    model: str
    zoom: float
    certainty: float
    found: float
    sureness: float
    views: tuple[View, ...]
    agreement: float = 1.0
    work: int = 0

    @property
    def score(self) -> float:
        """Return what trials are ranked by: agreement, less for those that find little."""
        return float(self.agreement * self.found**LITTLE)


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
    views, doubts, sums, areas, sure = [], [], [], [], [np.zeros(0, np.float32)]
    for centre in places:
        roi = window_about(centre, (y, x), shape)
        tone = tone_at(candidate.tone, roi[0].start)
        seen = resize(tone(read_slice(image, level, roi)), tile)
        found = candidate.predictor(seen)[0]
        views.append(View(roi, found))
        edge = min(EDGE, tile // 4)
        p = found[edge:-edge, edge:-edge]
        doubts.append(np.minimum(p, 1 - p).sum())
        sums.append(p.sum())
        areas.append((p >= FOUND).mean())
        sure.append(p[p >= FOUND])
    total = max(float(np.sum(sums)), 1e-6)
    return Trial(
        candidate.model,
        zoom,
        max(1 - float(np.sum(doubts)) / total, 0.0),
        float(np.mean(areas)),
        float(np.concatenate(sure).sum() / max(sum(map(len, sure)), 1)),
        tuple(views),
        work=round(float(np.prod([n / s for n, s in zip(shape, scales, strict=True)]))),
    )


def rank(trials: Sequence[Trial], voxel_size: VoxelSize | None) -> list[Trial]:
    """Compare trials on the same places with one another; the one to choose first, then by score.

    Nobody knows the truth, but networks that learned from other data, and see the tissue at other
    scales, are wrong in different ways. Of scores that are as good as equal (`CLOSE`), that of the
    scale nearest to the stated one is chosen, if a voxel size is stated.
    """
    overlaps: list[list[float]] = [[] for _ in trials]
    for i, j in combinations(range(len(trials)), 2):
        overlap = measure_overlap(trials[i], trials[j])
        overlaps[i].append(overlap)
        overlaps[j].append(overlap)
    compared = [
        replace(trial, agreement=float(np.mean(found))) if found else trial
        for trial, found in zip(trials, overlaps, strict=True)
    ]
    ranked = sorted(compared, key=lambda trial: -trial.score)
    least = ranked[0].score * (CLOSE if voxel_size else 1)
    close = [trial for trial in ranked if trial.score >= least]
    chosen = min(close, key=lambda trial: abs(math.log(trial.zoom)))
    return [chosen, *(trial for trial in ranked if trial is not chosen)]


def measure_overlap(one: Trial, other: Trial) -> float:
    """Measure the overlap of probabilities in what both trials saw: intersection over union."""
    both = either = 0.0
    for a, b in zip(one.views, other.views, strict=True):
        shown = intersect(a.roi, b.roi)
        if shown is not None:
            p, q = (map_onto(shown, view, SIDE)[0] for view in (a, b))
            both += float(np.minimum(p, q).sum())
            either += float(np.maximum(p, q).sum())
    return both / max(either, 1e-6)


def map_onto(shown: Roi, view: View, side: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Map what a trial saw onto the pixels of a square, and tell which of them it saw.

    Parameters
    ----------
    shown : what the square shows, one slice of the volume
    view : of a trial
    side : of the square, in pixels
    """
    positions = []
    for count, outer, inner in zip(view.probabilities.shape, view.roi[1:], shown[1:], strict=True):
        voxels = inner.start + (np.arange(side) + 0.5) * (inner.stop - inner.start) / side
        positions.append((voxels - outer.start) * count / (outer.stop - outer.start) - 0.5)
    at = np.stack(np.meshgrid(*positions, indexing="ij"))
    ends = np.array(view.probabilities.shape).reshape(2, 1, 1) - 0.5
    seen = np.all((at >= -0.5) & (at <= ends), axis=0)
    found = ndimage.map_coordinates(view.probabilities, at, order=1, mode="nearest")
    return np.where(seen, found, 0).astype(np.float32), seen


def resize(raw: Floats, side: int) -> Floats:
    """Resize slices, shape (z, y, x), to a square; averaged where they become smaller."""
    given = torch.from_numpy(np.ascontiguousarray(raw))[None]
    resized = functional.interpolate(given, (side, side), mode="bilinear", antialias=True)
    found: Floats = resized[0].numpy()
    return found
