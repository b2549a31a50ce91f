"""Look: how a run looks at a volume, decided once by what is noted of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volseg.geometry.grid import intersect
from volseg.geometry.handover import Handover
from volseg.sources.masks import MaskSource
from volseg.stages.intensities import check_counted
from volseg.stages.predict.sight import Sight
from volseg.stages.survey import GROUP, read_survey
from volseg.storage.volumes import Image, volume_tone
from volseg.types import Floats, Mask, Roi, Zyx
from volseg.voxels.background import SIDE, SMALLEST, fill_by_reflection
from volseg.voxels.defects import bridge
from volseg.voxels.evening import Evening, even_out, even_tone
from volseg.voxels.intensity import Preprocessing, Tone

Normalise: TypeAlias = Literal["volume", "slices", "local"]
LEAST_SIDE = 4
"""Of squares of background on coarse levels."""


@dataclass(frozen=True)
class Context:
    """Voxels that tiles are cut from.

    Attributes
    ----------
    shown : what the network sees.
    lacking : where there is no tissue; None if all is.
    origin : where it begins.
    """

    shown: Floats
    lacking: Mask | None
    origin: Zyx

    def cut(self, indices: Sequence[NDArray[np.int64]]) -> Floats | None:
        """Cut voxels out, and fill what is no tissue by mirroring what is around.

        Parameters
        ----------
        indices : of voxels along each axis

        Returns
        -------
        float32, or None where there is no tissue at all
        """
        own = [i - o for i, o in zip(indices, self.origin, strict=True)]
        lacking = None if self.lacking is None else _take(self.lacking, own)
        if lacking is None or not lacking.any():
            return _take(self.shown, own)
        return None if lacking.all() else fill_by_reflection(_take(self.shown, own), lacking)


def _take(values: NDArray[Any], indices: Sequence[NDArray[np.int64]]) -> NDArray[Any]:
    for axis, index in enumerate(indices):
        values = np.take(values, index, axis)
    return values


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

    def read(self, box: Roi) -> Context:
        """Read what the network sees of a box."""
        z, y, x = (s.start for s in box)
        return Context(*self.shown.show(box, self.tone, self.evening), (z, y, x))

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


def is_wanted(handover: Handover, mask: MaskSource | None, tile: Zyx) -> bool:
    """Tell whether a tile has a share in a mask, within the region that is wanted."""
    if mask is None:
        return True
    box = intersect(handover.lattice.support(tile), handover.roi)
    return box is not None and bool(mask[box].any())


@dataclass(frozen=True)
class Wishes:
    """Choices of how to look at a volume; see `volseg.stages.predict.network.PredictOptions`."""

    normalise: Normalise
    invert: bool
    mask: MaskSource | None

    def describe(self) -> dict[str, Any]:
        """List what decides a result, as far as it is not as usual."""
        found: dict[str, Any] = {"invert": True} if self.invert else {}
        if self.mask is not None:
            found["mask"] = {"labels": self.mask.name, "fingerprint": self.mask.fingerprint}
        return found


def look_at(image: Image, level: int, preprocessing: Preprocessing, wishes: Wishes) -> Look | None:
    """Decide how a run looks at a volume, by what is noted of it.

    Returns
    -------
    Look, or None where the volume still has to be looked at

    Raises
    ------
    VolumeError
        If it is of a type that cannot be counted, or notes cannot be used.
    """
    survey, normalise, invert = read_survey(image), wishes.normalise, wishes.invert
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
        return Look(tone, evening, Sight(raw), Sight(image.levels[0]), wishes.mask)
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
        wishes.mask,
    )
