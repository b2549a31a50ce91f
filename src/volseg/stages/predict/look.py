"""Look: how a run looks at a volume, decided once by what is noted of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from volseg.geometry.grid import grow, intersect, shift
from volseg.geometry.handover import Handover
from volseg.geometry.lattice import Tile
from volseg.sources.masks import MaskSource
from volseg.stages.intensities import check_counted
from volseg.stages.predict.pipeline import CPU, Reading, stage
from volseg.stages.survey import GROUP, read_survey
from volseg.storage.arrays import StoredArray
from volseg.storage.volumes import Image, volume_tone
from volseg.types import Floats, Mask, Roi
from volseg.voxels.background import SIDE, SMALLEST, constant_squares
from volseg.voxels.defects import Bridge, bridge
from volseg.voxels.evening import Evening, even_out, even_tone
from volseg.voxels.intensity import Preprocessing, Tone

Normalise: TypeAlias = Literal["volume", "slices", "local"]
LEAST_SIDE = 4
"""Of squares of background on coarse levels."""


@dataclass(frozen=True, eq=False)
class Sight:
    """One level of a volume: where its tissue is, and how it is shown.

    All of it depends on stored voxels and on what was noted of the volume, not on the box asked
    for. Background is told to the voxel at level 0; on coarse levels the voxels that average it
    and tissue count, too.

    Attributes
    ----------
    raw : the level.
    coarse : whether it is not level 0.
    background : values of padding and missing data.
    bridges : slices that hold nothing, and what stands in for them.
    side : of squares of background.
    """

    raw: StoredArray
    coarse: bool = False
    background: tuple[float, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    side: int = SIDE

    @property
    def whole(self) -> bool:
        """Tell whether all is tissue."""
        return not self.background and not self.bridges

    def read(
        self, box: Roi, tone: Tone, evening: Evening | None
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
            return tone(evened(raw, part))

        if self.whole:
            return evened(self.raw[box], box), tone, None
        around = self._around(box)
        raw, own = self.raw[around], shift(box, [s.start for s in around])
        shown, lacking = toned(raw[own], box), self._squares(raw)[own]
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
        return lacking

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


@dataclass(frozen=True, eq=False)
class Look:
    """The way in which a run looks at a volume.

    Attributes
    ----------
    tone : what the network sees of intensities.
    evening : what they are evened by before; None if they are taken as they are.
    shown : the level that the network reads.
    written : level 0, where nothing is found in what is no tissue.
    mask : outside of which nothing is evaluated and nothing found; None is everywhere.
    """

    tone: Tone
    evening: Evening | None
    shown: Sight
    written: Sight
    mask: MaskSource | None

    def read(self, box: Roi, device: torch.device = CPU) -> Reading:
        """Read what the network sees of a box, for a device."""
        z, y, x = (s.start for s in box)
        values, tone, lacking = self.shown.read(box, self.tone, self.evening)
        return Reading(stage(values, device), tone, lacking, (z, y, x), device)

    def find_nothing(self, box: Roi) -> Mask | None:
        """Tell where nothing is found: in what is no tissue, and outside the mask."""
        nothing = None if self.written.whole else self.written.find_background(box)
        if self.mask is None:
            return nothing
        outside = ~self.mask[box]
        return outside if nothing is None else outside | nothing

    def describe(self) -> dict[str, Any]:
        """List what decides a result beside the tone, as far as there is anything."""
        found: dict[str, Any] = {}
        if self.written.background:
            found["background"] = list(self.written.background)
        kept = [b.at for b in self.written.bridges if b.kept]
        lost = [b.at for b in self.written.bridges if not b.kept]
        found |= {"interpolated": kept} if kept else {}
        found |= {"missing": lost} if lost else {}
        if self.evening is not None:
            found["normalise"] = {
                "by": "slices" if self.evening.cells is None else "local",
                "statistics": self.evening.fingerprint,
            }
        return found


def is_wanted(handover: Handover, mask: MaskSource | None, tile: Tile) -> bool:
    """Tell whether a tile has a share in a mask, within the region that is wanted."""
    if mask is None:
        return True
    box = intersect(handover.support(tile), handover.roi)
    return box is not None and bool(mask[box].any())


def look_at(
    image: Image,
    level: int,
    preprocessing: Preprocessing,
    *,
    normalise: Normalise,
    invert: bool,
    mask: MaskSource | None,
) -> Look | None:
    """Decide how a run looks at a volume, by what is noted of it and by a user's wishes.

    Returns
    -------
    Look, or None where the volume still has to be looked at

    Raises
    ------
    VolumeError
        If it is of a type that cannot be counted, or notes cannot be used.
    """
    survey = read_survey(image)
    if not image.attributes.get("histogram") or (survey is None and normalise != "volume"):
        check_counted(image.levels[0])
        return None
    raw, factor = image.levels[level], image.factors[level]
    if survey is None or normalise == "volume" or survey.empty:
        tone, evening = volume_tone(image, preprocessing, invert=invert), None
    else:
        tone = even_tone(preprocessing, survey.slices, invert=invert)
        cells = survey.cells if normalise == "local" else None
        evening = even_out(survey.slices, cells, GROUP, factor, raw.shape)
    if survey is None:
        return Look(tone, evening, Sight(raw), Sight(image.levels[0]), mask)
    # in slices that are small, only those that are constant as a whole are told
    small = min(image.levels[0].shape[1:]) < SMALLEST and not survey.empty
    values = () if small else survey.background
    step = round(factor[0])
    coarse = {z // step for z in survey.missing}
    side = LEAST_SIDE
    while 2 * side * max(factor[1:]) <= SIDE:
        side *= 2
    return Look(
        tone,
        evening,
        Sight(raw, level > 0, values, bridge(coarse, raw.shape[0]), side),
        Sight(image.levels[0], False, values, bridge(survey.missing, image.levels[0].shape[0])),
        mask,
    )
