"""Weights that a run exported and the data that it held out, by which their card is completed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from volseg.geometry.grid import roi_shape, shift
from volseg.models.registry import Architecture
from volseg.storage.cards import Card, load_card, update_card
from volseg.storage.weights import load_network
from volseg.training.sampling import Source
from volseg.training.validation import CORES, cut_windows, find_known, predict_window
from volseg.types import FULL_PROBABILITY, Floats, Mask, Roi


@dataclass(frozen=True)
class HeldOut:
    """Weights, and what they are judged by.

    Attributes
    ----------
    images : whether slices are unrelated images, so that objects have no depth.
    """

    weights: Path
    sources: Sequence[Source]
    device: torch.device
    precision: torch.dtype
    images: bool = False

    @property
    def card(self) -> Card:
        """The card as it is by now."""
        return load_card(self.weights)

    @cached_property
    def form(self) -> Architecture:
        """Form of the network."""
        return self.card.form

    @cached_property
    def network(self) -> nn.Module:
        """The network, on the device."""
        return load_network(self.weights, self.card).to(self.device)

    def note(self, name: str, noted: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
        """Change rules in the card, and note how they were chosen."""
        training = {**self.card.training, name: noted}
        update_card(self.weights, {**changed, "training": training})

    def predict(self, source: Source, window: Roi) -> tuple[Floats, Mask]:
        """Predict a window of the network's grid; return probabilities, and the truth."""
        return predict_window(self.network, source, window, self.form, self.precision)

    def predict_region(self, source: Source, roi: Roi) -> tuple[NDArray[np.uint8], Mask]:
        """Predict a region, window by window; what nobody annotated holds no objects.

        Returns
        -------
        levels, truth : uint8 and bool, shape of the region; 255 stands for a probability of 1.
        """
        levels: NDArray[np.uint8] = np.empty(roi_shape(roi), np.uint8)
        truth: Mask = np.empty(levels.shape, bool)
        for window in cut_windows(roi, CORES[self.form.dimensions]):
            probabilities, inside_truth = self.predict(source, window)
            inside = shift(window, [side.start for side in roi])
            known = find_known(source, window)
            seen = probabilities if known is None else probabilities * known
            levels[inside] = (seen * FULL_PROBABILITY).round()
            truth[inside] = inside_truth
        return levels, truth
