"""Export trained weights with their card, and choose on the held-out data which objects count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from volseg import __version__
from volseg.geometry.grid import describe, roi_shape, roi_size, shift
from volseg.models.maps import OFFSETS, MapSpec
from volseg.models.registry import Architecture, count_parameters
from volseg.stages.train.data import TrainingData
from volseg.stages.train.state import Run
from volseg.storage.cards import Card, load_card, update_card
from volseg.storage.weights import load_network, save_weights
from volseg.training.config import TrainConfig
from volseg.training.sampling import Source
from volseg.training.selection import Predicted, Selection, match_components, select_objects
from volseg.training.validation import (
    CORES,
    WINDOWS,
    cut_windows,
    find_known,
    predict_window,
    whole_grid,
)
from volseg.types import FULL_PROBABILITY, Roi, Zyx, zyx

PATCH: Zyx = (32, 96, 96)
"""Networks that saw patches of this size at least are evaluated in full tiles."""
TILES: dict[int, tuple[Zyx, Zyx]] = {
    2: ((8, 576, 576), (0, 48, 48)),
    3: ((112, 160, 160), (16, 16, 16)),
}
"""Largest tile and least overlap of networks that keep slices apart, 2, and that mix them, 3
(decision 0067). Neighbours that the former see (2.5D) come from the tile's margin."""


@dataclass(frozen=True)
class Export:
    """Writes the averaged weights of a run, and their card.

    Attributes
    ----------
    origin : the weights that the run started from, if any.
    """

    path: Path
    data: TrainingData
    terms: str
    origin: Mapping[str, Any] | None = None

    def __call__(self, run: Run) -> None:
        """Write them as they are now, with the run's best row as their score."""
        best, config = run.best or {}, run.config
        tile, overlap = choose_tiles(run.form, config.patch)
        card = {
            "name": self.path.stem,
            "architecture": config.architecture,
            "width": config.width,
            "parameters": count_parameters(run.averaged),
            "voxel_size": list(self.data.voxel_size),
            "preprocessing": asdict(self.data.preprocessing),
            "tile": list(tile),
            "overlap": list(overlap),
            "stride": list(run.form.stride),
            "threshold": best["threshold"],
            "maps": [asdict(m) for m in learned_maps(config, best, self.data.training[0])],
            "training": {
                "data": {str(k): entry for k, entry in enumerate(self.data.description, 1)},
                "terms": self.terms,
                "seeds": [config.seed],
                "steps": run.step,
                "minutes": best["minutes"],
                "from": dict(self.origin) if self.origin else "chance",
                "recipe": asdict(config),
                "volseg": __version__,
            },
            "scores": {
                "validation Jaccard": best["jaccard"],
                "validation precision": best["precision"],
                "validation recall": best["recall"],
                **{k: v for k, v in best.items() if k.startswith(("jaccard ", "error_nm "))},
                "measured on": f"{describe_held_out(self.data.description)}, held out, at the best "
                f"threshold and the best of the run's validations",
            },
        }
        save_weights(self.path, run.averaged.state_dict(), card)


def learned_maps(config: TrainConfig, best: Mapping[str, float], source: Source) -> list[MapSpec]:
    """List the maps of a network of several, with the best threshold or the reach of each."""
    reach = source.targets.reach_nm if source.targets else 0.0
    found = [replace(m, threshold=best.get(f"threshold {m.name}", 0.5)) for m in config.maps]
    return [replace(m, reach_nm=reach) if m.kind in OFFSETS else m for m in found]


def describe_held_out(description: Sequence[Mapping[str, Any]]) -> str:
    """Describe the data of the validation.

    Examples
    --------
    >>> describe_held_out([{"volume": "a.zarr", "validation": ["0:9,0:9,0:9"]}])
    'a.zarr 0:9,0:9,0:9'
    """
    named = []
    for entry in description:
        for k, box in enumerate(entry["validation"]):
            slices = entry.get("validation slices")
            count = f" ({len(slices[k])} of its slices)" if slices else ""
            named.append(f"{entry['volume']} {box}{count}")
    return ", ".join(named)


def choose_tiles(form: Architecture, patch: Zyx) -> tuple[Zyx, Zyx]:
    """Choose tile and overlap for inference; smaller ones for networks that saw small patches.

    Examples
    --------
    >>> from volseg.models.registry import find_architecture
    >>> form = find_architecture("emnet")
    >>> choose_tiles(form, (32, 96, 96)), choose_tiles(form, (16, 48, 48))
    (((112, 160, 160), (16, 16, 16)), ((56, 80, 80), (8, 8, 8)))
    >>> choose_tiles(find_architecture("unet3d"), (8, 16, 16))
    ((24, 24, 24), (8, 8, 8))
    >>> choose_tiles(find_architecture("unet2d-neighbours"), (3, 64, 64))
    ((8, 576, 576), (0, 48, 48))
    """
    apart = form.stride[0] == 1
    full, shared = TILES[2 if apart else 3]
    tile, overlap = [], []
    for k in range(3):
        part = 1.0 if apart else min(patch[k] / PATCH[k], 1.0)
        multiple, stride, offset = form.multiple[k], form.stride[k], form.offset[k]
        tile.append(max((int(full[k] * part) - offset) // multiple, 1) * multiple + offset)
        wanted = min(int(shared[k] * part), tile[k] // 2)
        # half of a small tile leaves little room for more; without an overlap there are seams
        most = tile[k] // 2 // stride
        steps = math.ceil(wanted / stride) if apart else min(max(wanted // stride, 1), most)
        overlap.append(steps * stride + offset)
    return zyx(tile), zyx(overlap)


CHOSEN = "objects"
"""The key under which a card's training says how the rules for objects were chosen."""


def choose_objects(
    weights: Path,
    sources: Sequence[Source],
    device: torch.device,
    precision: torch.dtype,
    *,
    images: bool,
) -> Mapping[str, Any]:
    """Choose the smallest size and the lowest mean probability on the held-out regions.

    They become the card's `min_size` and `min_probability`, unless it has them; all is noted there.

    Parameters
    ----------
    images : whether slices are unrelated images, so that objects have no depth.
    """
    card = load_card(weights)
    if CHOSEN in card.training:
        noted: Mapping[str, Any] = card.training[CHOSEN]
        return noted
    regions = [] if images else [region for s in sources if (region := whole_region(s))]
    if not regions:
        why = "slices are unrelated images" if images else "no two held-out slices are neighbours"
        return _note(weights, card, None, {"not chosen": why})
    form, network = card.form, load_network(weights, card).to(device)
    level = math.ceil(card.threshold * FULL_PROBABILITY)
    found = [predict_objects(network, s, r, form, precision, level) for s, r in regions]
    chosen = select_objects(found, card.threshold)
    return _note(weights, card, chosen, {"regions": [describe(_in_volume(*r)) for r in regions]})


def _note(
    weights: Path, card: Card, chosen: Selection | None, noted: Mapping[str, Any]
) -> Mapping[str, Any]:
    changed: dict[str, Any] = {}
    if chosen is None:
        noted = {"not chosen": "no predicted object is right in the held-out regions", **noted}
    else:
        changed = {"min_size": chosen.min_size, "min_probability": chosen.min_probability}
        noted = {
            "by": "F1 of objects matched above IoU 0.5",
            "F1": round(chosen.f1, 4),
            "F1 of all objects": round(chosen.f1_of_all, 4),
            "in the truth": chosen.truth,
            "kept": chosen.kept,
            "right": chosen.right,
            **noted,
        }
    update_card(weights, {**changed, "training": {**card.training, CHOSEN: noted}})
    return noted


def whole_region(source: Source, most: int | None = None) -> tuple[Source, Roi] | None:
    """Find a part of a held-out region in which objects are whole, as large as a validation is.

    Parameters
    ----------
    most : voxels of the part, if fewer

    Returns
    -------
    source, roi
        The roi in voxels of the network, counted from the source's; None where no two
        neighbouring slices are annotated.
    """
    z, y, x = whole_grid(source)
    if source.slices is not None:
        runs = np.split(source.slices, np.flatnonzero(np.diff(source.slices) != 1) + 1)
        longest = max(runs, key=len) - source.roi[0].start
        first, stop = longest[0] / source.scale[0], (longest[-1] + 1) / source.scale[0]
        z = slice(math.ceil(first), math.floor(stop))
        if len(longest) < 2 or z.stop - z.start < 2:
            return None
    box = z, y, x
    limit = WINDOWS * math.prod(CORES[2 if source.planar else 3])
    scale = min((min(limit, most or limit) / roi_size(box)) ** (1 / 3), 1.0)
    a, b, c = (_centre(side, scale) for side in box)
    return source, (a, b, c)


def _in_volume(source: Source, region: Roi) -> Roi:
    """Find the voxels of the volume that a region of the network's grid covers."""
    axes = zip(source.roi, region, source.scale, strict=True)
    return zyx(
        slice(s.start + round(r.start * k), min(s.start + round(r.stop * k), s.stop))
        for s, r, k in axes
    )


def _centre(side: slice, scale: float) -> slice:
    kept = max(int((side.stop - side.start) * scale), 1)
    start = side.start + (side.stop - side.start - kept) // 2
    return slice(start, start + kept)


def predict_objects(
    network: nn.Module,
    source: Source,
    roi: Roi,
    form: Architecture,
    precision: torch.dtype,
    level: int,
) -> Predicted:
    """Predict a region, window by window, and match its objects with those of the labels.

    Sizes are in voxels of the network's size, whatever the thickness of the slices that it saw.
    What nobody annotated holds no objects.
    """
    levels: NDArray[np.uint8] = np.empty(roi_shape(roi), np.uint8)
    truth: NDArray[np.bool_] = np.empty(levels.shape, bool)
    for window in cut_windows(roi, CORES[form.dimensions]):
        probabilities, inside_truth = predict_window(network, source, window, form, precision)
        inside = shift(window, [side.start for side in roi])
        known = find_known(source, window)
        seen = probabilities if known is None else probabilities * known
        levels[inside] = (seen * FULL_PROBABILITY).round()
        truth[inside] = inside_truth
    found = match_components(levels, truth, level)
    return replace(found, voxels=np.rint(found.voxels * source.depth).astype(np.int64))
