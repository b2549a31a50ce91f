"""Task of evaluating one block: read both labellings and count the pairs of labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import Block, shift
from volseg.scores.contingency import Contingency, count_pairs
from volseg.scores.curves import count_probabilities
from volseg.sources.labels import LabelSource
from volseg.storage.arrays import StoredArray
from volseg.types import Roi

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
    true, levels = truth(block), None if probabilities is None else probabilities[block.core]
    found = predicted(block)
    if sizes is None:
        histogram = None if levels is None else count_probabilities(levels, true, inside)
        return [count_pairs(true, found, block.core, inside)], histogram
    tables, histograms = [], []
    for own, core in _images_in(block.core, sizes):
        held = None if inside is None else inside[own]
        tables.append(count_pairs(true[own], found[own], core, held))
        if levels is not None:
            histograms.append(count_probabilities(levels[own], true[own], held))
    return tables, np.sum(histograms, axis=0) if histograms else None


def _images_in(block: Roi, sizes: tuple[tuple[int, int], ...]) -> Iterator[tuple[Roi, Roi]]:
    """Find of each slice what its image has of it: within the block, and in the volume."""
    z, *sides = block
    for k, size in enumerate(sizes[z]):
        y, x = (
            slice(s.start, max(min(s.stop, n), s.start)) for s, n in zip(sides, size, strict=True)
        )
        core = slice(z.start + k, z.start + k + 1), y, x
        yield shift(core, [z.start, y.start, x.start]), core
