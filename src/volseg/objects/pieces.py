"""Places of the objects of a block, and the pieces that they fell into. Pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import roi_shape
from volseg.objects.components import Components
from volseg.objects.runs import Indices, Runs
from volseg.types import Roi
from volseg.voxels.compilation import compiled


def component_boxes(components: Components, core: Roi) -> NDArray[np.int64]:
    """Find the bounding boxes of a block's components.

    Returns
    -------
    int64, shape (components, 6)
        First voxel along (z, y, x), in the volume, and the voxel after the last.
    """
    boxes = np.zeros((len(components.sizes), 6), np.int64)
    boxes[:, :3] = np.iinfo(np.int64).max
    _extend(components.runs, components.values, roi_shape(core)[1], boxes)
    boxes += np.tile(np.array([s.start for s in core]), 2)
    return boxes


@compiled
def _extend(runs: Runs, values: Indices, height: int, boxes: NDArray[np.int64]) -> None:
    rows, starts, stops = runs
    for row in range(len(rows) - 1):
        z, y = row // height, row % height
        for run in range(rows[row], rows[row + 1]):
            box = boxes[values[run] - 1]
            box[0], box[1] = min(box[0], z), min(box[1], y)
            box[2] = min(box[2], np.int64(starts[run]))
            box[3], box[4] = max(box[3], z + 1), max(box[4], y + 1)
            box[5] = max(box[5], np.int64(stops[run]))


def piece_runs(pieces: NDArray[Any]) -> NDArray[np.int64]:
    """Find the stretches of one and the same piece along x.

    Parameters
    ----------
    pieces : integer, shape (z, y, x)

    Returns
    -------
    int64, shape (runs, 5)
        z, y, start, stop, and the piece.

    Examples
    --------
    >>> piece_runs(np.array([[[1, 1, 2, 0, 2]]])).tolist()
    [[0, 0, 0, 2, 1], [0, 0, 2, 3, 2], [0, 0, 4, 5, 2]]
    """
    height, width = pieces.shape[1:]
    padded = np.zeros((pieces.shape[0] * height, width + 1), np.int64)
    padded[:, :-1] = pieces.reshape(-1, width)
    line = padded.ravel()
    begins = np.flatnonzero(np.diff(line, prepend=0) != 0)
    ends = np.append(begins[1:], len(line))
    inside = line[begins] > 0
    begins, ends = begins[inside], ends[inside]
    row, start = np.divmod(begins, width + 1)
    columns = row // height, row % height, start, ends - row * (width + 1), line[begins]
    found: NDArray[np.int64] = np.stack(columns, axis=1)
    return found


def gather_runs(found: NDArray[np.int64], core: Roi) -> tuple[Runs, NDArray[np.uint32]]:
    """Put stretches of pieces in the order of a block's rows.

    Parameters
    ----------
    found : int64, shape (runs, 5); see `piece_runs`; counted in the volume.
    core : the block

    Returns
    -------
    runs : of the block
    values : uint32, shape (runs,); the piece of each.
    """
    depth, height, _ = roi_shape(core)
    z, y, start, stop, piece = (found - [*(s.start for s in core), core[2].start, 0]).T
    row: NDArray[np.int64] = z * height + y
    order = np.lexsort((start, row))
    rows = np.searchsorted(row[order], np.arange(depth * height + 1)).astype(np.uint32)
    runs = Runs(rows, start[order].astype(np.uint32), stop[order].astype(np.uint32))
    return runs, piece[order].astype(np.uint32)
