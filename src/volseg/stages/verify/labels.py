"""Verify labels against the probabilities that they were made from, block by block.

Each block is read with one voxel more on every side, and its components are found again. Voxels of
one component must carry one label, and all others none: that holds inside blocks and across their
faces, edges and corners, so no object is broken. What the labels are counted for, see
`volseg.stages.verify.objects`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from volseg.errors import StorageError
from volseg.geometry.grid import Block, grow, roi_size, shift
from volseg.objects.components import (
    Components,
    find_components,
    find_seeded,
    mean_probabilities,
    render,
    sum_levels,
)
from volseg.stages.verify.findings import Finding, first_difference, locate
from volseg.stages.verify.objects import RecordedRules, Tally, tally_labels
from volseg.storage.arrays import StoredArray
from volseg.types import Labels, Probabilities, Roi, Zyx

FOLLOWED = 4
"""Components without a label that are followed beyond a block, for each block."""
LIKELY = 32
"""As many more, if they are objects by what is seen of them."""
FOLLOWED_VOXELS = 1 << 24
"""Voxels in which a component is followed, at most; what reaches further stays undecided."""
REACH = 16
"""Voxels on each side in which it is looked for first."""


@dataclass(frozen=True)
class LabelsChecked:
    """Findings in a block, and the tally of its labels.

    Attributes
    ----------
    findings : what is wrong.
    tally : of its labels; None where they cannot be read.
    undecided : whether what has no label may be an object, but reaches too far to tell.
    """

    findings: tuple[Finding, ...]
    tally: Tally | None
    undecided: bool = False


@dataclass(frozen=True)
class CheckLabels:
    """Compare a block of labels with components found again, and count its labels.

    Attributes
    ----------
    array : its name, see `Finding`.
    labels, probabilities : level 0 of both; without probabilities labels are only counted.
    rules : that the labels were made by.
    """

    array: str
    labels: StoredArray
    probabilities: StoredArray | None
    rules: RecordedRules

    def __call__(self, block: Block) -> LabelsChecked:
        """Check one block; what cannot be read is found elsewhere."""
        shape = self.labels.shape
        box = grow(block.core, (1, 1, 1), shape)
        try:
            labels = self.labels[block.core if self.probabilities is None else box]
        except StorageError:
            return LabelsChecked((), None)
        if self.probabilities is None:
            return LabelsChecked((), tally_labels(labels, block.core, shape))
        core = labels[shift(block.core, [s.start for s in box])]
        tally = tally_labels(np.ascontiguousarray(core), block.core, shape)
        try:
            probabilities = self.probabilities[box]
        except StorageError:
            return LabelsChecked((), tally)
        found, undecided = self._compare(labels, probabilities, box)
        return LabelsChecked(tuple(found), tally, undecided)

    def _compare(
        self, labels: Labels, probabilities: Probabilities, box: Roi
    ) -> tuple[list[Finding], bool]:
        components = self._components(probabilities, box)
        at = np.unravel_index(components.firsts, self.labels.shape)
        z, y, x = (a - s.start for a, s in zip(at, box, strict=True))
        own = labels[z, y, x]
        expected = render(components, own, box)
        found = []
        differing = first_difference(labels, expected)
        if differing is not None:
            voxel, count = differing
            finding = locate("label", self.array, 0, self.labels, box, voxel)
            message = self._describe(int(labels[voxel]), int(expected[voxel]))
            found.append(
                replace(finding, message=f"{message}; voxels that differ in {finding.roi}: {count}")
            )
        likely = self._objects(components, probabilities)
        leaving = np.zeros(len(own), bool)
        leaving[open_components(components, box, self.labels.shape)] = True
        # what lies beyond may be fainter
        certain = likely & ~leaving if self.rules.mean else likely
        whole = np.flatnonzero((own == 0) & certain)
        if len(whole):
            k = int(whole[0])
            voxel = int(z[k]), int(y[k]), int(x[k])
            finding = locate("label", self.array, 0, self.labels, box, voxel)
            message = (
                f"an object of at least {components.sizes[k]} voxels has no label; such "
                f"objects in {finding.roi}: {len(whole)}"
            )
            found.append(replace(finding, message=message))
        followed, undecided = self._unfinished(
            components, (own == 0) & leaving & ~certain, likely, box
        )
        return found + followed, undecided

    def _components(self, probabilities: Probabilities, box: Roi) -> Components:
        shape, rules = self.labels.shape, self.rules
        return find_components(probabilities, box, shape, rules.connectivity, level=rules.level)

    def _objects(self, components: Components, probabilities: Probabilities) -> NDArray[np.bool_]:
        """Tell which components are objects by what is seen of them."""
        rules = self.rules
        found: NDArray[np.bool_] = components.sizes >= max(rules.min_size, 1)
        if rules.seed is not None:
            found &= find_seeded(components, probabilities, rules.seed)
        if rules.mean:
            totals = sum_levels(components, probabilities)
            found &= mean_probabilities(totals, components.sizes) >= rules.mean
        return found

    def _describe(self, found: int, expected: int) -> str:
        if expected == 0 and found:
            return f"found label {found} where there is no object, or in one without a label"
        if found == 0:
            return f"found no label in object {expected}"
        return f"found label {found} in object {expected}: the object is broken"

    def _unfinished(
        self,
        components: Components,
        leaving: NDArray[np.bool_],
        likely: NDArray[np.bool_],
        box: Roi,
    ) -> tuple[list[Finding], bool]:
        """Follow components without a label beyond the block: there may be more of them."""
        largest = np.argsort(-components.sizes)
        promising = largest[(leaving & likely)[largest]]
        others = np.flatnonzero(leaving & ~likely).tolist()
        chosen = random.sample(others, min(len(others), FOLLOWED))
        found, undecided = [], len(promising) > LIKELY
        for k in [*promising[:LIKELY].tolist(), *chosen]:
            z, y, x = map(int, np.unravel_index(components.firsts[k], self.labels.shape))
            size = self._follow((z, y, x))
            undecided |= size is None and bool(likely[k])
            if size:
                relative = z - box[0].start, y - box[1].start, x - box[2].start
                finding = locate("label", self.array, 0, self.labels, box, relative)
                message = f"an object of at least {size} voxels has no label; it crosses blocks"
                found.append(replace(finding, message=message))
        return found, undecided

    def _follow(self, voxel: Zyx) -> int | None:
        """Count the voxels of the component at a voxel, as far as is needed.

        0 for what is no object; None for what reaches too far.
        """
        shape = self.labels.shape
        z, y, x = (slice(v, v + 1) for v in voxel)
        box = grow((z, y, x), (REACH, REACH, REACH), shape)
        while self.probabilities is not None and roi_size(box) <= FOLLOWED_VOXELS:
            try:
                probabilities = self.probabilities[box]
            except StorageError:
                return 0
            components = self._components(probabilities, box)
            numbers = np.arange(1, len(components.sizes) + 1, dtype=np.uint32)
            here = shift((z, y, x), [s.start for s in box])
            k = int(render(components, numbers, box, here).item()) - 1
            leaving = k in open_components(components, box, shape)
            if self._objects(components, probabilities)[k] and not (leaving and self.rules.mean):
                return int(components.sizes[k])
            if not leaving:
                return 0
            box = follow_on(components, k, box, shape)
        return None


def follow_on(components: Components, k: int, box: Roi, shape: Zyx) -> Roi:
    """Enlarge a box on the sides where component k, from 0, may go on; cut it back on others."""
    marks = np.zeros(len(components.sizes), np.uint8)
    marks[k] = 1
    seen = render(components, marks, box)
    sides = []
    for axis, (span, length) in enumerate(zip(box, shape, strict=True)):
        hit = np.flatnonzero(seen.any(axis=tuple({0, 1, 2} - {axis})))
        low, high = span.start + int(hit[0]), span.start + int(hit[-1]) + 1
        more = max(REACH, (high - low) // 2)
        start = low - (more if low == span.start else 1)
        stop = high + (more if high == span.stop else 1)
        sides.append(slice(max(start, 0), min(stop, length)))
    return sides[0], sides[1], sides[2]


def open_components(components: Components, box: Roi, shape: Zyx) -> list[int]:
    """List the components, counted from 0, that reach a side of a box with more volume beyond."""
    found: set[int] = set()
    for (axis, side), plane in components.planes.items():
        last = box[axis].start == 0 if side == 0 else box[axis].stop == shape[axis]
        if not last:
            found.update(int(v) - 1 for v in np.unique(plane) if v)
    return sorted(found)
