"""Export trained weights with their card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from volseg import __version__
from volseg.models.maps import OFFSETS, MapSpec
from volseg.models.registry import Architecture, count_parameters
from volseg.stages.train.data import TrainingData
from volseg.stages.train.state import Run
from volseg.storage.weights import save_weights
from volseg.training.annotation import without_folder
from volseg.training.config import TrainConfig
from volseg.training.sampling import Source
from volseg.types import Zyx, zyx

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
                "recipe": {
                    **asdict(config),
                    "classes": [*map(without_folder, config.classes)],
                },
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
