"""Tissue on a device, at several resolutions, and patches cut from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from volseg.training.augmentation import Placement
from volseg.types import Roi, Zyx
from volseg.voxels.blend import directions, reflected

ALIASING = 1.2
"""A level is taken a little before samples lie as far apart as its voxels, by this factor."""
RAW, MASK, UNKNOWN, MAPS = range(4)
"""Channels: normalised raw, foreground (0..1), in some tissue what is not annotated, and from there
on the targets of further maps."""
NOT_ANNOTATED = -1.0
"""The target of voxels that nobody annotated."""
Pooled = tuple[bool, bool, bool]
"""Axes (z, y, x) along which coarser levels average; not z where slices are thick."""


def places_of(count: int) -> list[int]:
    """List the channels of several targets: foreground is the first."""
    return [MASK, *range(MAPS, MAPS + count - 1)]


@dataclass(frozen=True)
class Cut:
    """Position of a patch in a level of the tissue in some bounds.

    Attributes
    ----------
    placement : in voxels of the level, counted from the bounds' start.
    shape : (z, y, x) of the patch.
    level : 0 is the tissue as it is; each level halves the resolution.
    low, high : (z, y, x), the first voxel of the level that may be needed, and the one after the
        last; both may lie beyond the bounds, where tissue is reflected.
    """

    placement: Placement
    shape: Zyx
    level: int
    low: NDArray[np.int64]
    high: NDArray[np.int64]


@dataclass(frozen=True)
class Tissue:
    """Raw and labels of a box.

    Attributes
    ----------
    channels : float, shape (c, z, y, x)
        Normalised raw, foreground, what is not annotated where there is such, and further maps.
    bounds : that the tissue ends at; patches see it reflected beyond.
    start : (z, y, x)
        Of the channels, counted from the bounds' start; a multiple of the voxels of coarser levels.
    vectors : of channels that are the (z, y, x) components of one, in voxels of the tissue.
    """

    channels: Tensor
    bounds: Roi
    start: Zyx
    pooled: Pooled
    vectors: tuple[tuple[int, ...], ...] = ()
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    @cached_property
    def _levels(self) -> list[Tensor]:
        return [self.channels]

    def level(self, number: int) -> Tensor:
        """Compute a level by averaging, once."""
        with self._lock:  # loaders share what is held, and want the same level at once
            while len(self._levels) <= number:
                finer = self._levels[-1]
                axes = zip(self.pooled, finer.shape[1:], strict=True)
                kernel = [2 if pooled and n > 1 else 1 for pooled, n in axes]
                parts = [
                    functional.avg_pool3d(c[None].float(), kernel, ceil_mode=True)[0] for c in finer
                ]
                self._levels.append(torch.stack([part.to(finer.dtype) for part in parts]))
            return self._levels[number]

    def cut(self, cut: Cut) -> Tensor:
        """Cut a patch, interpolated linearly: all channels, float32, shape (c, z, y, x).

        Vectors turn, and then are in voxels of the patch; where tissue or patch is reflected, so
        are they. A smooth displacement moves them, and does not bend them.
        """
        box, factor = self.level(cut.level), voxels_of(cut.level, self.pooled)
        for axis, (low, high, s) in enumerate(zip(cut.low, cut.high, self.bounds, strict=True)):
            length = -(-(s.stop - s.start) // factor[axis])
            index = reflected(low, high, length) - self.start[axis] // factor[axis]
            box = box.index_select(1 + axis, torch.from_numpy(index).to(box.device))
            back = torch.from_numpy(directions(low, high, length)).to(box)
            for components in self.vectors:
                box[components[axis]] *= back.reshape([-1 if a == axis else 1 for a in range(3)])
        ends = [max(n - 1, 1) for n in box.shape[1:]]
        at = _coordinates(cut, box.device)
        # grid_sample wants (x, y, z) in -1..1
        grid = torch.stack([(at[k] - cut.low[k]) * (2 / ends[k]) - 1 for k in (2, 1, 0)], dim=-1)
        sampled: Tensor = functional.grid_sample(
            box.float()[None], grid[None], padding_mode="border", align_corners=True
        )
        for components in self.vectors:
            sampled[0, list(components)] = _turned(sampled[0, list(components)], cut, factor)
        return sampled[0]


def _turned(vectors: Tensor, cut: Cut, factor: NDArray[np.int64]) -> Tensor:
    """Turn vectors of the tissue, shape (3, z, y, x), into those of a patch."""
    inverse = np.linalg.inv(cut.placement.matrix * factor[:, None]).astype(np.float32)
    turned = torch.einsum("ij,jzyx->izyx", torch.from_numpy(inverse).to(vectors.device), vectors)
    if cut.placement.mirror is not None:
        for axis, half in enumerate(cut.placement.mirror, 1):
            n = cut.shape[axis]
            on = (torch.arange(n, device=vectors.device) - (n - 1) / 2 + half) % (4 * half)
            sign = torch.where(on < 2 * half, 1.0, -1.0)
            turned[axis] *= sign[:, None] if axis == 1 else sign
    return turned


def _coordinates(cut: Cut, device: torch.device) -> Tensor:
    """Compute where the voxels of a patch lie, float32, shape (3, z, y, x)."""
    place, shape = cut.placement, cut.shape
    z, y, x = (torch.arange(n, device=device) - (n - 1) / 2 for n in shape)
    if place.mirror is not None:
        y, x = (_folded(a, half) for a, half in zip((y, x), place.mirror, strict=True))
    moved = torch.from_numpy(place.knots).to(device)
    if place.knots.size > 3:
        moved = functional.interpolate(moved[None], shape, mode="trilinear", align_corners=True)[0]
    at = torch.stack(
        [
            m[0] * z[:, None, None] + m[1] * y[:, None] + (m[2] * x + c) + displaced
            for m, c, displaced in zip(
                place.matrix.tolist(), place.centre.tolist(), moved, strict=True
            )
        ]
    )
    if (place.order != np.arange(shape[0])).any() or place.offsets.any():
        at = at[:, torch.from_numpy(place.order).to(device)]
        at[1:] += torch.from_numpy(place.offsets).to(device)[:, :, None, None]
    return at


def _folded(offsets: Tensor, half: float) -> Tensor:
    """Reflect offsets at -half and half, as often as it takes."""
    return half - ((offsets + half) % (4 * half) - 2 * half).abs()


def voxels_of(level: int, pooled: Pooled) -> NDArray[np.int64]:
    """Return the size of a level's voxels, in voxels of the tissue.

    Examples
    --------
    >>> voxels_of(2, (False, True, True)).tolist()
    [1, 4, 4]
    """
    return np.where(pooled, 1 << level, 1)


def choose_level(spacing: float) -> int:
    """Choose the level for samples that lie so many voxels apart.

    Examples
    --------
    >>> [choose_level(s) for s in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)]
    [0, 0, 0, 1, 1, 2]
    """
    return max(math.floor(math.log2(spacing * ALIASING)), 0)


def locate(placement: Placement, shape: Zyx, bounds: Roi, pooled: Pooled) -> Cut:
    """Choose the level for a patch, and find what it needs of it.

    Computed from what was drawn, so that nothing waits for the device.

    Parameters
    ----------
    placement : in voxels of the source.
    shape : (z, y, x)
    bounds : that the tissue ends at.
    pooled : Pooled
    """
    level = choose_level(placement.spacing)
    factor = voxels_of(level, pooled)
    first = np.array([s.start for s in bounds])
    knots = placement.knots / factor.astype(np.float32).reshape(3, 1, 1, 1)
    offsets = placement.offsets / factor[1:].astype(np.float32)[:, None]
    matrix = placement.matrix / factor[:, None]
    centre = (placement.centre - first + 0.5) / factor - 0.5
    reach = (np.array(shape) - 1) / 2
    if placement.mirror is not None:
        reach[1:] = np.minimum(reach[1:], placement.mirror)
    spread = np.abs(matrix) @ reach + np.abs(knots).max(axis=(1, 2, 3))
    spread[1:] += np.abs(offsets).max(axis=1)
    spread += 1e-4  # of single precision
    return Cut(
        replace(placement, matrix=matrix, centre=centre, knots=knots, offsets=offsets),
        shape,
        level,
        np.floor(centre - spread).astype(np.int64),
        np.ceil(centre + spread).astype(np.int64) + 1,
    )


def needed(cut: Cut, bounds: Roi, pooled: Pooled) -> Roi:
    """Find the box of the source that a patch needs, whole voxels of its level."""
    factor, sides = voxels_of(cut.level, pooled).tolist(), []
    for s, f, low, high in zip(bounds, factor, cut.low, cut.high, strict=True):
        index = reflected(low, high, -(-(s.stop - s.start) // f))
        stop = s.start + (int(index.max()) + 1) * f
        sides.append(slice(s.start + int(index.min()) * f, min(stop, s.stop)))
    return sides[0], sides[1], sides[2]


def cut_beside(values: NDArray[Any], cut: Cut, pooled: Pooled, bounds: Roi) -> Tensor:
    """Cut values that lie beside raw as raw is cut.

    Parameters
    ----------
    values : float, shape of ``bounds``

    Returns
    -------
    float32, shape (1, z, y, x)
    """
    z, y, x = (
        slice(b.start - s.start, b.stop - s.start)
        for b, s in zip(needed(cut, bounds, pooled), bounds, strict=True)
    )
    read = torch.from_numpy(values[z, y, x].astype(np.float32))
    # tissue has two channels at least
    tissue = Tissue(torch.stack([read, read]), bounds, (z.start, y.start, x.start), pooled)
    return tissue.cut(cut)[:1]


def target_of(channels: Tensor) -> Tensor:
    """Make the targets of a patch, from (c, z, y, x) to (maps, z, y, x), `NOT_ANNOTATED` or 0..1.

    What is foreground or not is 1 or 0; further maps are as they were interpolated.
    """
    further = channels[MAPS:].nan_to_num(nan=NOT_ANNOTATED)
    target = torch.cat([(channels[MASK] >= 0.5).float()[None], further])
    if len(channels) > UNKNOWN:
        target[:, channels[UNKNOWN] > 0.5] = NOT_ANNOTATED
    return target
