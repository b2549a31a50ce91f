"""Read planes of a volume along all three axes, each voxel at most once, a few blocks at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import Grid, gather_chunks, roi_shape, roi_size
from volseg.scores.mistakes import ObjectErrors, WrongObject
from volseg.sources.labels import LabelSource
from volseg.stages.report.drawing import ALONE, MERGED, SPLIT, Kinds
from volseg.storage.volumes import Image
from volseg.types import Mask, Readable, Roi, Zyx, zyx

BLOCK_VOXELS = 1 << 22
Indices = NDArray[np.int64]
LARGEST_BOX = 1 << 26
"""Voxels of a box that is read at once; larger objects are outlined like all, but not hatched."""


@dataclass(frozen=True)
class Source:
    """Voxels to draw.

    Attributes
    ----------
    factors : voxels of level 0 that one of these stands for, (z, y, x).
    """

    read: Readable
    shape: Zyx
    chunk: Zyx
    factors: Sequence[float]


@dataclass(frozen=True)
class Frame:
    """Planes to draw and pixels of them, in voxels of level 0.

    Attributes
    ----------
    pixels : int64, centres of the pixels along z, y and x.
    picks : int64, positions of the planes along z, y and x.
    side : most pixels along an axis.
    """

    region: Roi
    pixels: tuple[Indices, Indices, Indices]
    picks: tuple[Indices, Indices, Indices]
    side: int

    @property
    def shape(self) -> Zyx:
        """Pixels along (z, y, x)."""
        return zyx(map(len, self.pixels))


def frame_of(image: Image, region: Roi, side: int, counts: Zyx) -> Frame:
    """Choose pixels and planes that show a region of an image.

    Parameters
    ----------
    side : most pixels along an axis
    counts : planes along (z, y, x), if there are as many
    """
    level = choose_level(image, region, side)
    pixels, picks = [], []
    for s, factor, count in zip(region, image.factors[level], counts, strict=True):
        length = s.stop - s.start
        shown = min(max(round(length / factor), 1), side, length)
        centres = s.start + (np.arange(shown) + 0.5) * length / shown
        planes = s.start + (np.arange(min(count, length)) + 0.5) * length / min(count, length)
        pixels.append(centres.astype(np.int64))
        picks.append(planes.astype(np.int64))
    return Frame(region, zyx(pixels), zyx(picks), side)


def choose_level(image: Image, region: Roi, side: int) -> int:
    """Choose the finest level in which a region is at most so many voxels long, or the coarsest."""
    for k, factors in enumerate(image.factors):
        lengths = (n / f for n, f in zip(roi_shape(region), factors, strict=True))
        if max(lengths) <= side:
            return k
    return len(image.levels) - 1


def read_image(image: Image, frame: Frame) -> list[NDArray[Any]]:
    """Read planes from the level of an image that suits them, see `read_planes`."""
    level = choose_level(image, frame.region, frame.side)
    array = image.levels[level]
    return read_planes(Source(array, array.shape, array.chunk, image.factors[level]), frame)


def read_planes(source: Source, frame: Frame) -> list[NDArray[Any]]:
    """Read the planes of a frame; pixels take the voxel in which their centre lies.

    Returns
    -------
    Planes across z, y and x, each of shape (planes, rows, columns).
    """
    pixels = [_voxels(source, frame.pixels[a], a) for a in range(3)]
    picks = [_voxels(source, frame.picks[a], a) for a in range(3)]
    planes: list[NDArray[Any]] = []
    for core in _boxes(source, pixels):
        if not any(map(_within, picks, core)):
            continue
        block = source.read[core]
        if not planes:
            planes = [_empty(frame, a, block.dtype) for a in range(3)]
        ranges, local = _inside(pixels, core)
        for axis in range(3):
            others = [a for a in range(3) if a != axis]
            rows, columns = (ranges[a] for a in others)
            for k, at in enumerate(picks[axis]):
                if core[axis].start <= at < core[axis].stop:
                    plane = np.take(block, at - core[axis].start, axis=axis)
                    planes[axis][k, rows, columns] = plane[np.ix_(*(local[a] for a in others))]
    return planes


def _inside(pixels: Sequence[Indices], box: Sequence[slice]) -> tuple[list[slice], list[Indices]]:
    """Find which pixels lie in a box, and where in it."""
    both = list(zip(pixels, box, strict=True))
    ranges = [slice(*np.searchsorted(p, (s.start, s.stop)).tolist()) for p, s in both]
    return ranges, [p[r] - s.start for (p, s), r in zip(both, ranges, strict=True)]


def _boxes(source: Source, pixels: Sequence[Indices]) -> Iterator[Roi]:
    """Cut what holds pixels into boxes of whole chunks."""
    z, y, x = (slice(int(p[0]), int(p[-1]) + 1) for p in pixels)
    # few boxes, of whole rows of chunks
    size = gather_chunks(source.chunk, source.shape, BLOCK_VOXELS, (2, 1))
    for block in Grid(source.shape, size).blocks((z, y, x)):
        yield block.core


def _voxels(source: Source, places: Indices, axis: int) -> Indices:
    found = (places / source.factors[axis]).astype(np.int64)
    return np.minimum(found, source.shape[axis] - 1)


def _within(picks: Indices, side: slice) -> bool:
    return bool(((picks >= side.start) & (picks < side.stop)).any())


def _empty(frame: Frame, axis: int, dtype: Any) -> NDArray[Any]:
    rows = [n for a, n in enumerate(frame.shape) if a != axis]
    return np.zeros((len(frame.picks[axis]), *rows), dtype)


def find_wrong(errors: ObjectErrors, planes: Sequence[NDArray[Any]]) -> list[Kinds]:
    """Mark predicted objects that are wrong by how, in planes across each axis.

    One that holds several of the truth is merged, and one that lies with others in one of the
    truth is a part of a split, whether or not it has a partner; else without one it is false.
    """
    found = [np.zeros(p.shape, np.uint8) for p in planes]
    kinds = ((ALONE, errors.false), (SPLIT, errors.split.inside), (MERGED, errors.merged))
    for kind, objects in kinds:
        for plane, marked in zip(planes, found, strict=True):
            marked[np.isin(plane, objects.objects.labels if objects else ())] = kind
    return found


def find_lost(
    errors: ObjectErrors, truth: LabelSource, planes: Sequence[NDArray[Any]], frame: Frame
) -> list[Kinds]:
    """Mark the largest objects of the truth that are missed, split or merged, as `find_wrong` does.

    Each is read in its box, since objects of a mask are numbered by nobody.
    """
    marked = [np.zeros(p.shape, np.uint8) for p in planes]
    kinds = ((ALONE, errors.missed), (SPLIT, errors.split), (MERGED, errors.merged.inside))
    for kind, objects in kinds:
        for wrong in objects.tolist() if objects else ():
            box = zyx(slice(*ends) for ends in wrong.box)
            if roi_size(box) > LARGEST_BOX or not any(map(_within, frame.picks, box)):
                continue
            inside = cut_out(truth[box], wrong)
            for axis in range(3):
                _mark(marked[axis], inside, box, frame, (axis, kind))
    return marked


def cut_out(values: NDArray[Any], wrong: WrongObject) -> Mask:
    """Find an object in its box: by its label or, in a mask, as a component of its size.

    Examples
    --------
    >>> box = ((0, 1), (0, 1), (0, 4))
    >>> wrong = WrongObject(7, 2, (0, 0, 0.5), box, 0.0)
    >>> cut_out(np.array([[[255, 255, 0, 255]]]), wrong).astype(int).tolist()
    [[[1, 1, 0, 0]]]
    """
    named: Mask = values == wrong.label
    if np.count_nonzero(named) == wrong.voxels:
        return named
    from scipy import ndimage

    components, count = ndimage.label(values > 0, np.ones((3, 3, 3)))
    sizes = np.bincount(components.reshape(-1), minlength=count + 1)
    fits = sizes == wrong.voxels
    fits[0] = False
    found: Mask = fits[components]
    return found


def _mark(marked: Kinds, inside: Mask, box: Roi, frame: Frame, how: tuple[int, int]) -> None:
    """Paint an object into the planes across an axis that cross it, as one of a kind."""
    axis, kind = how
    others = [a for a in range(3) if a != axis]
    ranges, local = _inside([frame.pixels[a] for a in others], [box[a] for a in others])
    for k, at in enumerate(frame.picks[axis].tolist()):
        if box[axis].start <= at < box[axis].stop:
            plane = np.take(inside, at - box[axis].start, axis=axis)
            marked[k, ranges[0], ranges[1]][plane[np.ix_(*local)]] = kind
