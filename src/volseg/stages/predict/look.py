"""Look: how a run looks at a volume, decided once by what is noted of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch

from volseg.geometry.grid import intersect
from volseg.geometry.handover import Handover
from volseg.geometry.lattice import Tile
from volseg.sources.masks import MaskSource
from volseg.stages.predict.pipeline import CPU, Reading, stage
from volseg.stages.predict.sight import Sight
from volseg.stages.survey.intensities import check_counted
from volseg.stages.survey.notes import GROUP, read_survey
from volseg.storage.arrays import StoredArray
from volseg.storage.images import sizes_of
from volseg.storage.volumes import Image, volume_tone
from volseg.types import Mask, Roi
from volseg.voxels.apart import Apart
from volseg.voxels.background import SIDE, SMALLEST
from volseg.voxels.defects import bridge
from volseg.voxels.evening import Evening, even_out, even_tone
from volseg.voxels.intensity import Preprocessing, Tone

Normalise: TypeAlias = Literal["volume", "slices", "local"]
LEAST_SIDE = 4
"""Of squares of background on coarse levels."""


@dataclass(frozen=True, eq=False)
class Look:
    """The way in which a run looks at a volume.

    Attributes
    ----------
    evening : what they are evened by before; None if they are taken as they are.
    written : level 0, where nothing is found in what is no tissue.
    mask : outside of which nothing is evaluated and nothing found; None is everywhere.
    apart : tones of slices by themselves, in place of all that; None if there are none.
    """

    tone: Tone
    evening: Evening | None
    shown: Sight
    written: Sight
    mask: MaskSource | None
    apart: Apart | None = None

    def read(self, box: Roi, device: torch.device = CPU) -> Reading:
        """Read what the network sees of a box, for a device."""
        z, y, x = (s.start for s in box)
        values, tone, lacking = self.shown.read(box, self.tone, self.evening, self.apart)
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
        if self.apart is not None:
            found["apart"] = {"equalise": self.apart.preprocessing.equalise}
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
    """Decide how a run looks at a volume, by notes and wishes; None before it is looked at."""
    survey = read_survey(image)
    counted = survey is not None or normalise == "volume" or image.space.planar
    if not image.attributes.get("histogram") or not counted:
        check_counted(image.levels[0])
        return None
    raw, factor = image.levels[level], image.factors[level]
    if survey is None or normalise == "volume" or survey.empty:
        tone, evening = volume_tone(image, preprocessing, invert=invert), None
    else:
        tone = even_tone(preprocessing, survey.slices, invert=invert)
        cells = survey.cells if normalise == "local" else None
        evening = even_out(survey.slices, cells, GROUP, factor, raw.shape)
    apart = look_apart(image, raw, preprocessing, tone, invert=invert)
    if survey is None:
        shown, written = (Sight(a, sizes=_sizes_at(image, a)) for a in (raw, image.levels[0]))
        return Look(tone, evening, shown, written, mask, apart)
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
        apart,
    )


def look_apart(
    image: Image, raw: StoredArray, preprocessing: Preprocessing, tone: Tone, *, invert: bool
) -> Apart | None:
    """Look at each slice by itself, as unrelated images are, and as some preprocessing asks for.

    Parameters
    ----------
    raw : the level that is looked at
    tone : of the whole volume
    invert : whether bright voxels are shown dark

    Returns
    -------
    Apart, or None where a volume is looked at as a whole
    """
    planar = image.space.planar
    if not preprocessing.apart and not planar:
        return None
    each = replace(preprocessing, each=preprocessing.each or planar)
    stamp = image.attributes.get("fingerprint")
    return Apart(each, image.levels[0], raw, tone, invert, planar, sizes_of(image), stamp)


def _sizes_at(image: Image, raw: StoredArray) -> tuple[tuple[int, int], ...]:
    """List the sizes of images on a level; pixels that average them and padding count."""
    full, own = image.levels[0].shape, raw.shape
    height, width = full[1] / own[1], full[2] / own[2]
    return tuple((math.ceil(y / height), math.ceil(x / width)) for y, x in sizes_of(image))
