"""Count objects block by block, and compare with what labelling promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.objects.components import DIFFERING
from volseg.stages.verify.findings import Finding
from volseg.storage.attributes import is_fraction
from volseg.types import Labels, Roi, Zyx


@dataclass(frozen=True)
class Tally:
    """The labels of a block: how many voxels each has, and where its first one is.

    Attributes
    ----------
    values : unsigned, shape (labels,)
        Ascending, without 0.
    sizes, firsts : int64, shape (labels,)
        ``firsts`` count in the volume's raster order.
    """

    values: Labels
    sizes: NDArray[np.int64]
    firsts: NDArray[np.int64]


def tally_labels(labels: Labels, core: Roi, shape: Zyx) -> Tally:
    """Count the voxels of each label of a block.

    Parameters
    ----------
    labels : shape of ``core``
    core : where the block lies
    shape : the volume's (z, y, x)

    Examples
    --------
    >>> from volseg.geometry.grid import full_roi
    >>> labels = np.array([[[0, 4, 4, 2]], [[4, 0, 0, 0]]], np.uint32)
    >>> tally = tally_labels(labels, full_roi((2, 1, 4)), (2, 1, 4))
    >>> tally.values.tolist(), tally.sizes.tolist(), tally.firsts.tolist()
    ([2, 4], [1, 3], [3, 1])
    """
    flat = labels.reshape(-1)
    # stretches of one value: far fewer than voxels
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    found = flat[starts] > 0
    starts, lengths = starts[found], lengths[found]
    values, first, inverse = np.unique(flat[starts], return_index=True, return_inverse=True)
    sizes = np.bincount(inverse, lengths, len(values)).astype(np.int64)
    at = np.unravel_index(starts[first], labels.shape)
    z, y, x = (a.astype(np.int64) + s.start for a, s in zip(at, core, strict=True))
    return Tally(values, sizes, (z * shape[1] + y) * shape[2] + x)


@dataclass
class ObjectCount:
    """The objects of a volume, added up block by block.

    Attributes
    ----------
    array : labels' name.
    shape : of the volume.
    objects : how many the attributes promise.
    """

    array: str
    shape: Zyx
    objects: int
    sizes: NDArray[np.int64] = field(init=False)
    firsts: NDArray[np.int64] = field(init=False)
    beyond: Finding | None = None
    complete: bool = True

    def __post_init__(self) -> None:
        self.sizes = np.zeros(self.objects + 1, np.int64)
        self.firsts = np.full(self.objects + 1, np.iinfo(np.int64).max)

    def add(self, tally: Tally | None) -> None:
        """Add the labels of a block; None for one that could not be read."""
        if tally is None:
            self.complete = False
            return
        known = tally.values <= self.objects
        values = tally.values[known].astype(np.int64)
        self.sizes[values] += tally.sizes[known]
        self.firsts[values] = np.minimum(self.firsts[values], tally.firsts[known])
        if not known.all() and self.beyond is None:
            k = int(known.argmin())
            message = f"found label {tally.values[k]}, expected {self.objects} objects"
            self.beyond = self._finding(message, int(tally.firsts[k]))

    def findings(self, min_size: int, *, ordered: bool) -> list[Finding]:
        """Compare with what labelling promises.

        Parameters
        ----------
        min_size : objects of fewer voxels were dropped
        ordered : whether objects are numbered by their first voxels
        """
        found = [] if self.beyond is None else [self.beyond]
        if not self.complete:
            return found
        sizes, firsts = self.sizes[1:], self.firsts[1:]
        missing = np.flatnonzero(sizes == 0) + 1
        if len(missing):
            distinct = self.objects - len(missing) + (self.beyond is not None)
            some = ", ".join(map(str, missing[:3]))
            message = (
                f"found {distinct} labels, expected {self.objects}; missing: {some}"
                f"{' and more' if len(missing) > 3 else ''}"
            )
            found.append(Finding("objects", self.array, message, 0))
        small = np.flatnonzero((sizes > 0) & (sizes < min_size))
        if len(small):
            k = int(small[0])
            message = f"object {k + 1} has {sizes[k]} voxels, expected at least {min_size}"
            found.append(self._finding(message, int(firsts[k])))
        present = np.flatnonzero(sizes > 0)
        late = np.flatnonzero(np.diff(firsts[present]) < 0)
        if ordered and len(late):
            k = int(present[late[0] + 1])
            message = f"object {k + 1} begins before object {int(present[late[0]]) + 1}"
            found.append(self._finding(f"{message}: a number was changed", int(firsts[k])))
        return found

    def _finding(self, message: str, first: int) -> Finding:
        z, y, x = (int(n) for n in np.unravel_index(first, self.shape))
        return Finding("objects", self.array, message, 0, voxel=(z, y, x))


KNOWN_RULES = {
    "format",
    "probabilities",
    "threshold_of_255",
    "seed_threshold_of_255",
    "min_size",
    "min_probability",
    "connectivity",
}


@dataclass(frozen=True)
class RecordedRules:
    """Rules by which labels were made, see `volseg.stages.label.rules.ObjectRules`.

    Attributes
    ----------
    level : of 255, from which a voxel is foreground.
    connectivity : 6, 18 or 26.
    min_size : voxels.
    seed : of 255; an object has a voxel of at least this. None asks for none.
    mean : probability; an object's mean is at least this.
    """

    level: int
    connectivity: int
    min_size: int
    seed: int | None = None
    mean: float = 0


def recorded_rules(run: Mapping[str, Any]) -> RecordedRules | None:
    """Read the rules that labels were made by; None if there are others than are known here."""
    least = run.get("min_probability", 0)
    if not is_fraction(least):
        return None
    rules = RecordedRules(
        run.get("threshold_of_255", 0),
        run.get("connectivity", 0),
        run.get("min_size", -1),
        run.get("seed_threshold_of_255"),
        float(least),
    )
    numbers = [rules.level, rules.connectivity, rules.min_size, rules.seed or 0]
    usable = all(type(n) is int for n in numbers) and rules.level > 0 and rules.min_size >= 0
    return rules if usable and rules.connectivity in DIFFERING and set(run) <= KNOWN_RULES else None


def promised_objects(attributes: Mapping[str, Any], voxels: int) -> int | None:
    """Read how many objects labels promise; None if there is no such number."""
    objects = attributes.get("objects")
    if isinstance(objects, int) and not isinstance(objects, bool) and 0 <= objects <= voxels:
        return objects
    return None
