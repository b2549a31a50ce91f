"""Evaluate a small region by itself, in memory: for maps that a prediction does not write."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch

from volseg.engine.progress import Progress
from volseg.geometry.grid import intersect, roi_shape, shift
from volseg.geometry.lattice import AxisLattice, Lattice
from volseg.models.registry import Architecture
from volseg.stages.predict.look import is_wanted
from volseg.stages.predict.pipeline import along_axes
from volseg.stages.predict.plan import PredictPlan
from volseg.stages.predict.tiles import blending, tiles_of
from volseg.types import Floats, Roi, zyx

Maps: TypeAlias = dict[str, Floats]
Evaluate: TypeAlias = Callable[[Floats, Roi, int], Maps]


def blend_region(plan: PredictPlan, evaluate: Evaluate, progress: Progress) -> Maps:
    """Evaluate the tiles of a plan's region, and blend their maps as probabilities are blended.

    Parameters
    ----------
    evaluate : maps what is seen of a tile, the part of it that is needed and the axis along which
        slices are taken to maps of that size without the margin, by name
    """
    total: Maps = {}
    handover, roi = plan.handover, plan.handover.roi
    tiles, form = tiles_of(plan), plan.card.form
    corner, views = [s.start for s in roi], len(handover.lattices)
    for tile in handover.reaching():
        lattice = handover.lattices[tile.lattice]
        shared = intersect(handover.support(tile), roi)
        wanted = is_wanted(handover, tiles.look.mask, tile)
        cut_out = tiles.cut(tile, tiles.read([tile]).send()) if wanted and shared else None
        if cut_out is not None and shared is not None:
            needed = tiles.needed(tile, [roi])
            cut = cut_tile(needed, lattice, form.viewed(lattice.normal))
            axes = zip(lattice.axes, tile.position, shared, cut, strict=True)
            z, y, x = (_weights(a, k, s)[:, c] for a, k, s, c in axes)
            around = zip(cut, lattice.margin, strict=True)
            inputs = cut_out.numpy()[tuple(slice(c.start, c.stop + 2 * m) for c, m in around)]
            needed = shift(needed, [c.start for c in cut])
            for name, values in evaluate(inputs, needed, lattice.normal).items():
                if name not in total:
                    total[name] = np.zeros(roi_shape(roi), np.float32)
                weighed = along_axes(torch.from_numpy(values), (z, y, x)) / views
                total[name][shift(shared, corner)] += weighed.numpy()
        progress.advance(1)
    return total


def _weights(axis: AxisLattice, k: int, shared: slice) -> Floats:
    first, _ = axis.support(k)
    return blending(axis, k)[shared.start - first : shared.stop - first]


def cut_tile(needed: Roi, lattice: Lattice, form: Architecture) -> Roi:
    """Cut what is needed of a tile out, with as much around it as tiles overlap.

    Pooling falls on the same voxels as in the whole tile. What is farther away than tiles overlap
    is taken to decide nothing, as where tiles are blended.

    Examples
    --------
    >>> from volseg.geometry.lattice import AxisLattice
    >>> from volseg.models.registry import find_architecture
    >>> axis = AxisLattice(1000, 512, 64)
    >>> lattice, form = Lattice((AxisLattice(9, 8, 0), axis, axis)), find_architecture("unet2d")
    >>> cut_tile((slice(2, 3), slice(100, 140), slice(480, 512)), lattice, form)
    (slice(2, 3, None), slice(32, 208, None), slice(416, 512, None))
    """
    return zyx(
        slice(0, a.tile)
        if offset
        else slice(
            max((s.start - a.overlap) // step, 0) * step,
            min(-(-(s.stop + a.overlap) // step) * step, a.tile),
        )
        for s, a, step, offset in zip(needed, lattice.axes, form.multiple, form.offset, strict=True)
    )
