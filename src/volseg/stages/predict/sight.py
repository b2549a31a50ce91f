"""Sight: one level of a volume, read as a network sees it, and where there is no tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import grow, shift
from volseg.storage.arrays import StoredArray
from volseg.types import Floats, Mask, Roi
from volseg.voxels.apart import Apart
from volseg.voxels.background import SIDE, constant_squares
from volseg.voxels.defects import Bridge
from volseg.voxels.evening import Evening
from volseg.voxels.intensity import Tone


@dataclass(frozen=True, eq=False)
class Sight:
    """One level of a volume: where its tissue is, and how it is shown.

    All of it depends on stored voxels and on what was noted of the volume, not on the box asked
    for. Background is told to the voxel at level 0; on coarse levels the voxels that average it
    and tissue count, too.

    Attributes
    ----------
    background : values of padding and missing data.
    bridges : slices that hold nothing, and what stands in for them.
    side : of squares of background.
    sizes : (y, x) that images have of their slices, where that is not all.
    """

    raw: StoredArray
    coarse: bool = False
    background: tuple[float, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    side: int = SIDE
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def whole(self) -> bool:
        """Tell whether all is tissue."""
        return not self.background and not self.bridges and not self.sizes

    def read(
        self, box: Roi, tone: Tone, evening: Evening | None, apart: Apart | None = None
    ) -> tuple[NDArray[Any], Tone | None, Mask | None]:
        """Read what a network sees of a box; voxels that are no tissue hold anything.

        Returns
        -------
        values : evened, if they are to be, but not mapped yet; or float32
        tone : that maps them; None if they are mapped
        lacking : where there is no tissue; None if all is
        """

        def evened(raw: NDArray[Any], part: Roi) -> NDArray[Any]:
            return raw if evening is None else evening(raw, part)

        def toned(raw: NDArray[Any], part: Roi) -> Floats:
            return tone(evened(raw, part)) if apart is None else apart(raw, part)

        if self.whole and apart is None:
            return evened(self.raw[box], box), tone, None
        if self.whole:
            return toned(self.raw[box], box), None, None
        around = self._around(box)
        raw, own = self.raw[around], shift(box, [s.start for s in around])
        shown, lacking = toned(raw[own], box), self._squares(raw)[own] | self._beyond(box)
        for lost, k in self._within(box):
            below, above = (
                toned(self.raw[part], part) for part in (_at(lost.below, box), _at(lost.above, box))
            )
            shown[k] = ((1 - lost.weight) * below + lost.weight * above)[0]
            lacking[k] = self._lacking_across(lost, box)
        return shown, None, lacking

    def find_background(self, box: Roi) -> Mask:
        """Tell where nothing may be found: background, and slices that nothing stands in for."""
        around = self._around(box)
        own = shift(box, [s.start for s in around])
        if self.background:
            lacking = self._squares(self.raw[around])[own]
        else:
            lacking = np.zeros([s.stop - s.start for s in box], bool)
        for lost, k in self._within(box):
            lacking[k] = self._lacking_across(lost, box) if lost.kept else True
        return lacking | self._beyond(box)

    def _beyond(self, box: Roi) -> Mask:
        """Tell where slices have been padded."""
        found = np.zeros([s.stop - s.start for s in box], bool)
        for k, (y, x) in enumerate(self.sizes[box[0]]):
            found[k, max(y - box[1].start, 0) :] = True
            found[k, :, max(x - box[2].start, 0) :] = True
        return found

    def _within(self, box: Roi) -> list[tuple[Bridge, int]]:
        z = box[0]
        return [(b, b.at - z.start) for b in self.bridges if z.start <= b.at < z.stop]

    def _around(self, box: Roi) -> Roi:
        reach = self.side if self.background else 0
        return grow(box, (0, reach, reach), self.raw.shape)

    def _lacking_across(self, lost: Bridge, box: Roi) -> Mask:
        """Tell where one of the slices that stand in holds no tissue; shape (y, x)."""
        found = np.zeros([s.stop - s.start for s in box[1:]], bool)
        for z in {lost.below, lost.above} if self.background else ():
            around = self._around(_at(z, box))
            own = shift(_at(z, box), [s.start for s in around])
            found |= self._squares(self.raw[around])[own][0]
        return found

    def _squares(self, raw: NDArray[Any]) -> Mask:
        found = np.zeros(raw.shape, bool)
        for value in self.background:
            found |= constant_squares(raw, value, self.side)
        if self.coarse and found.any():
            for axis in (1, 2):
                grown = found.copy()
                low, high = [slice(None)] * 3, [slice(None)] * 3
                low[axis], high[axis] = slice(None, -1), slice(1, None)
                grown[tuple(high)] |= found[tuple(low)]
                grown[tuple(low)] |= found[tuple(high)]
                found = grown
        return found


def _at(z: int, box: Roi) -> Roi:
    return slice(z, z + 1), box[1], box[2]
