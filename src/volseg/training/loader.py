"""Load training batches, each determined by the seed and its step alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from volseg.training.config import TrainConfig
from volseg.training.sampling import Source, draw_patch

Batch: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Raw, target and centerline target, each float32, shape (n, 1, z, y, x)."""

AHEAD = 2
"""Batches that each worker has ready or under way."""


def draw_batch(
    sources: Sequence[Source], config: TrainConfig, step: int, *, centerline: bool = True
) -> Batch:
    """Draw the batch of a step; larger sources are drawn from more often.

    Parameters
    ----------
    sources : of which the annotated voxels count.
    config : TrainConfig
    step : int
    centerline : bool
        Whether the centerline target is wanted; zeros otherwise.
    """
    sizes = np.array([s.annotated for s in sources], float)
    patches = []
    for n in range(config.batch):
        rng = np.random.default_rng([config.seed, step, n])
        source = sources[rng.choice(len(sources), p=sizes / sizes.sum())]
        patches.append(
            draw_patch(
                source,
                rng,
                config.patch,
                config.augmentation,
                foreground_share=config.foreground_share,
                centerline=centerline,
            )
        )
    arrays = [p.raw for p in patches], [p.target for p in patches], [p.centerline for p in patches]
    raw, target, lines = (torch.from_numpy(np.stack(a)[:, None]) for a in arrays)
    return raw, target, lines


def load_batches(
    sources: Sequence[Source],
    config: TrainConfig,
    first: int,
    workers: int,
    *,
    centerline: bool = True,
) -> Generator[Batch, None, None]:
    """Yield the batches of step ``first`` and all that follow, drawn ahead by threads.

    Threads, because storage keeps threads of its own that do not survive a fork; what takes time
    in a patch releases the interpreter's lock.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="patches")
    ahead: deque[Future[Batch]] = deque()
    step = first
    try:
        while True:
            while len(ahead) < AHEAD * workers:
                ahead.append(pool.submit(draw_batch, sources, config, step, centerline=centerline))
                step += 1
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
