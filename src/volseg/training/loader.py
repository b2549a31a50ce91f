"""Load training batches, each determined by the seed and its step alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from volseg.training.centerline import centerline_proximity
from volseg.training.config import TrainConfig
from volseg.training.looks import apply_looks
from volseg.training.sampling import CPU, Source, draw_patch
from volseg.training.tissue import RAW, target_of
from volseg.types import VoxelSize

Batch: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Raw, target and centerline target, each float32, shape (n, 1, z, y, x)."""

AHEAD = 2
"""Batches that each worker has ready or under way."""


def draw_batch(
    sources: Sequence[Source],
    config: TrainConfig,
    step: int,
    *,
    centerline: bool = True,
    device: torch.device = CPU,
) -> Batch:
    """Draw the batch of a step; sources are drawn from by their weights.

    Parameters
    ----------
    sources : of which the annotated voxels are the weights, unless they have others.
    centerline : whether the centerline target is wanted; zeros otherwise.
    device : that the batch is made on.
    """
    weights = np.array([s.annotated if s.weight is None else s.weight for s in sources], float)
    drawn = []
    for n in range(config.batch):
        rng = np.random.default_rng([config.seed, step, n])
        source = sources[rng.choice(len(sources), p=weights / weights.sum())]
        patch = draw_patch(
            source,
            rng,
            config.patch,
            config.augmentation,
            shares=(config.foreground_share, config.hard_share),
            device=device,
        )
        drawn.append(patch)
    raw = torch.stack([d.channels[RAW] for d in drawn])[:, None]
    target = torch.stack([target_of(d.channels) for d in drawn])
    lines = torch.zeros_like(target)
    if centerline and all(d.lines is not None for d in drawn):
        lines = torch.stack([d.lines for d in drawn if d.lines is not None])
    elif centerline:
        lines = draw_centerlines(target, config, sources[0].size)
    return apply_looks(raw, [d.look for d in drawn]), target, lines


def draw_centerlines(target: Tensor, config: TrainConfig, size: VoxelSize) -> Tensor:
    """Compute the centerline target, zeros for patches of which only a part is annotated.

    The centerline of objects that are known in part is not that of the objects.
    """
    profile = config.centerline_alpha, config.centerline_reach_nm, size
    lines = [
        centerline_proximity(mask == 1, *profile)
        if (mask >= 0).all()
        else np.zeros(mask.shape, np.float32)
        for mask in target[:, 0].cpu().numpy()
    ]
    return torch.from_numpy(np.stack(lines)[:, None]).to(target.device)


def load_batches(
    sources: Sequence[Source],
    config: TrainConfig,
    first: int,
    workers: int,
    *,
    centerline: bool = True,
    device: torch.device = CPU,
) -> Generator[Batch, None, None]:
    """Yield the batches of step ``first`` and all that follow, drawn ahead by threads.

    Threads, because storage keeps threads of its own that do not survive a fork; what takes time
    in a patch releases the interpreter's lock.
    """
    draw = partial(draw_batch, sources, config, centerline=centerline, device=device)
    # each thread computes alone: teams of them would wait for one another
    pool = ThreadPoolExecutor(
        workers, thread_name_prefix="patches", initializer=torch.set_num_threads, initargs=(1,)
    )
    ahead: deque[Future[Batch]] = deque()
    step = first
    try:
        while True:
            while len(ahead) < AHEAD * workers:
                ahead.append(pool.submit(draw, step))
                step += 1
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
