"""Task of evaluating one block: read both labellings and count the pairs of labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import Block
from volseg.scores.contingency import Contingency, count_pairs
from volseg.scores.curves import count_probabilities
from volseg.sources.labels import LabelSource
from volseg.storage.arrays import StoredArray

ReadBlock: TypeAlias = Callable[[Block], NDArray[Any]]
"""Gives the labels of one block; picklable."""


@dataclass(frozen=True)
class Stored:
    """Labels as they are stored."""

    source: LabelSource

    def __call__(self, block: Block) -> NDArray[Any]:
        """Read one block."""
        return self.source[block.core]


@dataclass(frozen=True)
class CompareBlock:
    """Compare one block.

    Attributes
    ----------
    truth, predicted : labels
    counted : only voxels above 0 in it count; None counts all
    probabilities : None where there are none
    """

    truth: ReadBlock
    predicted: ReadBlock
    counted: LabelSource | None
    probabilities: StoredArray | None

    def __call__(self, block: Block) -> tuple[Contingency, NDArray[np.int64] | None]:
        """Return the table of one block, and its histograms where there are probabilities."""
        counted = None if self.counted is None else self.counted[block.core]
        truth = self.truth(block)
        histogram = None
        if self.probabilities is not None:
            levels = self.probabilities[block.core]
            histogram = count_probabilities(levels, truth, counted)
            del levels
        return count_pairs(truth, self.predicted(block), block.core, counted), histogram
