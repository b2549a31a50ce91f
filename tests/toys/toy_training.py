"""Training that takes no time: a small annotated stack, patches that stay as they are, an end."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import tifffile
import torch
from scipy import ndimage

from volseg.engine.progress import NoProgress
from volseg.stages.train import loop as train_loop
from volseg.stages.train.state import start_run, training_precision
from volseg.training.augmentation import Augmentation
from volseg.training.config import TrainConfig

STILL = Augmentation(
    zoom=(1.0, 1.0),
    shift=0.0,
    elastic_alpha=0.0,
    rotate_probability=0.0,
    section_probability=0.0,
    fault_probability=0.0,
    intensity_probability=0.0,
)
"""Nothing but flips and quarter turns."""


def write_annotated(folder: Path, shape=(16, 48, 48)) -> Path:
    """Write a stack of noisy blobs, and their labels, as TIFF."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(8).random(shape), 3)
    mask = smooth > np.quantile(smooth, 0.8)
    noise = np.random.default_rng(9).normal(0, 10, mask.shape)
    tifffile.imwrite(folder / "raw.tif", (90 + 60 * mask + noise).clip(0, 255).astype(np.uint8))
    tifffile.imwrite(folder / "labels.tif", ndimage.label(mask)[0].astype(np.uint16))
    return folder


def read_log(run: Path) -> list[dict[str, str]]:
    """Read what a run wrote at each validation."""
    with (run / "log.csv").open() as file:
        return list(csv.DictReader(file))


def timeless(rows: list[dict[str, str]]) -> list[dict[str, str | None]]:
    """Leave out what differs from run to run."""
    return [{**row, "minutes": None} for row in rows]


def gradient_agreement(config: TrainConfig, patches: int, seed: int) -> float:
    """Compare the gradients at the precision that is chosen with exact ones: 1 if they agree."""
    cpu = torch.device("cpu")
    raw = torch.randn((patches, 1, *config.patch), generator=torch.Generator().manual_seed(seed))
    batch = raw, (raw > 0.5).float(), torch.zeros_like(raw)
    gradients = []
    for precision in (torch.float32, training_precision(config, cpu)):
        run = start_run(config, None, cpu, precision)
        train_loop.batch_loss(run, batch).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in run.network.parameters()]))
    return float(torch.cosine_similarity(*gradients, dim=0))


class Killed(BaseException):
    """Stands for the end of the process."""


class KilledAt(NoProgress):
    """Ends a run after some steps."""

    def __init__(self, step: int) -> None:
        self.step, self.done = step, 0

    def advance(self, n: int) -> None:
        """Count steps."""
        self.done += n
        if self.done >= self.step:
            raise Killed
