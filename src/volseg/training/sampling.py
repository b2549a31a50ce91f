"""Random positions of training patches, biased to foreground; read from storage or from memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from volseg.errors import ShapeError
from volseg.geometry.grid import roi_shape
from volseg.training.annotation import SLAB, iterate_slices
from volseg.training.augmentation import Augmentation, Frame, draw_placement
from volseg.training.looks import Look, draw_look
from volseg.training.painting import draw_painted, paint
from volseg.training.targets import Targets, read_targets
from volseg.training.tissue import MAPS, Pooled, Tissue, cut_beside, locate, needed
from volseg.types import Readable, Roi, VoxelSize, Zyx
from volseg.voxels.apart import Apart
from volseg.voxels.intensity import Tone

CPU = torch.device("cpu")
SAMPLE = 4096
"""Voxels of a slice's foreground that are kept."""


@dataclass(frozen=True)
class Source:
    """One annotated box of a volume.

    Attributes
    ----------
    raw, labels : arrays, shape (z, y, x)
    roi : patches are read from this box only.
    tone : what the network sees of intensities.
    foreground : int64, shape (k, 3), a sample of the foreground's voxels.
    isotropic : whether patches may be rotated out of the (y, x) plane.
    slices : int64, shape (k,), optional
        The z of the roi's annotated slices, ascending; None where all of them are.
    planar : whether patches are single slices that take nothing from their neighbours.
    scale : (z, y, x) voxels of the source per voxel of the network.
    depth : thickness of the slices that a planar network sees, in voxels of its size; 1 for others.
    weight : float, optional
        How often it is drawn from, against the others; its annotated voxels by default.
    tissue : all of the roi, where it is held in memory; see `hold`.
    hard : int64, shape (k, 3), optional
        Voxels that the network took for what they are not; see `volseg.training.hard_examples`.
    partial : whether labels below 0 stand for voxels that nobody annotated.
    ends : (y, x) of each slice, int64, if its reflection beyond is taken for not annotated.
    apart, lines : tones of slices, in place of ``tone``, and closeness to centerlines, if any.
    size : nm (z, y, x) of the network's voxels.
    counts : voxels of each class.
    targets : Targets, optional
        Of a network of several maps; ``labels`` then tell where any class is.
    """

    raw: Readable
    labels: Readable
    roi: Roi
    tone: Tone
    foreground: NDArray[np.int64]
    isotropic: bool
    slices: NDArray[np.int64] | None = None
    planar: bool = False
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    depth: float = 1.0
    weight: float | None = None
    tissue: Tissue | None = None
    hard: NDArray[np.int64] | None = None
    partial: bool = False
    ends: NDArray[np.int64] | None = None
    apart: Apart | None = None
    size: VoxelSize = (5.0, 5.0, 5.0)
    lines: NDArray[np.float16] | None = None
    targets: Targets | None = None
    counts: tuple[int, ...] = ()

    @property
    def annotated(self) -> int:
        """Number of voxels that may be learned from."""
        z, y, x = roi_shape(self.roi)
        return (z if self.slices is None else len(self.slices)) * y * x

    @property
    def incomplete(self) -> bool:
        """Tell whether there may be voxels in a slice that nobody annotated."""
        return self.partial or self.targets is not None or self.ends is not None

    @property
    def frame(self) -> Frame:
        """Return how patches see it: networks of slices see those along z only."""
        return Frame(self.isotropic and not self.planar, self.planar, self.scale)

    @property
    def pooled(self) -> Pooled:
        """Tell along which axes coarser levels average; never slices that nobody annotated."""
        return self.isotropic and self.slices is None, True, True


def find_foreground(
    labels: Readable, roi: Roi, slices: NDArray[np.int64] | None = None, keep: int = SAMPLE
) -> tuple[NDArray[np.int64], int]:
    """Collect an even random sample of foreground voxels, slice by slice.

    Parameters
    ----------
    labels : integer, shape (z, y, x); foreground is what is above 0.
    slices : int64, shape (k,), optional; the z of those to look at; all of the roi's otherwise.
    keep : at most this many per slice.

    Returns
    -------
    positions : int64, shape (k, 3); in the volume.
    count : all foreground voxels of the roi.
    """
    rng = np.random.default_rng(0)
    found, count = [np.zeros((0, 3), np.int64)], 0
    for z, slice_ in iterate_slices(labels, roi, slices):
        plane = np.flatnonzero(slice_ > 0)
        count += plane.size
        kept = rng.choice(plane, keep, replace=False) if plane.size > keep else plane
        y, x = np.divmod(kept, roi[2].stop - roi[2].start)
        found.append(np.stack([np.full_like(y, z), y + roi[1].start, x + roi[2].start], axis=1))
    return np.concatenate(found).astype(np.int64), count


def count_classes(sources: Sequence[Source]) -> list[int]:
    """Count the voxels of each class in several sources."""
    return [sum(counts) for counts in zip(*(source.counts for source in sources), strict=True)]


def draw_centre(
    source: Source,
    rng: np.random.Generator,
    foreground_share: float,
    centre_crop: float = 0.0,
    hard_share: float = 0.0,
) -> tuple[float, float, float]:
    """Draw a patch's centre: a hard example, the roi's own, a foreground voxel, or any voxel."""
    wrong = source.hard
    if wrong is not None and len(wrong) and rng.random() < hard_share:
        z, y, x = wrong[rng.integers(len(wrong))]
    elif centre_crop and rng.random() < centre_crop:
        z, y, x = ((s.start + s.stop - 1) / 2 for s in source.roi)
        if source.planar or source.slices is not None:
            every = np.arange(source.roi[0].start, source.roi[0].stop)
            z = rng.choice(every if source.slices is None else source.slices)
    elif len(source.foreground) and rng.random() < foreground_share:
        z, y, x = source.foreground[rng.integers(len(source.foreground))]
    else:
        z, y, x = (rng.integers(s.start, s.stop) for s in source.roi)
        if source.slices is not None:
            z = source.slices[rng.integers(len(source.slices))]
    return float(z), float(y), float(x)


def read_tissue(
    source: Source,
    box: Roi,
    bounds: Roi,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> Tissue:
    """Read a box of a source onto a device, a slab at a time.

    Parameters
    ----------
    bounds : that patches see the tissue reflected at.
    device, dtype : of what is read.
    """
    if tuple(source.raw.shape) != tuple(source.labels.shape):
        raise ShapeError(
            f"labels must have the shape of raw: raw {source.raw.shape}, labels "
            f"{source.labels.shape}"
        )
    sparse = source.slices is not None and not source.planar
    several = source.targets is not None
    partial, slabs = sparse or source.incomplete, SLAB * (SLAB if several else 1)
    count = 2 + partial if source.targets is None else MAPS - 1 + len(source.targets.maps)
    channels = torch.empty((count, *roi_shape(box)), dtype=dtype, device=device)
    limit = torch.finfo(dtype).max
    for first in range(box[0].start, box[0].stop, slabs):
        slab = (slice(first, min(first + slabs, box[0].stop)), box[1], box[2])
        targets, unknown = read_targets(source.targets or source.labels, slab, source.partial)
        raw = np.asarray(source.raw[slab])
        shown = source.tone(raw) if source.apart is None else source.apart(raw, slab)
        read = [shown, targets[0]]
        if partial:
            if sparse and source.slices is not None:
                between = ~np.isin(np.arange(slab[0].start, slab[0].stop), source.slices)
                unknown |= between[:, None, None]
            if source.ends is not None:
                height, width = source.ends[slab[0]].T[..., None, None]
                y, x = (np.arange(s.start, s.stop) for s in slab[1:])
                unknown |= (y[:, None] >= height) | (x >= width)
            read += [unknown, *targets[1:]]
        inside = slice(first - box[0].start, slab[0].stop - box[0].start)
        for channel, values in zip(channels, read, strict=True):
            found = torch.from_numpy(np.ascontiguousarray(values))
            if found.is_floating_point():  # half precision has no numbers beyond
                found = found.clamp(-limit, limit)
            channel[inside] = found.to(device, dtype)
    z, y, x = (b.start - s.start for b, s in zip(box, bounds, strict=True))
    vectors = source.targets.vectors if source.targets else ()
    return Tissue(channels, bounds, (z, y, x), source.pooled, vectors)


def hold(source: Source, device: torch.device) -> Source:
    """Hold all of a source's roi on a device, in half precision, so that nothing is read again."""
    tissue = read_tissue(source, source.roi, source.roi, device, torch.float16)
    return replace(source, tissue=tissue)


@dataclass(frozen=True)
class Drawn:
    """A patch as it was cut, float32, (c, z, y, x), how it will look, and closeness to lines."""

    channels: Tensor
    look: Look
    lines: Tensor | None = None


def draw_patch(
    source: Source,
    rng: np.random.Generator,
    shape: Zyx,
    options: Augmentation,
    *,
    shares: tuple[float, float] = (0.6, 0.0),
    device: torch.device = CPU,
) -> Drawn:
    """Draw one training example.

    Parameters
    ----------
    rng : the only source of random numbers.
    shape : (z, y, x)
    shares : (foreground, hard examples)
        Parts of the patches that are centred on the foreground, and on hard examples.
    device : that a source which is not held is read onto.
    """
    centre = draw_centre(source, rng, shares[0], options.centre_crop, shares[1])
    placement = draw_placement(rng, options, shape, centre, source.frame)
    if source.planar:  # a slice has no neighbours that show what is missing, or what is thick
        options = replace(options, fault_probability=0.0, section_probability=0.0)
    look = draw_look(rng, options, shape[0])
    painted = draw_painted(rng, options, shape)
    cut = locate(placement, shape, source.roi, source.pooled)
    tissue = source.tissue
    if tissue is None:
        box = needed(cut, source.roi, source.pooled)
        tissue = read_tissue(source, box, source.roi, device)
    line = source.lines
    lines = None if line is None else cut_beside(line, cut, source.pooled, source.roi)
    channels = paint(tissue.cut(cut), painted)
    if source.targets is not None:
        source.targets.finish(channels, source.scale)
    return Drawn(channels, look, lines)
