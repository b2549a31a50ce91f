"""Task of evaluating one block: read both labellings and count the pairs of labels."""

from __future__ import annotations

from collections.abc import Callable
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


def compare_block(
    truth: ReadBlock,
    predicted: ReadBlock,
    counted: LabelSource | None,
    probabilities: StoredArray | None,
    sizes: tuple[tuple[int, int], ...] | None,
    block: Block,
) -> tuple[list[Contingency], NDArray[np.int64] | None]:
    """Return the tables of one block, and its histograms where there are probabilities.

    Parameters
    ----------
    counted : only voxels above 0 in it count; None counts all
    sizes : (y, x) of the images that slices are, each of which has a table of its own; None of a
        volume
    """
    inside = None if counted is None else counted[block.core]
    true = truth(block)
    histogram = None
    if probabilities is not None:
        levels = probabilities[block.core]
        histogram = count_probabilities(levels, true, inside)
        del levels
    found = predicted(block)
    if sizes is None:
        return [count_pairs(true, found, block.core, inside)], histogram
    tables = []
    z, y, x = block.core
    for k, (height, width) in enumerate(sizes[z]):
        rows, columns = (
            slice(s.start, max(min(s.stop, n), s.start)) for s, n in ((y, height), (x, width))
        )
        own = (
            slice(k, k + 1),
            slice(0, rows.stop - rows.start),
            slice(0, columns.stop - columns.start),
        )
        core = slice(z.start + k, z.start + k + 1), rows, columns
        held = None if inside is None else inside[own]
        tables.append(count_pairs(true[own], found[own], core, held))
    return tables, histogram
