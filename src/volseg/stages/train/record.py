"""Curves, samples and TensorBoard logs of a run, where their libraries are installed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from volseg.errors import StorageError
from volseg.stages.train.folder import CURVES, EVENTS, SAMPLES
from volseg.stages.train.loop import LOG
from volseg.stages.train.state import Run
from volseg.storage.checkpoints import read_log
from volseg.storage.plots import Sample, can_draw, overlay, save_curves, save_patches, save_sample
from volseg.training.config import TrainConfig
from volseg.training.loader import draw_batch
from volseg.training.sampling import Source
from volseg.training.tissue import RAW
from volseg.training.validation import grid_shape, predict_window, read_window
from volseg.types import Floats, Mask, Roi

SIDES = {2: (1, 256, 256), 3: (8, 96, 96)}
"""Of the window that samples show the middle slice of, by the network's dimensions."""
PATCHES = 4
"""That are drawn when a run begins."""


@dataclass
class Record:
    """Record of a run's validations; it has no influence on the run.

    Attributes
    ----------
    writer : of TensorBoard; None where that is not installed.
    """

    folder: Path
    sources: Sequence[Source]
    writer: Any = None
    _window: tuple[Source, Roi] | None = field(default=None, repr=False)

    def __call__(self, run: Run, row: Mapping[str, float]) -> None:
        """Record a validation."""
        if not can_draw() and self.writer is None:
            return
        self._window = self._window or choose_window(self.sources, run.form.dimensions)
        sample = sample_run(run, *self._window)
        if can_draw():
            save_curves(self.folder / CURVES, read_log(self.folder / LOG))
            name = f"step-{run.step:07d}.png"
            save_sample(self.folder / SAMPLES / name, sample, row["threshold"])
        if self.writer is not None:
            self._tell_tensorboard(run, row, sample)

    def _tell_tensorboard(self, run: Run, row: Mapping[str, float], sample: Sample) -> None:
        try:
            for name in sorted(set(row) - {"step", "epoch", "minutes", "threshold"}):
                self.writer.add_scalar(name, row[name], run.step)
            found = sample.probabilities >= row["threshold"]
            for name, mask in (("labels", sample.truth), ("found", found)):
                shown = overlay(sample.raw, mask)
                self.writer.add_image(name, shown, run.step, dataformats="HWC")
            self.writer.flush()
        except OSError as error:
            raise StorageError(f"cannot write {self.folder / EVENTS}: {error.strerror}") from error

    def close(self) -> None:
        """End TensorBoard's log."""
        if self.writer is not None:
            self.writer.close()


def open_record(folder: Path, sources: Sequence[Source], step: int) -> Record:
    """Start the record of a run, or continue it from a step; name missing libraries once."""
    missing = [name for name in ("matplotlib", "tensorboard") if find_spec(name) is None]
    if "matplotlib" in missing:
        warnings.warn(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed, so "
            f"{LOG} is the only log; pip install 'volseg[train]' brings curves and samples",
            stacklevel=1,
        )
    writer = None
    if "tensorboard" not in missing:
        from torch.utils.tensorboard import SummaryWriter

        try:
            writer = SummaryWriter(str(folder / EVENTS), purge_step=step + 1 if step else None)
        except OSError as error:
            raise StorageError(f"cannot write {folder / EVENTS}: {error.strerror}") from error
    return Record(folder, sources, writer)


def show_patches(folder: Path, sources: Sequence[Source], config: TrainConfig) -> None:
    """Draw the middle slices of the first patches that a run trains on, where that is possible."""
    if not can_draw():
        return
    shown: list[tuple[Floats, Mask]] = []
    while len(shown) < PATCHES:
        raw, target, _ = draw_batch(sources, config, len(shown) // config.batch, centerline=False)
        middle = raw.shape[2] // 2
        shown += zip(raw[:, 0, middle].numpy(), target[:, 0, middle].numpy() > 0, strict=True)
    save_patches(folder / SAMPLES / "step-0000000-patches.png", shown[:PATCHES])


def choose_window(sources: Sequence[Source], dimensions: int) -> tuple[Source, Roi]:
    """Choose a window about foreground, on the network's grid, the same for the whole run."""
    source = max(sources, key=lambda s: len(s.foreground))
    centres = source.foreground
    z = int(np.bincount(centres[:, 0]).argmax())
    middle = (z, *np.median(centres[centres[:, 0] == z][:, 1:], axis=0).astype(int).tolist())
    window = []
    axes = zip(middle, SIDES[dimensions], source.roi, source.scale, grid_shape(source), strict=True)
    for centre, side, s, scale, extent in axes:
        length = min(side, extent)
        first = int((centre - s.start) / scale) - length // 2
        first = min(max(first, 0), extent - length)
        window.append(slice(first, first + length))
    return source, (window[0], window[1], window[2])


def sample_run(run: Run, source: Source, window: Roi) -> Sample:
    """Predict a window with the averaged weights, and take its middle slice."""
    run.averaged.eval()
    predicted, truth = predict_window(run.averaged, source, window, run.form, run.precision)
    raw = read_window(source, window)[RAW].numpy()
    k = len(raw) // 2
    return Sample(raw[k], truth[k], predicted[k])
