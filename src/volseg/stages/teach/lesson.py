"""Make training data of marks: windows in which only marks count, and windows to remember."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from volseg.geometry.grid import full_roi, roi_shape
from volseg.models.registry import Architecture
from volseg.objects.intervals import paint_intervals
from volseg.storage.marks import Mark
from volseg.storage.volumes import Image
from volseg.training.sampling import Source
from volseg.training.tissue import NOT_ANNOTATED
from volseg.training.validation import predict_window, whole_grid
from volseg.types import Roi, VoxelSize, Zyx
from volseg.voxels.apart import Apart, tone_at
from volseg.voxels.intensity import Tone

SURE = 0.9
"""Probability from which what a network says is kept as a target, and 1 less it for background."""
MARGIN = 1.3
"""Side of a window, in sides of a patch: patches are shifted, turned and zoomed."""
MOST_SIDE = 4096
"""Voxels of a window's side, at most."""
PER_MARK = 4
"""Windows about a mark, at most; more show nothing new of an object of many slices."""
TAUGHT = 0.35
"""Part of the patches that show marks; the others show what was known before."""


@dataclass(frozen=True)
class Eye:
    """A network and how it sees a volume.

    Attributes
    ----------
    patch : that it is trained on, in its own voxels (z, y, x).
    scales : voxels of the volume per voxel of the network.
    tone : of intensities, or of those of each slice.
    """

    image: Image
    form: Architecture
    patch: Zyx
    scales: VoxelSize
    tone: Tone | Apart
    precision: torch.dtype
    device: torch.device

    @property
    def planar(self) -> bool:
        """Tell whether it sees slices."""
        return self.form.dimensions == 2

    def window(self, centre: Zyx) -> Roi:
        """Choose a window about a voxel, of the volume, within it."""
        sides = [
            min(math.ceil(n * s * (1 if n == 1 else MARGIN)), MOST_SIDE, whole)
            for n, s, whole in zip(self.patch, self.scales, self.image.levels[0].shape, strict=True)
        ]
        if self.planar:
            sides[0] = 1
        starts = [
            min(max(c - side // 2, 0), whole - side)
            for c, side, whole in zip(centre, sides, self.image.levels[0].shape, strict=True)
        ]
        z, y, x = (slice(a, a + n) for a, n in zip(starts, sides, strict=True))
        return z, y, x

    def source(
        self, roi: Roi, targets: NDArray[np.int8], weight: float, *, rare: bool = False
    ) -> Source:
        """Make a source of a window and its targets: 1, 0, or below 0 where nothing is known.

        Patches are centred on what is known; with ``rare``, on mitochondria where there are any.
        """
        known = np.argwhere(targets > 0 if rare and targets.max() > 0 else targets >= 0)
        chosen = np.random.default_rng(0).permutation(len(known))[:4096]
        return Source(
            np.asarray(self.image.levels[0][roi]),
            targets,
            full_roi(targets.shape),
            tone_at(self.tone, roi[0].start),
            known[chosen],
            isotropic=False,
            planar=self.planar,
            scale=(1.0, *self.scales[1:]) if self.planar else self.scales,
            weight=weight,
            partial=True,
        )


@dataclass(frozen=True)
class Lesson:
    """Marks, and places to remember.

    Attributes
    ----------
    places : centres of windows in which the network is to remember what it was sure of.
    """

    eye: Eye
    marks: Sequence[Mark]
    places: Sequence[Zyx]

    @property
    def shape(self) -> Zyx:
        """Shape of the volume."""
        return self.eye.image.levels[0].shape

    def show_marks(self) -> list[Source]:
        """Make a window about each mark, or several about a large one, where only marks count."""
        sources = []
        for mark in self.marks:
            centres = choose_centres(mark, self.shape)
            for centre in centres:
                roi = self.eye.window(centre)
                targets = np.full(roi_shape(roi), int(NOT_ANNOTATED), np.int8)
                draw_marks(targets, roi, self.marks, self.shape)
                weight = TAUGHT / len(self.marks) / len(centres)
                sources.append(self.eye.source(roi, targets, weight))
        return sources

    def remember(self, network: nn.Module) -> list[Source]:
        """Make windows whose targets are what the old network is sure of; marks come first."""
        sources, weight = [], (1 - TAUGHT) / max(len(self.places), 1)
        for place in self.places:
            roi = self.eye.window(place)
            blank = self.eye.source(roi, np.zeros(roi_shape(roi), np.int8), weight)
            found = predict_source(network, blank, self.eye)
            targets = np.full(roi_shape(roi), int(NOT_ANNOTATED), np.int8)
            targets[found <= 1 - SURE] = 0
            targets[found >= SURE] = 1
            draw_marks(targets, roi, self.marks, self.shape)
            sources.append(self.eye.source(roi, targets, weight, rare=True))
        return sources

    def measure(self, network: nn.Module, threshold: float) -> tuple[float, float]:
        """Measure which part of what is marked no, and yes, a network takes for mitochondria.

        Returns
        -------
        no, yes : NaN where nothing is marked so.
        """
        counts = np.zeros((2, 2), np.int64)
        for source in self.show_marks():
            found = predict_source(network, source, self.eye) >= threshold
            for said in (0, 1):
                marked = np.asarray(source.labels) == said
                counts[said] += (found & marked).sum(), marked.sum()
        no, yes = (float(a / b) if b else math.nan for a, b in counts.tolist())
        return no, yes


def choose_centres(mark: Mark, shape: Zyx) -> list[Zyx]:
    """Choose voxels of a mark, in slices spread over it: of each the middle run."""
    plane = shape[1] * shape[2]
    slices = np.unique(mark.spans[:, 0] // plane)
    chosen = slices[np.linspace(0, len(slices) - 1, min(PER_MARK, len(slices))).round().astype(int)]
    centres = []
    for z in chosen.tolist():
        inside = mark.spans[mark.spans[:, 0] // plane == z]
        start, stop = inside[len(inside) // 2].tolist()
        y, x = divmod((start + stop) // 2 - z * plane, shape[2])
        centres.append((z, y, x))
    return centres


def draw_marks(targets: NDArray[np.int8], roi: Roi, marks: Sequence[Mark], shape: Zyx) -> None:
    """Write marks into the targets of a window, over what is there."""
    for mark in marks:
        paint_intervals(targets, roi, mark.spans, shape, int(mark.yes))


def predict_source(network: nn.Module, source: Source, eye: Eye) -> NDArray[np.float32]:
    """Predict all of a source, in its own voxels."""
    network.eval()
    found, _ = predict_window(network, source, whole_grid(source), eye.form, eye.precision)
    resized: Tensor = functional.interpolate(
        torch.from_numpy(found)[None, None], roi_shape(source.roi), mode="trilinear"
    )
    probabilities: NDArray[np.float32] = resized[0, 0].numpy()
    return probabilities
