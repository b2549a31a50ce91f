"""Evening: slices, and parts of slices, made as bright as the usual slice of their volume."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.types import Doubles, Floats, Roi, Zyx
from volseg.voxels.defects import Columns, find_missing
from volseg.voxels.intensity import Preprocessing, Tone, find_tone
from volseg.voxels.slices import HIGH, LOW, QUANTILES

POINTS = 1000
"""Of the usual slice's intensities, from which a preprocessing is fitted."""


@dataclass(frozen=True, eq=False)
class Evening:
    """Statistics that even the intensities of one level of a volume.

    Attributes
    ----------
    ends : float64, shape (slices, 2): intensities of each slice that become 0 and 1 ...
    usual : (low, high): ... and then these, which are those of the usual slice.
    cells : float64, shape (groups, y, x, 2): what becomes 0 and 1 of each cell, in place of 0 and 1
        of its slice; None to take slices as wholes.
    group : slices of a group of cells.
    shape : (y, x) of the level.
    """

    ends: Doubles
    usual: tuple[float, float]
    cells: Doubles | None
    group: float
    shape: tuple[int, int]

    def __call__(self, raw: NDArray[Any], box: Roi) -> Floats:
        """Even what was read from a box; float32, same shape."""
        low, high = self.ends[box[0]].T[:, :, None, None]
        level = (raw.astype(np.float32) - low) / (high - low)
        if self.cells is not None:
            for k, z in enumerate(range(box[0].start, box[0].stop)):
                first, last = self._field(z, box)
                level[k] = (level[k] - first) / (last - first)
        first, last = self.usual
        return np.asarray(first + level * (last - first), np.float32)

    @property
    def fingerprint(self) -> str:
        """Tell these statistics from others."""
        told = hashlib.blake2b(np.array([*self.usual, self.group]).tobytes(), digest_size=16)
        told.update(self.ends.tobytes())
        told.update(b"" if self.cells is None else self.cells.tobytes())
        return told.hexdigest()

    def _field(self, z: int, box: Roi) -> Doubles:
        """Interpolate between the middles of cells; shape (2, y, x)."""
        cells = self.cells if self.cells is not None else np.zeros((1, 1, 1, 2))
        along = _weights((z + 0.5) / self.group, len(cells))
        y, x = (
            _weights((np.arange(s.start, s.stop) + 0.5) * count / n, count)
            for s, n, count in zip(box[1:], self.shape, cells.shape[1:3], strict=True)
        )
        field = np.tensordot(along[0], cells, axes=1)
        return np.asarray(np.einsum("yi,ijk,xj->kyx", y, field, x))


def _weights(position: Any, count: int) -> Doubles:
    """Weigh cells for positions counted in cells; shape (positions, count)."""
    at = np.clip(np.atleast_1d(position) - 0.5, 0, count - 1)
    return np.asarray(np.maximum(1 - np.abs(at[:, None] - np.arange(count)), 0))


def even_out(
    slices: Columns, cells: Doubles | None, group: int, factor: tuple[float, ...], shape: Zyx
) -> Evening:
    """Find what evens one level of a volume.

    Slices that hold nothing take the brightness of the nearest that does.

    Parameters
    ----------
    slices : of level 0
    cells : of level 0, or None to take slices as wholes
    group : slices of level 0 in a group of cells
    factor : voxels of level 0 per voxel of the level
    shape : of the level
    """
    held = np.flatnonzero(~find_missing(slices))
    ends = slices.quantiles[held][:, [LOW, HIGH]]
    usual = np.median(ends, axis=0)
    nearest = np.abs(held - np.arange(len(slices.sharpness))[:, None]).argmin(axis=1)
    whole = ends[nearest]
    # a slice without contrast would be made noise
    whole[:, 1] = np.maximum(whole[:, 1], whole[:, 0] + 0.05 * max(usual[1] - usual[0], 1e-30))
    # levels of others may be of no whole number of slices
    edges = (np.arange(shape[0] + 1) * factor[0]).round().astype(int).clip(max=len(whole))
    first = np.minimum(edges[:-1], len(whole) - 1)
    coarse = [whole[a : max(a + 1, b)].mean(axis=0) for a, b in zip(first, edges[1:], strict=True)]
    kept = None if cells is None else _sound(cells)
    return Evening(
        np.array(coarse),
        (float(usual[0]), float(usual[1])),
        kept,
        group / factor[0],
        (shape[1], shape[2]),
    )


def _sound(cells: Doubles) -> Doubles:
    """Keep cells of little contrast from becoming noise."""
    low, high = cells[..., 0], cells[..., 1]
    return np.stack([low, np.maximum(high, low + 0.2)], axis=-1)


def even_tone(preprocessing: Preprocessing, slices: Columns, *, invert: bool = False) -> Tone:
    """Fit a preprocessing to the usual slice."""
    held = ~find_missing(slices)
    ends = slices.quantiles[held][:, [LOW, HIGH]]
    low, high = np.median(ends, axis=0)
    width = np.maximum(ends[:, 1] - ends[:, 0], 1e-30)
    level = (slices.quantiles[held] - ends[:, :1]) / width[:, None]
    usual = low + np.median(level, axis=0) * (high - low)
    part = (np.arange(POINTS) + 0.5) / POINTS * 100
    values = np.interp(part, QUANTILES, usual)
    return find_tone(preprocessing, np.ones(POINTS), values, invert=invert)
