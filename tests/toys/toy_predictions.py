"""Predictions whose every byte is decided, and the plain way to what they have to be."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toy_threads import one_thread
from volseg.engine.options import EngineOptions
from volseg.geometry.grid import full_roi
from volseg.stages.predict.network import PredictOptions
from volseg.storage.volumes import open_image, probabilities_path


def exact_options(model: Any, block=(8, 32, 32), workers: int = 1, **more: Any) -> PredictOptions:
    """Choose small blocks and shards, and the precision that every machine is fast in."""
    engine = EngineOptions(workers=workers)
    more = {"shard": (8, 32, 32), "precision": "float32", "device": "cpu"} | more
    return PredictOptions(model=str(model), block=block, engine=engine, **more)


def read_map(volume: Path, name: str = "mitochondria") -> np.ndarray:
    """Read the finest level whole."""
    array = open_image(probabilities_path(volume, name)).levels[0]
    return array[full_roi(array.shape)]


def slide_window(
    evaluate: Callable[[np.ndarray], Any], raw: np.ndarray, tile, overlap, margin=(0, 0, 0)
) -> np.ndarray:
    """Slide a window over the whole volume in memory, with weights accumulated the plain way.

    Each tile is evaluated with its margin around it, and may give one map or several.
    """
    around = zip(tile, overlap, margin, strict=True)
    padded = np.pad(raw, [(o + m, t + m) for t, o, m in around], mode="reflect")
    weight = np.einsum("z,y,x->zyx", *map(_ramp, tile, overlap))
    total, weights = None, np.zeros(padded.shape)
    steps = [range(0, n + o, t - o) for n, t, o in zip(raw.shape, tile, overlap, strict=True)]
    for corner in itertools.product(*steps):
        seen = tuple(slice(c, c + t + 2 * m) for c, t, m in zip(corner, tile, margin, strict=True))
        box = tuple(slice(c, c + t) for c, t in zip(corner, tile, strict=True))
        with one_thread():
            maps = np.asarray(evaluate(padded[seen]))
        if total is None:
            total = np.zeros((*maps.shape[:-3], *padded.shape))
        total[(..., *box)] += weight * maps
        weights[box] += weight
    inner = tuple(slice(o, o + n) for o, n in zip(overlap, raw.shape, strict=True))
    return total[(..., *inner)] / weights[inner]


def _ramp(tile: int, overlap: int) -> np.ndarray:
    rise = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    return np.concatenate([rise, np.ones(tile - 2 * overlap), rise[::-1]])
