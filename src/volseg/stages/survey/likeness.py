"""Look at places of a volume as a network does, and compare them with its training data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from volseg.geometry.grid import full_roi
from volseg.models.emnet import EMNet
from volseg.models.parts import UShape
from volseg.models.registry import Architecture
from volseg.scores.likeness import (
    UNKNOWN,
    fit_reference,
    name_likeness,
    read_reference,
    write_reference,
)
from volseg.stages.survey.windows import spread_windows
from volseg.storage.cards import Card, load_card, update_card
from volseg.storage.images import images_in
from volseg.storage.volumes import Image
from volseg.storage.weights import load_network
from volseg.training.sampling import Source
from volseg.training.tissue import RAW
from volseg.training.validation import grid_shape, read_window
from volseg.types import Doubles, Mask, Roi, Zyx, zyx
from volseg.voxels.apart import Apart
from volseg.voxels.intensity import Tone

SIDES: dict[int, Zyx] = {2: (1, 192, 192), 3: (8, 96, 96)}
"""Of a place, in voxels of the network, by its dimensions."""
FindNothing: TypeAlias = "Callable[[Roi], Mask | None]"
TAUGHT, LOOKED_AT = 40, 16
"""Places of a source of training data, and of a volume."""
MORE = 4
"""So many times as many places are tried where some hold no tissue."""
MOST_SIDE = 2048
"""Voxels of a window's side, at most: coarser networks see smaller places."""


class Region(NamedTuple):
    """Part of a volume.

    Attributes
    ----------
    find_nothing : tells of a box where it is no tissue, or outside a mask; None is nowhere.
    """

    roi: Roi
    find_nothing: FindNothing | None = None


def first_block(network: nn.Module) -> nn.Module:
    """Return what a network begins with: the convolutions at full resolution."""
    if isinstance(network, EMNet):
        return network.stem
    return cast(UShape, network).encoder[0]


def load_block(model: str | Path, card: Card) -> nn.Module:
    """Build the first block of a network, on the CPU in float32."""
    return first_block(load_network(model, card))


@torch.inference_mode()
def sample_features(
    block: nn.Module,
    source: Source,
    form: Architecture,
    count: int,
    find_nothing: FindNothing | None = None,
) -> Doubles:
    """Look at places of a source: mean and standard deviation of each channel of the first block.

    Places that hold one value are left out, and those of which more than a twentieth is no tissue.
    """
    # what a prediction sees: slices as they are, however thick
    if source.planar:
        source = _as_slices(source)
    side = [
        max(min(n, int(MOST_SIDE / s)), 1)
        for n, s in zip(SIDES[form.dimensions], source.scale, strict=True)
    ]
    found: list[Doubles] = []
    ends = () if source.ends is None else _find_ends(source, source.ends)
    candidates = count if find_nothing is None and not len(ends) else MORE * count
    for window in spread_windows(grid_shape(source), zyx(side), candidates, ends):
        if len(found) == count:
            break
        if find_nothing is not None:
            nothing = find_nothing(in_source(source, window))
            if nothing is not None and nothing.mean() > 0.05:
                continue
        raw = read_window(source, window)[RAW]
        if raw.min() == raw.max():
            continue
        planes = raw[:, None] if form.dimensions == 2 else raw[None, None]
        seen = block(planes)[0].flatten(1).double()
        found.append(torch.cat([seen.mean(1), seen.std(1)]).numpy())
    return np.array(found)


def _find_ends(source: Source, ends: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Find how far images reach into a source's roi, (y, x) of each, in voxels of the network."""
    z, *sides = source.roi
    reach = [
        np.ceil((np.clip(length, s.start, s.stop) - s.start) / k).astype(int).tolist()
        for length, s, k in zip(ends[z].T, sides, source.scale[1:], strict=True)
    ]
    return list(zip(*reach, strict=True))


def in_source(source: Source, window: Roi) -> Roi:
    """Return the box of the source that a window of the network's grid covers."""
    axes = zip(source.roi, window, source.scale, strict=True)
    return zyx(
        slice(s.start + math.floor(w.start * k), min(s.start + math.ceil(w.stop * k), s.stop))
        for s, w, k in axes
    )


def _as_slices(source: Source) -> Source:
    _, y, x = source.scale
    return replace(source, scale=(1.0, y, x), isotropic=False, tissue=None)


def note_reference(weights: Path, sources: Sequence[Source]) -> Card:
    """Write into the card of weights how their training data look to them, if it does not say so.

    Parts of one volume are one source.
    """
    card = load_card(weights)
    if card.tissue:
        return card
    return update_card(weights, {"tissue": describe_training(weights, card, sources)})


def describe_training(weights: Path, card: Card, sources: Sequence[Source]) -> dict[str, Any]:
    """Describe how training data look to a network; nothing if they are too few.

    Returns
    -------
    what `volseg.scores.likeness.write_reference` writes
    """
    block, form = load_block(weights, card), card.form
    parts: dict[int, list[Source]] = {}
    for source in sources:
        parts.setdefault(id(source.raw), []).append(source)
    found = []
    for whole in parts.values():
        count = math.ceil(TAUGHT / len(whole))
        seen = [sample_features(block, source, form, count) for source in whole]
        found += [np.concatenate(kept)] if (kept := [s for s in seen if len(s)]) else []
    if sum(map(len, found)) < 2:
        return {}
    return write_reference(fit_reference(found))


def look_at_tissue(
    image: Image,
    model: str | Path,
    card: Card,
    scales: Sequence[float],
    *,
    tone: Tone | Apart,
    region: Region | None = None,
) -> dict[str, Any]:
    """Compare places of a volume with the training data of a network.

    Parameters
    ----------
    tone : of intensities, or of those of each slice

    Returns
    -------
    ``distance``, ``likeness``, number of ``places``, and ``ratios`` where the card has them, see
    `volseg.scores.likeness.expect_precision`; the likeness alone, as unknown, where the card says
    nothing of its data; nothing where there is no tissue
    """
    reference = read_reference(card.tissue)
    if reference is None:
        return {"likeness": UNKNOWN}
    form, shape = card.form, image.levels[0].shape
    z, y, x = scales
    source = Source(
        image.levels[0],
        np.broadcast_to(np.uint8(0), shape),
        region.roi if region else full_roi(shape),
        tone.whole if isinstance(tone, Apart) else tone,
        np.zeros((0, 3), np.int64),
        isotropic=False,
        planar=form.dimensions == 2,
        scale=(z, y, x),
        apart=replace(tone, shown=image.levels[0]) if isinstance(tone, Apart) else None,
        ends=np.array(images_in(image)) if image.space.planar else None,
    )
    block = load_block(model, card)
    nothing = region.find_nothing if region else None
    features = sample_features(block, source, form, LOOKED_AT, nothing)
    if not len(features):
        return {}
    if features.shape[1] != reference.means.shape[1]:
        return {"likeness": UNKNOWN}
    distance = round(float(np.median(reference.measure(features))), 2)
    likeness = name_likeness(distance)
    noted = {"distance": distance, "likeness": likeness, "places": len(features)}
    ratios = card.tissue.get("precision", {}).get(likeness)
    return {**noted, "ratios": list(ratios)} if ratios else noted
