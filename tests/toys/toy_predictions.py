"""Predictions whose every byte is decided, and the plain way to what they have to be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toy_threads import one_thread
from volseg.engine.options import EngineOptions
from volseg.engine.progress import NoProgress
from volseg.errors import BlockError
from volseg.geometry.grid import full_roi
from volseg.geometry.lattice import AxisLattice
from volseg.stages.predict.network import PredictOptions
from volseg.stages.predict.plan import plan_prediction
from volseg.stages.predict.run import predict
from volseg.stages.predict.tasks import PredictTask
from volseg.storage.volumes import open_image, probabilities_path


def exact_options(model: Any, block=(8, 32, 32), workers: int = 1, **more: Any) -> PredictOptions:
    """Choose small blocks and shards, and the precision that every machine is fast in."""
    engine = EngineOptions(workers=workers)
    more = {"shard": (8, 32, 32), "precision": "float32", "device": "cpu"} | more
    return PredictOptions(model=str(model), block=block, engine=engine, **more)


def fail_in_a_block(volume: Path, options: PredictOptions, monkeypatch: Any) -> None:
    """Leave a run of which one block was not written."""
    assemble = PredictTask._assemble

    def failing(self, item):
        if item.index == (1, 1, 1):
            raise OSError("no space left")
        return assemble(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(PredictTask, "_assemble", failing)
        with pytest.raises(BlockError, match="no space left"):
            predict(plan_prediction(volume, options), NoProgress())


def read_map(volume: Path, name: str = "mitochondria") -> np.ndarray:
    """Read the finest level whole."""
    array = open_image(probabilities_path(volume, name)).levels[0]
    return array[full_roi(array.shape)]


def slide_window(
    evaluate: Callable[[np.ndarray], Any],
    raw: np.ndarray,
    axes: Sequence[AxisLattice],
    margin=(0, 0, 0),
) -> np.ndarray:
    """Slide a window over the whole volume in memory, with weights accumulated the plain way.

    Each tile is evaluated with its margin around it, and may give one map or several.
    """
    around = [(a.edge + m, a.tile + m) for a, m in zip(axes, margin, strict=True)]
    padded = np.pad(raw, around, mode="reflect")
    total, weights = None, np.zeros(padded.shape)
    steps = []
    for n, a in zip(raw.shape, axes, strict=True):
        corners = [0]
        while corners[-1] + a.tile < n + 2 * a.edge:
            corners.append(corners[-1] + a.tile - a.overlap)
        steps.append(corners)
    for corner in itertools.product(*steps):
        sides = [(c, a.tile, m) for c, a, m in zip(corner, axes, margin, strict=True)]
        seen = tuple(slice(c, c + t + 2 * m) for c, t, m in sides)
        box = tuple(slice(c, c + t) for c, t, _ in sides)
        weight = np.einsum("z,y,x->zyx", *map(_weigh, axes, corner, steps))
        with one_thread():
            maps = np.asarray(evaluate(padded[seen]))
        if total is None:
            total = np.zeros((*maps.shape[:-3], *padded.shape))
        total[(..., *box)] += weight * maps
        weights[box] += weight
    inner = tuple(slice(a.edge, a.edge + n) for n, a in zip(raw.shape, axes, strict=True))
    return total[(..., *inner)] / weights[inner]


def _weigh(axis: AxisLattice, corner: int, corners: list[int]) -> np.ndarray:
    """Weigh a tile along an axis: overlaps have ramps in their middle, ends of the volume none."""
    kept = axis.overlap // 3
    ramp = axis.overlap - 2 * kept
    rise = np.sin(np.pi / 2 * (np.arange(ramp) + 0.5) / max(ramp, 1)) ** 2
    weight = np.ones(axis.tile)
    if corner > 0:
        weight[: kept + ramp] = [*np.zeros(kept), *rise]
    if corner < corners[-1]:
        weight[axis.tile - kept - ramp :] = [*rise[::-1], *np.zeros(kept)]
    return weight
