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


def read_stored(source: LabelSource, block: Block) -> NDArray[Any]:
    """Read a block of labels as they are stored."""
    return source[block.core]


@dataclass(frozen=True)
class CompareBlock:
    """Compare one block.

    Attributes
    ----------
    counted : only voxels above 0 in it count; None counts all
    probabilities : None where there are none
    sizes : (y, x) of the images that slices are, each of which has a table of its own; None of a
        volume
    """

    truth: ReadBlock
    predicted: ReadBlock
    counted: LabelSource | None
    probabilities: StoredArray | None
    sizes: tuple[tuple[int, int], ...] | None = None

    def __call__(self, block: Block) -> tuple[list[Contingency], NDArray[np.int64] | None]:
        """Return the tables of one block, and its histograms where there are probabilities."""
        counted = None if self.counted is None else self.counted[block.core]
        truth = self.truth(block)
        histogram = None
        if self.probabilities is not None:
            levels = self.probabilities[block.core]
            histogram = count_probabilities(levels, truth, counted)
            del levels
        predicted = self.predicted(block)
        if self.sizes is None:
            return [count_pairs(truth, predicted, block.core, counted)], histogram
        tables = []
        z, y, x = block.core
        for k, (height, width) in enumerate(self.sizes[z]):
            rows, columns = (
                slice(s.start, max(min(s.stop, n), s.start)) for s, n in ((y, height), (x, width))
            )
            own = (
                slice(k, k + 1),
                slice(0, rows.stop - rows.start),
                slice(0, columns.stop - columns.start),
            )
            core = slice(z.start + k, z.start + k + 1), rows, columns
            held = None if counted is None else counted[own]
            tables.append(count_pairs(truth[own], predicted[own], core, held))
        return tables, histogram
