"""Division of annotated slices into training and validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.errors import ParameterError
from volseg.geometry.grid import describe, intersect, parse_roi
from volseg.types import Roi, VoxelSize, Zyx

VALIDATION_PART = 5
"""Without another wish, one slice or image in so many serves for validation."""


@dataclass(frozen=True)
class Pair:
    """Images and their labels, as a user names them.

    Attributes
    ----------
    raw : a volume, or a stack that `volseg convert` would take.
    labels : name of labels in the volume, or a path; a folder where each class has its own in it.
        Empty if each class names its own.
    roi, validation : regions ``z0:z1,y0:y1,x0:x1`` to train on and to hold out.
    slices : the z of those that are annotated; None where all are.
    images : whether the slices are unrelated images, so that z is no axis.
    foreground : the value of labels that is foreground; None for all above 0.
    held_out : whether all of it serves for validation.
    voxel_size : nm (z, y, x); overrides what the files say of this pair.
    share : how often it is drawn from, against the other pairs; by its annotated voxels if None.
    raw_fingerprint, labels_fingerprint : of a run that is to be repeated; others are refused.
    axes : of files, slowest first, as the user names them; None where they say so themselves.
    """

    raw: Path
    labels: str
    roi: str | None = None
    validation: str | None = None
    slices: tuple[int, ...] | None = None
    images: bool = False
    held_out: bool = False
    voxel_size: VoxelSize | None = None
    share: float | None = None
    raw_fingerprint: str | None = None
    labels_fingerprint: str | None = None
    foreground: int | None = None
    axes: str | None = None


@dataclass(frozen=True)
class Part:
    """A box, and the z of its slices that count; None where all do."""

    roi: Roi
    slices: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Regions:
    """Regions for training and for validation."""

    training: tuple[Part, ...]
    validation: tuple[Part, ...]


@dataclass(frozen=True)
class Share:
    """Part of the slices for training, and the seed that chooses them."""

    fraction: float = 1.0
    seed: int = 0


def choose_parts(pair: Pair, region: Roi, shape: Zyx, share: Share, *, hold_out: bool) -> Regions:
    """Divide the slices of a pair into training and validation.

    Parameters
    ----------
    hold_out : whether something must be held out even if the pair does not say what
    """
    if pair.held_out:
        box = _covered(parse_roi(pair.roi, shape) if pair.roi else region, region)
        chosen = Part(box, _listed(pair, box) if _lists_slices(pair) else None)
        return Regions((), (chosen,))
    if _lists_slices(pair):
        return _choose_slices(pair, region, shape, share, hold_out=hold_out)
    if not hold_out and pair.validation is None:
        box = _covered(parse_roi(pair.roi, shape) if pair.roi else region, region)
        return Regions((Part(take_fraction(box, share)),), ())
    training, held = choose_regions(region, shape, pair.roi, pair.validation)
    return Regions(tuple(Part(take_fraction(b, share)) for b in training), (Part(held),))


def choose_regions(
    region: Roi, shape: Zyx, roi: str | None, validation: str | None
) -> tuple[tuple[Roi, ...], Roi]:
    """Divide the boxes of a stack into training and validation.

    Parameters
    ----------
    region : what the labels cover
    roi : trained on; otherwise all slices that hold no part of the validation
    validation : held out; otherwise the last fifth of the slices

    Examples
    --------
    >>> z, yx = slice(0, 50), (slice(0, 9), slice(0, 9))
    >>> training, validation = choose_regions((z, *yx), (50, 9, 9), None, None)
    >>> training[0][0], validation[0]
    (slice(0, 40, None), slice(40, 50, None))
    """
    z, y, x = region
    first = z.stop - max((z.stop - z.start) // VALIDATION_PART, 1)
    held = parse_roi(validation, shape) if validation else (slice(first, z.stop), y, x)
    if roi:
        training = [parse_roi(roi, shape)]
    else:
        cuts = slice(z.start, held[0].start), slice(held[0].stop, z.stop)
        training = [(c, y, x) for c in cuts if c.stop > c.start]
    if not training:
        raise ParameterError(
            f"the validation region {describe(held)} leaves no slices to train on; give another "
            f"one, or the training region with --roi"
        )
    for box in (*training, held):
        _covered(box, region)
    if any(intersect(box, held) for box in training):
        raise ParameterError(
            f"what is trained on cannot validate: --roi {describe(training[0])} overlaps "
            f"--validation {describe(held)}"
        )
    return tuple(training), held


def _covered(box: Roi, region: Roi) -> Roi:
    if intersect(box, region) != box:
        raise ParameterError(
            f"the region {describe(box)} is not covered by the labels, which hold "
            f"{describe(region)}"
        )
    return box


RANDOM = "random:"
"""Beginning of a validation on slices that are drawn at random; their number follows."""


def _lists_slices(pair: Pair) -> bool:
    return pair.images or pair.slices is not None or (pair.validation or "").startswith(RANDOM)


def _draw_slices(
    asked: str, every: NDArray[np.int64], share: Share
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the slices of a validation, and return what is left to train on, and those."""
    count = asked.removeprefix(RANDOM)
    if not count.isdigit() or not 0 < int(count) < len(every):
        raise ParameterError(
            f"--validation {asked}: expected {RANDOM} and a number of slices below the "
            f"{len(every)} that are annotated"
        )
    order = np.random.default_rng([share.seed, len(every)]).permutation(len(every))
    held = np.sort(every[order[: int(count)]])
    return np.setdiff1d(every, held), held


def _listed(pair: Pair, box: Roi) -> NDArray[np.int64]:
    """List the z of a box that are annotated, ascending."""
    if pair.slices is None:
        return np.arange(box[0].start, box[0].stop)
    found = np.unique(np.asarray(pair.slices, np.int64))
    inside: NDArray[np.int64] = found[(found >= box[0].start) & (found < box[0].stop)]
    return inside


def _choose_slices(pair: Pair, region: Roi, shape: Zyx, share: Share, *, hold_out: bool) -> Regions:
    """Divide listed slices, or images, into training and validation."""
    box = _covered(parse_roi(pair.roi, shape) if pair.roi else region, region)
    outside = [z for z in pair.slices or () if not region[0].start <= z < region[0].stop]
    if outside:
        raise ParameterError(
            f"--slices names {', '.join(map(str, outside))}, but the slices of {pair.labels} are "
            f"{region[0].start} to {region[0].stop - 1}"
        )
    every, held_box = _listed(pair, box), box
    if (pair.validation or "").startswith(RANDOM):
        training, held = _draw_slices(str(pair.validation), every, share)
        return Regions((Part(box, take_slices(training, share)),), (Part(box, held),))
    if pair.validation:
        held_box = _covered(parse_roi(pair.validation, shape), region)
        held = _listed(pair, held_box)
    elif not hold_out:
        held = every[:0]
    elif pair.images:  # images come in groups: one in five, not the last fifth
        held = every[VALIDATION_PART - 1 :: VALIDATION_PART]
    else:
        held = every[len(every) - max(len(every) // VALIDATION_PART, 1) :]
    training = np.setdiff1d(every, held)
    if len(training) == 0 or (len(held) == 0 and (hold_out or pair.validation)):
        raise ParameterError(
            f"{len(every)} annotated slices of {pair.raw} leave {len(training)} to train on and "
            f"{len(held)} to validate on; annotate more, or name others with --validation"
        )
    chosen = Part(box, take_slices(training, share))
    return Regions((chosen,), (Part(held_box, held),) if len(held) else ())


def take_slices(slices: NDArray[np.int64], share: Share) -> NDArray[np.int64]:
    """Choose a random part of the slices; a smaller part is contained in a larger one.

    Examples
    --------
    >>> take_slices(np.arange(10), Share(0.3, seed=1)).tolist()
    [4, 7, 8]
    """
    order = np.random.default_rng(share.seed).permutation(len(slices))
    kept = max(round(len(slices) * share.fraction), 1)
    return np.sort(slices[order[:kept]])


def take_fraction(box: Roi, share: Share) -> Roi:
    """Choose a part of the slices that lie together; a smaller part lies in a larger one.

    Examples
    --------
    >>> yx = slice(0, 9), slice(0, 9)
    >>> [take_fraction((slice(0, 40), *yx), Share(f, seed=1))[0] for f in (0.25, 0.5, 1)]
    [slice(15, 25, None), slice(10, 30, None), slice(0, 40, None)]
    """
    z = box[0]
    kept = max(round((z.stop - z.start) * share.fraction), 1)
    free = z.stop - z.start - kept
    first = z.start + int(np.random.default_rng(share.seed).random() * free)
    return slice(first, first + kept), box[1], box[2]
